"""Networks and inputs made up for the tests: correlated inputs, weights with falling spectra."""

import numpy as np

from mponet.compress import Calibration, InputSums, Target


def correlated(rng, rows, size, decay=1.0, mean=0.0):
    """Rows in random directions, with a covariance whose spectrum falls as activations' does."""
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    return mean + (rng.standard_normal((rows, size)) * np.arange(1, size + 1) ** -decay) @ basis


def weight(rng, n, m, decay=0.5):
    """A matrix with singular values ``k^-decay`` and random singular vectors."""
    left = np.linalg.qr(rng.standard_normal((n, min(n, m))))[0]
    right = np.linalg.qr(rng.standard_normal((m, min(n, m))))[0]
    return (left * np.arange(1, min(n, m) + 1) ** -decay) @ right.T


def linear(name, matrix, bias=None, **options):
    """A target of a matrix that is at hand."""
    return Target(
        name=name,
        kind=options.pop("kind", "linear"),
        type_name=options.pop("type_name", "Linear"),
        in_features=matrix.shape[0],
        out_features=matrix.shape[1],
        load=lambda: matrix,
        load_bias=None if bias is None else lambda: bias,
        **options,
    )


def calibrated(targets, inputs, gradients=None):
    """The calibration of targets on their inputs, name to rows."""
    calibration = Calibration()
    for target in targets:
        sums = InputSums.zeros(target.in_features)
        sums.add(inputs[target.name])
        calibration.sums[target.name] = sums
        calibration.inputs[target.name] = target.name
        if gradients is not None:
            calibration.add_gradient(target.name, gradients[target.name], len(inputs[target.name]))
    return calibration


def network(seed=0, sizes=((48, 48), (48, 96), (96, 48), (48, 40)), bias=True):
    """Targets, inputs by name, and gradients, of a small made-up network."""
    rng = np.random.default_rng(seed)
    targets, inputs, gradients = [], {}, {}
    for k, (n, m) in enumerate(sizes):
        name = f"blocks.{k}.fc"
        vector = rng.standard_normal(m) if bias else None
        targets.append(linear(name, weight(rng, n, m, 0.2 + 0.2 * k), vector))
        inputs[name] = correlated(rng, 600, n, 0.6, mean=0.5)
        gradients[name] = 10.0**k
    return targets, inputs, gradients
