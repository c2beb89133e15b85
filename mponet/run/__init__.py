"""A run: variants of a model trained in one folder, which a killed run continues from.

In the order of the flow: `resolve` gives the `Settings` behind a command line; `run` trains, tells a `Reporter`, and
gives a `Result` per variant.  In the folder::

    config.json                        settings; and, per start, backend, device and versions
    result.json                        the results so far
    <variant>/metrics.jsonl            one record per block of steps
    <variant>/spectra.jsonl            spectra and entropies of the operators, one line per evaluation
    <variant>/checkpoint.safetensors   see `mponet.checkpoint`

A result is computed from the metrics, so that a resumed run and an uninterrupted one report alike.
"""

from mponet.run.execute import Reporter as Reporter
from mponet.run.execute import run as run
from mponet.run.folder import RunFolder as RunFolder
from mponet.run.result import Result as Result
from mponet.run.result import summary as summary
from mponet.run.settings import Settings as Settings
from mponet.run.settings import default_folder as default_folder
from mponet.run.settings import resolve as resolve
