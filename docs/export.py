"""Makes docs/export.md from measured deviations: ``python docs/export.py > docs/export.md``.

``python docs/export.py --measure torch`` (``jax``, ``tensorflow``) measures one framework again and
writes it to docs/measured/exports.json.
"""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap

from mponet.backend import load
from mponet.export import FORMATS

HERE = Path(__file__).parent
MEASURED, SPEED = HERE / "measured" / "exports.json", HERE / "measured" / "export-speed.json"
FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "Keras"}
WIDTH = 100  # columns of the page
HEAD = """# Exporting networks

    mponet export runs/fc2-digits-torch-short-seed0/mpo --to onnx -o fc2.onnx
    mponet export small --model network:make --to torch-export -o small.pt2

or, from Python, with any module or model that holds operators:

    import mponet_torch
    written = mponet_torch.export(model, "model.onnx", example_inputs, to="onnx")
    print(written.deviation)

`mponet_jax.export` and `mponet_tensorflow.export` are the same for their frameworks. The exported
file needs no mponet, except a Keras file, which names its layers.

**Nothing is written unless it works.** The file is written under a temporary name, loaded, and run
on the example and on one that is longer along every dynamic axis. Its outputs are compared with
those of the network; if they deviate by more than `--tolerance` (relative to the largest output),
or the exporter fails, there is one error and no file. The deviation is printed, and is in `--json`.

**Axes of any length**: axis 0, the batch, unless `--dynamic` names others. All inputs share them.

**`--merge`** multiplies the operators out before the export. The file is as large as a dense one,
and as fast. Take it where the layers are small or batches are large, so that operators are not
faster; `mponet plan` shows the costs.

**Compressed networks** (folders of `save_compressed`) hold the cores and no code. `--model
MODULE:FUNCTION` names a function that returns the network as it was before compression, and an
example of its inputs, as `(network, inputs)`.

## What is tested

Every number is the largest deviation of a test, operators and merged (AOTInductor: operators only),
in float32: `tests/backends/test_export.py`. A number in brackets refers to the notes below."""
NOTES = """## Packages

`pip install 'mponet[onnx]'` brings `onnx`, `onnxscript` (which `torch.onnx` needs), `tf2onnx`
(which `keras.Model.export` needs) and `onnxruntime`. The other formats need the framework only;
AOTInductor also needs a C++ compiler.

- **ONNX of JAX**: `jax2onnx` 0.17 installs another `orbax-checkpoint` than flax 0.12 does, so it is
  not offered.
- **OpenVINO**: `keras.Model.export(format="openvino")` works with our layers, but rounds weights to
  float16: outputs deviate by 1e-2. OpenVINO reads ONNX files, so export one of those.
- **`ai-edge-litert`** runs the LiteRT files; TensorFlow has the same interpreter, so it is not
  needed here.

Checks of the layers that are made while Python runs (the width of inputs, tokens outside of the
vocabulary) are not in an exported program, as is usual in every framework."""


def page() -> Iterator[str]:
    """Lines of the page."""
    yield from HEAD.splitlines()
    yield ""
    found, reasons = measured(), []
    kinds = list(next(iter(found["deviations"]["torch"].values())))
    yield f"| format | framework | {' | '.join(kinds)} |"
    yield f"| --- | --- |{' ---: |' * len(kinds)}"
    for to, kind in FORMATS.items():
        for framework, title in FRAMEWORKS.items():
            if framework in kind.needs:
                cells = [f"{value:.0e}" for value in found["deviations"][framework][to].values()]
            else:
                reason = kind.absent[framework]
                if reason not in reasons:
                    reasons.append(reason)
                cells = [f"[{reasons.index(reason) + 1}]"] * len(kinds)
            yield f"| `{to}` | {title} | {' | '.join(cells)} |"
    yield ""
    for number, reason in enumerate(reasons, start=1):
        yield from wrap(f"{number}. {reason}", WIDTH, subsequent_indent="   ")
    yield ""
    for to, kind in FORMATS.items():
        yield from wrap(f"- `{to}`: {kind.title}.", WIDTH, subsequent_indent="  ")
    yield ""
    versions = [f"{name} {version}" for name, version in sorted(found["versions"].items())]
    yield from wrap(f"Measured with {', '.join(versions)}.", WIDTH)
    yield ""
    yield from speed()
    yield from NOTES.splitlines()


def speed() -> Iterator[str]:
    """The table of times, if they were measured."""
    if not SPEED.exists():
        return
    rows = json.loads(SPEED.read_text(encoding="utf-8"))
    yield from rows["text"]
    yield ""
    yield f"| layer | batch | {' | '.join(rows['columns'])} |"
    yield f"| --- | ---: |{' ---: |' * len(rows['columns'])}"
    for row in rows["rows"]:
        yield f"| {row['layer']} | {row['batch']} | {' | '.join(f'{value:.3f}' for value in row['milliseconds'])} |"
    yield ""


def measured() -> dict:
    """What docs/measured/exports.json holds."""
    return json.loads(MEASURED.read_text(encoding="utf-8"))


def measure(framework: str) -> None:
    """Export every kind of layer to every format of a framework, and keep the deviations."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    module = import_module(f"contract.{framework}_exports")
    found = measured() if MEASURED.exists() else {"versions": {}, "deviations": {}}
    table: dict[str, dict[str, float]] = {}
    for to in module.EXPORTERS:
        table[to] = {}
        for kind, (model, inputs) in module.models().items():
            for merge in (False, True)[: 1 if to == "aotinductor" else 2]:
                with TemporaryDirectory() as folder:
                    path = Path(folder) / f"m{FORMATS[to].suffix}"
                    written = module.export(model, path, inputs, to=to, merge=merge)
                table[to][kind] = max(table[to].get(kind, 0.0), written.deviation)
                print(framework, kind, written, file=sys.stderr)
    found["deviations"][framework] = table
    found["versions"] |= load(framework).versions()
    MEASURED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2])
    else:
        print("\n".join(page()))
