"""A suite as Ray tasks: one task is one cell."""

from pathlib import Path

from mponet.backend import load
from mponet.training import data
from mponet.training.suite.folder import read
from mponet.training.suite.worker import work_on


def run_cell(name: str, folder: str, device: str | None) -> str:
    """Train one cell of the suite in a folder, here and now; a line about how it ended."""
    path = Path(folder)
    suite = read(path)
    training = next(one for one in suite.trainings() if str(one) == name)
    datasets = {training.settings.data: data.load(training.settings.data)}
    return work_on(training, suite, load(suite.backend), datasets, path, device=device)
