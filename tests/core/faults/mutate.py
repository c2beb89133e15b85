"""Seeded mutations of documents: bytes that were damaged, and values that nobody expects."""

import json
import random

#: Values put in place of others; as JSON text, since some of them are no JSON.
ODD = (
    *("null", "true", "-1", "0", "0.5", "1e308", "1e400", "-1e400", "1e-320", "NaN", "Infinity", "-0.0"),
    *("9007199254740993", "18446744073709551616", "1" + "0" * 400, "1" + "0" * 5000),
    *('""', '"x"', '"\\ud800"', '"\\u0000"', '"<script>"', '"' + "y" * 300 + '"', '"' + "z" * 200_000 + '"', '"../.."'),
    *("[]", "{}", "[[]]", '{"a": 1}', "[1, 2, 3]", "[" * 5000 + "]" * 5000, '{"a":' * 5000 + "1" + "}" * 5000),
)


def mutated(document: bytes, rng: random.Random) -> bytes:
    """A document with one to three mutations."""
    for _ in range(rng.randint(1, 3)):
        document = rng.choice((_bytes, _value, _value, _key))(document, rng)
    return document


def _bytes(document: bytes, rng: random.Random) -> bytes:
    """Damage that knows nothing of JSON."""
    data, place = bytearray(document), rng.randrange(len(document) + 1)
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        return bytes(data[:place]) + rng.randbytes(rng.randint(1, 8)) + bytes(data[place:])
    if kind == 2:
        return bytes(data[:place]) + bytes(data[place + rng.randint(1, 20) :])
    if kind == 3:
        return bytes(data) * 2
    if kind == 4:
        other = rng.randrange(len(document) + 1)
        return bytes(data[:place]) + bytes(data[other:])
    if data:
        data[place % len(data)] = rng.randrange(256)
    return bytes(data)


def _value(document: bytes, rng: random.Random) -> bytes:
    """Another value at a random place of the tree."""
    mark = "@odd@"

    def change(tree):
        where = _places(tree)
        if where:
            owner, key = rng.choice(where)
            owner[key] = mark

    return _edited(document, rng, change).replace(f'"{mark}"'.encode(), rng.choice(ODD).encode())


def _key(document: bytes, rng: random.Random) -> bytes:
    """A key that is gone, doubled or called otherwise."""

    def change(tree):
        where = [(owner, key) for owner, key in _places(tree) if isinstance(owner, dict)]
        if where:
            owner, key = rng.choice(where)
            value = owner.pop(key)
            if rng.random() < 0.5:
                owner[rng.choice((key + "x", "", "\ud800", "k" * 300))] = value

    return _edited(document, rng, change)


def _edited(document: bytes, rng: random.Random, change) -> bytes:
    """One line of the document changed as a tree, if it is JSON still."""
    lines = document.split(b"\n") if b"\n{" in document and not document.startswith((b"{\n", b"[\n")) else [document]
    place = rng.randrange(len(lines))
    try:
        tree = [json.loads(lines[place])]
        change(tree)
        lines[place] = json.dumps(tree[0]).encode()
    except (ValueError, RecursionError):
        return document
    return b"\n".join(lines)


def _places(tree) -> list:
    """Owner and key of every value, the document itself too; no deeper than mutations make."""
    found, waiting = [], [tree]
    while waiting and len(found) < 2000:
        owner = waiting.pop()
        for key in list(owner) if isinstance(owner, dict) else range(len(owner)):
            found.append((owner, key))
            if isinstance(owner[key], dict | list):
                waiting.append(owner[key])
    return found
