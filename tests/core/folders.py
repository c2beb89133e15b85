"""Folders of suites and runs as the library writes them, with chosen accuracies, untrained."""

from core.toy import ToyBackend
from mponet.crosscheck import Comparison, Report
from mponet.models.init import start
from mponet.training.loop import Record
from mponet.training.run import RunFolder, metrics, spectra
from mponet.training.run.lines import line
from mponet.training.run.result import result
from mponet.training.suite import plan
from mponet.training.suite.folder import claim_folder

STEPS = 200


def records(base, steps=STEPS, every=20, upto=None):
    """A training that becomes better and ends at ``base``; every second record has an accuracy."""
    return [
        Record(
            step,
            step / 50,
            2.0 / step,
            0.1,
            base - (steps - step) / (20 * steps) if step % (2 * every) == 0 else None,
            5000.0,
            step / 100,
        )
        for step in range(every, (upto or steps) + 1, every)
    ]


def fill(folder, settings, variant, base, *, upto=None, message=None, measured=True, steps=STEPS, every=20):
    """The folder of a run as the library writes it, with given accuracies."""
    folder.mkdir(parents=True, exist_ok=True)
    home = RunFolder(folder, settings)
    home.note_start(ToyBackend(), None)
    home.metrics(variant).parent.mkdir(exist_ok=True)
    course = records(base, steps, every, upto)
    home.metrics(variant).write_text("".join(line(metrics.as_dict(one)) for one in course))
    model = settings.networks[variant]
    if measured and spectra.has_operators(model):
        once = spectra.measure(model, start(model, settings.seed), 0, 0.0).as_dict()
        moments = [once, *({"step": one.step, "epoch": one.epoch} for one in course if one.accuracy is not None)]
        home.spectra(variant).write_text("".join(line(once | moment) for moment in moments))
    if upto is None or message is not None:
        home.note_result(variant, result(settings, variant, course, checkpoint=None, message=message), "toy")


def fill_suite(home, entries, *, data="digits", seeds=2, backend="torch", only=lambda cell: True, **options):
    """A suite whose accuracies all differ; gives them by cell."""
    home.mkdir(parents=True, exist_ok=True)
    suite = plan(
        entries, backend=backend, images={data: 1437}, seeds=seeds, data=data, steps=options.get("steps", STEPS)
    )
    claim_folder(home, suite)
    given = {}
    for number, cell in enumerate(suite.trainings()):
        if only(cell):
            given[str(cell)] = 0.9 + 0.00137 * number
            fill(cell.run_folder(home), cell.settings, cell.variant, given[str(cell)], **options)
    return given


def checked(error=1e-16):
    pairs = [("torch", "jax"), ("torch", "numpy"), ("jax", "numpy")]
    found = [Comparison("forward", *pair, error, "logits", 1e-12) for pair in pairs]
    found += [Comparison("gradients", "torch", "jax", 1e-11, "fc1/core1", 1e-10)]
    one = Report("fc2", "mpo", 4, "float64", 0, 8, {}, tuple(found))
    return {"ok": one.ok, "reports": [one.as_dict()]}
