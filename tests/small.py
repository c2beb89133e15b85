"""The small networks with numbers in them: values away from their start, a batch, dropout masks."""

import numpy as np

from mponet.models.dropout import dropout_layers, sample_masks
from mponet.models.init import start
from mponet.models.miniatures import IMAGE as IMAGE
from mponet.models.miniatures import networks as networks


def values(model, seed=0, spread=0.3):
    """Parameters and running statistics of which none is at its starting value."""
    rng = np.random.default_rng(seed)
    found = start(model, seed)
    for name, value in found.items():
        kind = name.rpartition("/")[2]
        if kind in ("bias", "shift", "mean"):
            found[name] = rng.normal(0.0, spread, value.shape)
        elif kind in ("scale", "variance"):
            found[name] = rng.uniform(0.5, 1.5, value.shape)
    return found


def batch(model, count=6, seed=0):
    """(images, labels, dropout masks)."""
    rng = np.random.default_rng(seed + 1)
    return (
        rng.random((count, *model.input_shape)),
        rng.integers(0, 10, count),
        sample_masks(dropout_layers(model), count, seed, 0),
    )
