"""Small data sets in the published formats, with digests that match."""

import hashlib
from pathlib import Path

import numpy as np

from mponet.training.data import files

PUBLISHED = ("mnist", "fashion-mnist", "cifar10")
COUNTS = {"train": 20, "t10k": 10}


def idx(array):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def labels(count):
    return (np.arange(count) % 10).astype(np.uint8)


def idx_payload(path):
    name = Path(path).name
    count = COUNTS[name.split("-")[0]]
    return idx(pixels(count, count, 28, 28) if "images" in name else labels(count))


def cifar_payload(path):
    planes = pixels(sum(path.encode()), 10, 3 * 32 * 32)
    return np.concatenate([labels(10)[:, None], planes], axis=1).tobytes()


def published_payloads(name):
    make = cifar_payload if name == "cifar10" else idx_payload
    return {path: make(path) for archive in files.ARCHIVES[name] for path in archive.files}


def sign(monkeypatch, payloads):
    for path, payload in payloads.items():
        monkeypatch.setitem(files.SHA256, path, hashlib.sha256(payload).hexdigest())


def place(root, payloads):
    for path, payload in payloads.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(payload)
