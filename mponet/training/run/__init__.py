"""A run: variants of a model trained in one folder, which a killed run continues from.

In the order of the flow: `resolve` makes the `Settings` of a command line; `run` trains, tells
a `Reporter`, and gives a `Result` per variant.  In the folder::

    config.json                        settings; and, per start, backend, device and versions
    result.json                        the results so far
    <variant>/metrics.jsonl            one record per block of steps
    <variant>/spectra.jsonl            spectra and entropies, one line per evaluation
    <variant>/checkpoint.safetensors   see `mponet.training.checkpoint`

A result is computed from the metrics, so that a resumed run and an uninterrupted one report alike.
"""

from mponet.training.run.execute import check_shards as check_shards
from mponet.training.run.execute import run as run
from mponet.training.run.folder import RunFolder as RunFolder
from mponet.training.run.reporter import Reporter as Reporter
from mponet.training.run.result import Result as Result
from mponet.training.run.result import summary as summary
from mponet.training.run.settings import Settings as Settings
from mponet.training.run.settings import default_folder as default_folder
from mponet.training.run.settings import resolve as resolve
