"""The report of a compression: as text, JSON, page, and in ``mponet report``."""

import json

import pytest

from core.command import run
from core.compress.test_plan_picture import PLAN
from mponet.compress import Measurement, Report, Sample
from mponet.compress.healing.report import HealRecord, HealReport
from mponet.compress.healing.retruncate import Truncation
from mponet.draw import render
from mponet.errors import CheckpointError, CompressionError
from mponet.report import report as page_of

HEALING = HealReport(
    {"steps": 9}, 2.5, 1.25, 9, 12.0, 777, (HealRecord(9, 1.5, 0.01, 12.0),), (Truncation(3, 80, 40, 0.125),)
)
REPORT = (
    Report(PLAN, {"blocks.0.up": 0.26, "blocks.1.up": 0.5, "head <b>": 0.0}, {"calibrate": 140.0, "fit": 2.0})
    .measured("perplexity", before=15.5, after=31.0)
    .measured("perplexity", healed=18.6)
    .measured("file", "bytes", before=1000, after=750)
    .sampled("Say <hello>", before="hello", after="hell")
    .sampled("Say <hello>", healed="hello & more")
    .healed(HEALING)
)


def test_figures_and_samples_of_one_name_are_joined():
    assert REPORT.measurements == (
        Measurement(name="perplexity", before=15.5, after=31.0, healed=18.6),
        Measurement(name="file", unit="bytes", before=1000, after=750),
    )
    assert REPORT.samples == (Sample(prompt="Say <hello>", before="hello", after="hell", healed="hello & more"),)
    assert REPORT.deviation == 1.0  # of the head: it lost nothing, and 0.125 was predicted
    with pytest.raises(CompressionError, match="later is given; expected any of before, after, healed"):
        REPORT.measured("loss", later=1.0)


def test_json_gives_back_the_report(tmp_path):
    REPORT.save(tmp_path)
    assert Report.load(tmp_path) == REPORT
    REPORT.save(tmp_path / "other.json")
    assert Report.load(tmp_path / "other.json") == REPORT
    assert Report.from_json(Report(PLAN).to_json()) == Report(PLAN)


@pytest.mark.parametrize(
    "change",
    [{"format": "x"}, {"plan": None}, {"measurements": [{"name": 3}]}, {"samples": 1}, {"more": 1}, {"healing": {}}],
)
def test_damaged_json_is_refused(change):
    with pytest.raises(CompressionError):
        Report.from_json(json.dumps(json.loads(REPORT.to_json()) | change))
    with pytest.raises(CompressionError):
        Report.from_json("{")


def test_text_and_page_show_every_figure_and_escape_samples(tmp_path):
    text, page = str(REPORT), REPORT.to_html()
    for words in ("perplexity", "15.5", "18.6", "file, bytes", "hello & more", "healed in 9 steps", "140"):
        assert words in text
    assert max(map(len, text.split("\n"))) <= 80
    for words in ("Say &lt;hello&gt;", "hello &amp; more", ">2<", ">1.2<", ">0.75<", "healed in 9 steps", "1 000"):
        assert words in page
    assert "<hello>" not in page
    assert "perplexity: before 15.5, after 31, healed 18.6." in render(REPORT, "svg")
    REPORT.save(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == page


def test_mponet_report_shows_compressed_folders(tmp_path):
    for name, report in (("b", Report(PLAN)), ("a", REPORT)):
        (tmp_path / name).mkdir()
        PLAN.save(tmp_path / name / "compression_plan.json")
        if report.measurements:
            report.save(tmp_path / name)
    page = page_of(tmp_path)
    assert "2 compressed networks." in page
    assert page.index("<summary>a</summary>") < page.index("<summary>b</summary>")
    assert "15.5 → 31 → 18.6" in page
    assert page == page_of(tmp_path)
    (tmp_path / "a" / "compression_report.json").write_text("{")
    page = page_of(tmp_path)
    assert "1 compressed network." in page
    assert "Left out" in page
    assert run("report", str(tmp_path / "b"), "--json").exit_code == 0
    (tmp_path / "b" / "compression_plan.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no compressed network"):
        page_of(tmp_path)
