"""What a balanced operator gains from symmetries that a network does not feel.

The hidden units of an MLP may stand in any order, and the values of an attention head in any basis:
the layers before and after change together, and the network computes the same.  A genuine chain
does feel the order, because neighbours share a site.  For every block of SmolLM2-135M and MiniLM-L6
this script takes the hidden units as they are, at random, sorted by norm, sorted along the first
singular vector, and clustered (average linkage of cosine distances); and the values of every head
as they are and in the singular basis of its value and output matrices.

The factors of a matrix have an order, too: the first site may take the fast factor of the inputs
instead of the slow one (*crossed*).  That changes no neighbour; the layer reads its inputs in
another order.

Figures are relative errors of TT-SVD over two balanced sites, all matrices of a kind together.
Run from the root of the repository::

    python benchmarks/compress_orders.py
"""

import compress_smollm2
import numpy as np
from cells import Cells, parser
from pretrained import minilm
from scipy.cluster.hierarchy import leaves_list, linkage

from mponet.operators.factors import factorize

KEEPS = (0.5, 0.25)
LEGS = {"as it is": ("as it is",), "crossed": ("crossed",), "better of both": ("as it is", "crossed")}
ORDERS = ("as it is", "random", "norm", "singular vector", "clustered")


def truncation_errors(matrix, *, crossed=False):
    """Squared errors of two balanced sites at `KEEPS`, and the squared norm.

    One singular value decomposition of the matrix whose rows are the first site's legs.
    """
    (a, b), (c, d) = (factorize(size, 2) for size in matrix.shape)
    legs = matrix.reshape(a, b, c, d)
    if crossed:
        legs, c, d = legs.swapaxes(2, 3), d, c
    unfolded = legs.transpose(0, 2, 1, 3).reshape(a * c, b * d)
    gram = unfolded @ unfolded.T if a * c <= b * d else unfolded.T @ unfolded
    squares = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    bonds = [int(keep * matrix.size / (a * c + b * d)) for keep in KEEPS]
    return [float(squares[bond:].sum()) for bond in bonds], float(squares.sum())


def order_of(units, order):
    """The hidden units ``(units, weights of each)`` in an order."""
    if order == "random":
        return np.random.default_rng(0).permutation(len(units))
    if order == "norm":
        return np.argsort(np.linalg.norm(units, axis=1))
    if order == "singular vector":
        return np.argsort(np.linalg.svd(units, full_matrices=False)[0][:, 0])
    if order == "clustered":
        return leaves_list(linkage(units, "average", metric="cosine"))
    return np.arange(len(units))


def smollm2():
    """Per block: matrices ``(hidden, in)`` before the hidden units, ``(out, hidden)`` after them.

    And the value and output matrices of the heads, with the size of a head and heads that share.
    """
    model = compress_smollm2.load()[0]
    size = model.config.hidden_size // model.config.num_attention_heads
    for block in model.model.layers:
        mlp, attention = block.mlp, block.self_attn
        pair = (numbers(attention.v_proj), numbers(attention.o_proj), size)
        yield [numbers(mlp.gate_proj), numbers(mlp.up_proj)], numbers(mlp.down_proj), pair


def encoder():
    """As `smollm2`, of MiniLM."""
    model = minilm()[0]
    size = model.config.hidden_size // model.config.num_attention_heads
    for block in model.encoder.layer:
        pair = (numbers(block.attention.self.value), numbers(block.attention.output.dense), size)
        yield [numbers(block.intermediate.dense)], numbers(block.output.dense), pair


def numbers(layer):
    """The weight in float64."""
    return layer.weight.detach().double().numpy()


def reordered(before, after, order):
    """All matrices of an MLP with the hidden units in an order."""
    rows = order_of(np.concatenate([*before, after.T], axis=1), order)
    return [matrix[rows] for matrix in before] + [after[:, rows]]


def rotated(values, outputs, size):
    """The values of every head in the singular basis of value and output matrices.

    Several heads of the outputs may read the same values (grouped queries).
    """
    values, outputs = values.copy(), outputs.copy()
    heads = len(values) // size
    shared = outputs.shape[1] // len(values)
    for head in range(heads):
        rows = slice(head * size, (head + 1) * size)
        columns = slice(head * shared * size, (head + 1) * shared * size)
        readers = outputs[:, columns].reshape(-1, shared, size)
        stacked = readers.transpose(1, 0, 2).reshape(-1, size)
        # outputs @ values = U S V^T: the basis is U's side of the values
        q, r = np.linalg.qr(stacked)
        u, s, v = np.linalg.svd(r @ values[rows], full_matrices=False)
        scale = np.sqrt(s)[:, None]
        values[rows] = scale * v
        found = (q @ u * scale.T).reshape(shared, -1, size).transpose(1, 0, 2)
        outputs[:, columns] = found.reshape(len(outputs), -1)
    return values, outputs


def relative(matrices, legs=("as it is",)):
    """Relative error of all matrices together at each of `KEEPS`, each in its best order."""
    lost, total = np.zeros(len(KEEPS)), 0.0
    for matrix in matrices:
        options = [truncation_errors(matrix, crossed=order == "crossed") for order in legs]
        lost, total = lost + np.min([squares for squares, _ in options], axis=0), total + options[0][1]
    return [float(error) for error in np.sqrt(lost / total)]


def check(values, outputs, size):
    """The basis of a head changes nothing: products of outputs and values are the same."""
    again = rotated(values, outputs, size)
    shared = outputs.shape[1] // len(values)
    for head in range(outputs.shape[1] // size):
        rows, columns = (slice(place * size, (place + 1) * size) for place in (head // shared, head))
        expected = outputs[:, columns] @ values[rows]
        assert np.allclose(again[1][:, columns] @ again[0][rows], expected, atol=1e-9 * np.abs(expected).max())


def main():
    """Print the errors of every order, network by network."""
    cells = Cells(parser(__doc__, "compress-orders").parse_args(), {"benchmark": "compress-orders", "keeps": KEEPS})
    for name, blocks in {"SmolLM2-135M": smollm2, "MiniLM-L6": encoder}.items():
        if not cells.wants(f"{name} mlp {ORDERS[-1]}", f"{name} heads singular basis", f"{name} legs better of both"):
            continue
        found = list(blocks())
        for order in ORDERS:
            cells.measure(
                f"{name} mlp {order}",
                lambda found=found, order=order: relative(
                    matrix for before, after, _ in found for matrix in reordered(before, after, order)
                ),
            )
        check(*found[0][2])
        pairs = [pair for *_, pair in found]
        cells.measure(f"{name} heads as it is", lambda pairs=pairs: relative(m for pair in pairs for m in pair[:2]))
        cells.measure(
            f"{name} heads singular basis", lambda pairs=pairs: relative(m for pair in pairs for m in rotated(*pair))
        )
        for order, legs in LEGS.items():
            matrices = [m for before, after, pair in found for m in (*before, after, *pair[:2])]
            cells.measure(f"{name} legs {order}", lambda matrices=matrices, legs=legs: relative(matrices, legs))


if __name__ == "__main__":
    main()
