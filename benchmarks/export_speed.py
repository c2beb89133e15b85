"""Times of exported layers in onnxruntime beside the layers that they come from.

    python benchmarks/export_speed.py > docs/measured/export-speed.json

Minimum of interleaved rounds, one thread, float32, PyTorch layers; needs ``mponet[torch,onnx]``.
"""

import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import onnxruntime
import torch

from mponet_torch import MPOLinear
from mponet_torch.exporting import export

LAYERS = (((32, 32), 4), ((32, 32), 16), ((64, 64), 8), ((16, 16, 16), 4))
BATCHES = (1, 64, 512)
SECONDS = 1.0
COLUMNS = ("torch dense", "torch operator", "onnxruntime dense (merged)", "onnxruntime operator")


def session(path):
    """A session with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def times(calls):
    """Milliseconds of each call, the minimum of interleaved rounds."""
    best = [float("inf")] * len(calls)
    for call in calls:
        call()
    began = perf_counter()
    while perf_counter() - began < SECONDS * len(calls):
        for number, call in enumerate(calls):
            start = perf_counter()
            call()
            best[number] = min(best[number], perf_counter() - start)
    return [1000 * value for value in best]


def main():
    """Print the table as JSON."""
    torch.set_num_threads(1)
    rows = []
    for dims, bond in LAYERS:
        layer = MPOLinear(dims, dims, bond).eval()
        dense = layer.to_dense().eval()
        example = torch.randn(4, layer.in_features)
        with TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{merge}.onnx" for merge in (True, False)]
            for path, merge in zip(paths, (True, False), strict=True):
                export(layer, path, example, to="onnx", merge=merge)
            sessions = [session(path) for path in paths]
            for batch in BATCHES:
                inputs = torch.randn(batch, layer.in_features)
                feed = {sessions[0].get_inputs()[0].name: inputs.numpy()}
                calls = [
                    partial(dense, inputs),
                    partial(layer, inputs),
                    *(partial(s.run, None, feed) for s in sessions),
                ]
                with torch.inference_mode():
                    outputs = [np.asarray(call()).reshape(batch, -1) for call in calls]
                    found = times(calls)
                assert all(np.abs(value - outputs[0]).max() <= 1e-5 * np.abs(outputs[0]).max() for value in outputs)
                rows.append(
                    {"layer": f"({','.join(map(str, dims))})², D = {bond}", "batch": batch, "milliseconds": found}
                )
    text = [
        "## Speed in onnxruntime",
        "",
        "Milliseconds of a forward pass on one core, minimum of interleaved rounds",
        f"(`benchmarks/export_speed.py`, onnxruntime {onnxruntime.__version__}, torch {torch.__version__}).",
        "The ONNX file holds the plan that is chosen for an open batch.",
    ]
    print(json.dumps({"text": text, "columns": COLUMNS, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
