"""The report: contents of the page, the same bytes every time, no request to the outside."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from core.command import failing, run
from core.folders import STEPS, checked, fill, fill_suite
from mponet.errors import CheckpointError, InputError
from mponet.report import accuracy, bonds, chart, learning, report, speed
from mponet.report.experiments import experiments
from mponet.report.sources import Document, find
from mponet.training.run import resolve, spectra
from mponet.training.suite import plan
from mponet.training.suite.folder import claim_folder
from mponet.training.suite.published import FC2, FC2_NORMAL, RESNETS
from mponet.training.suite.settings import DEFAULT, SEEDS
from mponet.training.suite.write import percent

HOSTILE = "<script>alert(1)<img src=x onerror=alert(2)>&\"'"


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """Folder and accuracies of a suite of FC2 at two bonds."""
    home = tmp_path_factory.mktemp("suites") / "first"
    return home, fill_suite(home, ["fc2:2", "fc2:4"])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folder of a suite that is quickly drawn."""
    home = tmp_path_factory.mktemp("suites") / "small"
    fill_suite(home, ["fc2:2"], seeds=1, measured=False)
    return home


@pytest.fixture(scope="module")
def page(suite):
    return report(suite[0])


class Parts(HTMLParser):
    """What a browser would see: elements with their attributes, and the text outside of style."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_data(self, data):
        if self.inside[-1:] != ["style"]:
            self.words.append(data)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


# ---------------------------------------------------------------- what is on the page


def test_every_cell_is_there_with_its_accuracy(suite, page):
    text = Parts(page).text
    for cell, best in suite[1].items():
        assert f"{cell} toy done {best:.2%} {best:.2%}" in text


def test_the_paper_and_ours_stand_side_by_side(tmp_path):
    fill_suite(tmp_path / "mnist", ["fc2:4"], data="mnist", seeds=1)
    text = Parts(report(tmp_path / "mnist")).text
    assert "fc2 D=4 mnist 90.00 90.00 98.35 ± 0.20 90.14 90.14 97.80 ± 0.34 0.00866 0.0087 0.00997 1" in text
    assert "Paper: PRR 2, 023300 (2020), Fig. 2." in text


def test_the_points_of_figure_2_are_drawn_and_written(page):
    text = Parts(page).text
    for bond, mean, deviation, _ in FC2:
        assert re.search(rf"\b{bond} \d+ [\d.]+ {100 * mean:.2f} ± {100 * deviation:.2f}", text)
    assert f"dense 203264 {percent(FC2_NORMAL)}" in text
    picture = next(part for part in page.split("<svg") if "<title>FC2 on digits: accuracy" in part)
    markers = re.findall(r'<use xlink:href="#(\w+)"[^>]*style="fill: var\(--muted\)[^"]*"/>', picture)
    assert max(markers.count(one) for one in markers) >= len(FC2)
    assert "The paper's points are of MNIST, not of digits: for orientation only." in text


def test_the_points_of_figure_3_are_there_when_a_resnet_is(tmp_path, page):
    assert "Fig. 3" not in page
    fill_suite(tmp_path / "deep", ["resnet20"], data="cifar10", seeds=1, measured=False)
    text = Parts(report(tmp_path / "deep")).text
    for depth, normal, error, mpo, mpo_error in RESNETS:
        numbers = f"{depth} {100 * normal:.2f} ± {100 * error:.2f} {100 * mpo:.2f} ± {100 * mpo_error:.2f}"
        assert numbers in text
    assert "Networks on cifar10: accuracy against all parameters" in text


def test_every_operator_has_its_entropy_and_its_spectra(page):
    text = Parts(page).text
    for network in ("fc2 D=2", "fc2 D=4"):
        for operator in ("fc1", "fc2"):
            assert f"{network}, {operator}: entropy over the training (torch, seed 0)" in text
            assert f"{network}, {operator}: spectra singular values at each bond" in text
    assert "ln 4" in text


def test_a_folder_without_spectra_says_so(tmp_path):
    fill_suite(tmp_path / "old", ["fc2:2"], measured=False)
    text = Parts(report(tmp_path / "old")).text
    assert "No spectra were recorded for fc2 D=2 on digits" in text
    assert "entropy over the training" not in text


def test_what_is_not_finished_diverged_or_broke_is_named(tmp_path):
    home = tmp_path / "mixed"
    fill_suite(home, ["fc2:2", "fc2:4"], only=lambda cell: False)
    cells = plan(
        ["fc2:2", "fc2:4"], backend="torch", images={"digits": 1437}, seeds=2, data="digits", steps=STEPS
    ).trainings()
    fill(cells[0].run_folder(home), cells[0].settings, "dense", 0.95, upto=120)
    fill(cells[1].run_folder(home), cells[1].settings, "mpo", 0.95, upto=120, message="training diverged: <b> & so on")
    cells[2].run_folder(home).mkdir()
    (cells[2].run_folder(home) / "failed.json").write_text(json.dumps({"message": "no room"}))
    text = Parts(report(home)).text
    assert "6 trainings in 1 suite: 1 unfinished, 1 diverged, 1 failed, 3 waiting." in text
    assert "fc2-dense-seed0 toy step 120 of 200 93.00% 93.00%" in text
    assert "diverged 0.0167 120 20.00 ms 1 s training diverged: <b> & so on" in text
    assert "failed" in text and "no room" in text


def test_a_run_alone_and_a_folder_of_everything(tmp_path, small):
    settings = resolve("fc2", data="digits", images=1437, bond=16, seed=7, steps=STEPS)
    for variant, base in (("dense", 0.91), ("mpo", 0.92)):
        fill(tmp_path / "all" / "a run", settings, variant, base)
    text = Parts(report(tmp_path / "all" / "a run")).text
    assert "2 trainings in 1 run: 2 done." in text
    assert "dense toy done 91.00% 91.00%" in text and "mpo toy done 92.00% 92.00%" in text
    assert (
        "mponet run fc2 --variant both --backend toy --data digits --preset short --steps 200 --seed 7 --bond 16"
        in text
    )
    shutil.copytree(small, tmp_path / "all" / "deep" / "suite")
    text = Parts(report(tmp_path / "all")).text
    assert "4 trainings in 1 suite and 1 run: 4 done." in text
    assert "deep/suite/fc2-dense-seed0" in text and "a run/mpo" in text
    assert "mponet suite --backend torch --preset short --models fc2:2 --seeds 1 --data digits --steps 200" in text


def test_two_suites_are_told_apart_by_what_differs(tmp_path):
    for name, backend in (("a", "torch"), ("b", "jax")):
        fill_suite(tmp_path / name, ["fc2:2"], backend=backend, seeds=1)
    assert [experiment.label for experiment in experiments(find(tmp_path))] == ["torch", "jax"]
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    assert [experiment.label for experiment in experiments(find(tmp_path))] == ["a", "b", "c"]


def test_versions_are_those_that_trained(page):
    text = Parts(page).text
    assert re.search(r"toy cpu mponet \S+, numpy \S+, python \S+, toy 1 6", text)


# ---------------------------------------------------------------- cross-check and benchmarks


def test_a_crosscheck_in_the_folder_becomes_a_map(tmp_path, small):
    home = tmp_path / "checked"
    shutil.copytree(small, home)
    (home / "anything.json").write_text(json.dumps(checked()))
    (home / "notes.json").write_text('{"reports": "none"}')
    (home / "broken.json").write_text("{")
    parts = Parts(report(home))
    assert "1 networks: all 4 comparisons are within their bounds." in parts.text
    cells = [attributes for tag, attributes in parts.elements if tag == "td" and "title" in attributes]
    assert [cell["class"] for cell in cells] == ["s0", "s0", "s0", "s3"]
    assert cells[3]["title"] == "fc2 (mpo D=4): fc1/core1, 1.0e-11 of 1.0e-10 allowed"


def test_an_error_beyond_its_bound_stands_out(tmp_path, small):
    file = tmp_path / "given.json"
    file.write_text(json.dumps(checked(error=1e-3)))
    parts = Parts(report(small, [file]))
    assert "3 of 4 comparisons are beyond their bounds" in parts.text
    assert sum(attributes.get("class") == "beyond" and tag == "td" for tag, attributes in parts.elements) == 3


def entry(kind, seconds):
    return {"name": kind, "kind": kind, "step": {"median": seconds}, "versions": {}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"bench": "layers", "rows": [{"backend": "jax", "row": "fc2-d4", "targets": {"step": 1.3}, "contenders":
             [entry("dense", 2.0), entry("ours", 1.0), entry("peer", 4.0), entry("peer", 3.0), {"cannot": "y"}]}]},
            [("jax", "fc2-d4", "step", 0.5, 1.3), ("jax", "fc2-d4", "step, best peer", 1.5, None)],
        ),
        (
            [{"backend": "torch", "model": "vgg16", "ratio": 1.02, "memory": {"plain": 200, "lowered": 220}}],
            [("torch", "vgg16", "step", 1.02, None), ("torch", "vgg16", "memory", 1.1, None)],
        ),
        (
            {"rows": [{"backend": "torch", "layer": "a", "ratios": {"forward": 0.5, "x": None}, "target": 0.6}]},
            [("torch", "a", "forward", 0.5, 0.6)],
        ),
        (
            [{"backend": "jax", "network": "fc2-d4", "model": "fc2", "step": {"mpo": {"median": 1.0}, "ratio": 1.2},
              "targets": {"step": 1.3}, "parameters": {"dense": 3}}],
            [("jax", "fc2-d4", "step", 1.2, 1.3)],
        ),
        (
            [{"backend": "jax", "row": "a", "contenders": [
             {"kind": "ours", "total": 3}, {"kind": "dense", "total": 4}]}],
            [("jax", "a", "memory", 0.75, None)],
        ),
        ([{"backend": "torch"}, 3, {"model": "a", "ratio": 1}, {"backend": "a", "model": "b", "ratio": True}], []),
        ({"rows": {}}, []),
        ("text", []),
    ],
)  # fmt: skip
def test_benchmarks_are_read_in_every_shape(content, expected):
    found = speed.ratios(Document("x.json", content))
    assert [(one.backend, one.name, one.what, one.target) for one in found] == [(*e[:3], e[4]) for e in expected]
    assert [one.value for one in found] == pytest.approx([one[3] for one in expected])


def test_benchmarks_in_the_folder_become_charts(tmp_path, small):
    home = tmp_path / "measured"
    shutil.copytree(small, home)
    rows = [{"backend": "torch", "model": "vgg16", "ratio": 1.02, "memory": {"plain": 200, "lowered": 220}}]
    (home / "plumbing.json").write_text(json.dumps(rows))
    text = Parts(report(home)).text
    assert "torch: time, ours over dense from plumbing.json" in text
    assert "torch: memory, ours over dense from plumbing.json" in text
    assert "digits: time of a training step" in text


# ---------------------------------------------------------------- the file


def test_the_page_asks_nobody(page):
    for tag, attributes in Parts(page).elements:
        assert tag not in ("script", "link", "iframe", "img", "object")
        for name in ("href", "xlink:href", "src"):
            assert attributes.get(name, "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import", page)
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_folder_gives_the_same_bytes_wherever_it_is(suite, page, tmp_path):
    assert report(suite[0]) == page
    shutil.copytree(suite[0], tmp_path / "elsewhere" / suite[0].name)
    assert report(tmp_path / "elsewhere" / suite[0].name) == page
    assert str(suite[0].parent) not in page


def test_ids_are_used_once_and_all_references_lead_somewhere(page):
    parts = Parts(page)
    ids = [attributes["id"] for _, attributes in parts.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {
        value[1:] for _, attributes in parts.elements for value in attributes.values() if (value or "")[:1] == "#"
    }
    assert wanted | set(re.findall(r"url\(#([^)]*)\)", page)) <= set(ids)


def test_every_colour_is_one_of_the_theme(page):
    """Or it would not follow a dark screen."""
    for picture in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert not re.search(r"(fill|stroke|color): *(#|rgb|black|white)", picture)
        assert set(re.findall(r"var\(--([^)]*)\)", picture)) <= set(chart.NAMES)


def test_the_whole_usual_suite_stays_below_two_megabytes(tmp_path):
    home = tmp_path / "large"
    home.mkdir()
    suite = plan(DEFAULT, backend="torch", images={"mnist": 60_000, "cifar10": 50_000}, seeds=SEEDS, steps=9000)
    claim_folder(home, suite)
    for number, cell in enumerate(suite.trainings()):
        fill(cell.run_folder(home), cell.settings, cell.variant, 0.9 + number / 1000, steps=9000, every=15)
    assert len(report(home).encode()) < 2_000_000


def test_names_cannot_break_out(tmp_path, small):
    home = tmp_path / HOSTILE
    shutil.copytree(small, home / HOSTILE)
    rows = [{"backend": HOSTILE, "model": HOSTILE, "ratio": 1.02}]
    (home / f"{HOSTILE}.json").write_text(json.dumps(rows))
    written = report(home)
    parts = Parts(written)
    assert not {"script", "img"} & {tag for tag, _ in parts.elements}
    assert not any(name.startswith("on") for _, attributes in parts.elements for name in attributes)
    assert f"mponet report: {HOSTILE}" in parts.text
    assert "&lt;script&gt;alert(1)" in written


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text(""), lambda path: None])
def test_a_folder_that_is_neither_is_refused(tmp_path, make):
    make(tmp_path / "other")
    failing(run("report", str(tmp_path / "other")), "other", "expected the folder of one", "mponet suite")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"rows": []}', "neither a cross-check nor a benchmark"),
        ('{"reports": [{"comparisons": [{"quantity": 1}]}]}', "cannot be used"),
    ],
)
def test_a_file_of_no_use_that_was_given_is_refused(tmp_path, small, content, message):
    file = tmp_path / "given.json"
    file.write_text(content)
    with pytest.raises(CheckpointError, match=message):
        report(small, [file])


def test_a_damaged_suite_is_named(tmp_path):
    (tmp_path / "suite.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"suite\.json is damaged"):
        report(tmp_path)


def test_without_matplotlib_it_says_what_to_install(small, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(chart, "import_module", missing)
    with pytest.raises(InputError, match=r"matplotlib is needed .* pip install 'mponet\[experiments\]'"):
        report(small)


def test_the_command_writes_beside_the_suite_or_where_it_is_told(tmp_path, suite, page):
    home = tmp_path / suite[0].name
    shutil.copytree(suite[0], home)
    told = run("report", str(home))
    assert told.exit_code == 0 and str(home / "report.html") in told.stdout
    assert (home / "report.html").read_text() == page
    told = run("report", str(home), "-o", str(tmp_path / "here.html"), "--json")
    assert json.loads(told.stdout) == {"file": str(tmp_path / "here.html"), "bytes": len(page.encode())}


# ---------------------------------------------------------------- parts


def test_curves_are_thinned_and_keep_their_end(tmp_path):
    settings = resolve("fc2", data="digits", images=1437, steps=4000)
    fill(tmp_path, settings, "dense", 0.9, steps=4000, every=2)
    (experiment,) = experiments(find(tmp_path))
    (training,) = experiment.trainings
    for curve in (learning.accuracy_curve(training), learning.loss_curve(training)):
        assert 50 < len(curve) <= learning.MOST + 1
        assert curve[-1][0] == 80.0


def test_snapshots_begin_at_the_start_and_end_at_the_end():
    seen = [spectra.Spectra(step, step / 10, {}) for step in range(11)]
    assert [one.step for one in bonds.snapshots(seen)] == [0, 2, 5, 8, 10]
    assert [one.step for one in bonds.snapshots(seen[:2])] == [0, 1]
    assert [one.step for one in bonds.snapshots(seen[:1])] == [0]


@pytest.mark.parametrize(("value", "told"), [(0.01, "0.01"), (20, "20"), (15000, "15k"), (2e6, "2M")])
def test_short_numbers(value, told):
    assert chart.short(value) == told


def test_depths_are_those_of_figure_3():
    assert [accuracy.depth(name) for name in ("resnet20", "resnet56-unit", "resnet20-k1", "fc2")] == [
        20,
        None,
        None,
        None,
    ]
