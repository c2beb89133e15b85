"""The scripts in docs/ that make pages, on folders that a test made."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from core.folders import STEPS, checked, fill_suite

DOCS = Path(__file__).parents[2] / "docs"


def script(name):
    spec = spec_from_file_location(f"{Path(name).name}_page", (DOCS / name).with_suffix(".py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(module):
    """The constants of a script that are texts of its page."""
    return {name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}


def made(name):
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def test_the_page_of_a_gpu_says_what_was_measured():
    assert "\n".join(script("gpu").page()) + "\n" == made("gpu")


def test_the_page_of_measurements_says_what_was_measured():
    performance = script("performance")
    assert "\n".join(performance.page(performance.PUBLISHED)) + "\n" == made("measurements")


@pytest.mark.parametrize(
    ("name", "page", "lines"),
    [("planning", "performance", lambda module, found: module.table(found["rows"])),
     ("cluster", "cluster", lambda module, found: module.tables(found))],
)  # fmt: skip
def test_tables_in_written_pages_are_those_of_the_figures(name, page, lines):
    found = json.loads((DOCS / "measured" / f"{name}.json").read_text(encoding="utf-8"))
    module = script(DOCS.parent / "benchmarks" / name)
    for table in "\n".join(lines(module, found)).split("\n\n"):
        assert table in made(page)


def test_the_page_of_compression_says_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    compression = script("compression")
    monkeypatch.setattr("compression_crossings.CHARTS", tmp_path)
    assert "\n".join(compression.page()) + "\n" == made("compression"), (
        "python docs/compression.py > docs/compression.md"
    )
    for chart in tmp_path.iterdir():
        assert chart.read_bytes() == (DOCS / "compression" / chart.name).read_bytes()


def test_the_page_of_the_api_is_what_the_packages_export():
    assert "\n".join(script("api").page()) + "\n" == made("api"), "run: python docs/api.py > docs/api.md"


@pytest.mark.parametrize("name", ["paper", "results"])
def test_pages_of_trainings_have_the_texts_of_their_scripts(name):
    """The figures need hours of training; the text around them does not."""
    for constant, text in texts(script(name)).items():
        assert text in made(name), constant


# ---------------------------------------------------------------- the paper's experiments


def rows(lines, start):
    return [line for line in "\n".join(lines).splitlines() if line.startswith(start)]


def test_every_part_of_the_papers_page_is_there_when_its_files_are(tmp_path):
    paper = script("paper")
    assert list(paper.page(tmp_path)) == [paper.HEAD]
    home = tmp_path / "mnist"
    fill_suite(home, ["fc2:4"], data="mnist", seeds=1)
    (home / "tables.md").write_text("| the tables |\n", encoding="utf-8")
    (tmp_path / "small_bonds.md").write_text("| the bonds |\n", encoding="utf-8")
    found = "\n".join(paper.page(tmp_path))
    assert paper.MNIST + "\n| the tables |" in found and paper.BONDS + "| the bonds |" in found
    assert paper.CIFAR not in found and paper.LENET not in found


def test_trainings_on_cifar_are_shown_with_what_trained_and_how_far(tmp_path):
    paper, network = script("paper"), tmp_path / "cifar10" / "fc2"
    given = fill_suite(network, ["fc2:4"], seeds=1, upto=STEPS // 2, only=lambda cell: cell.variant == "mpo")
    given |= fill_suite(network, ["fc2:4"], seeds=1, only=lambda cell: cell.variant == "dense")
    lines = list(paper.page(tmp_path))
    assert f"Trained by toy 1, cpu; stopped after {STEPS // 2} of {STEPS} steps.\n" in lines
    assert "| epoch | fc2-dense-seed0: accuracy | loss | fc2-mpo-D4-seed0: accuracy | loss |" in lines
    epochs = rows(lines, "| 0.8 |") + rows(lines, "| 1.6 |")
    assert len(epochs) == 2 and all(line.count("%") == 2 for line in epochs)
    assert not rows(lines, "| 2.4 |")  # one of them was stopped before

    fill_suite(network, ["fc2:4"], seeds=1)
    lines = list(paper.page(tmp_path))
    assert "Trained by toy 1, cpu.\n" in lines
    assert f"{given['fc2-dense-seed0']:.2%}" in rows(lines, "| 4 |")[0]


def test_single_trainings_are_rows_with_their_recipe(tmp_path):
    paper = script("paper")
    given = fill_suite(tmp_path / "frameworks", ["fc2:16"], seeds=1, only=lambda cell: cell.variant == "mpo")
    (row,) = rows(paper.page(tmp_path), "| fc2 |")
    assert row.startswith("| fc2 | mpo | 16 | toy |")
    assert row.endswith(f"| 4 | {given['fc2-mpo-D16-seed0']:.2%} | {given['fc2-mpo-D16-seed0']:.2%} |")


# ---------------------------------------------------------------- results


def test_results_come_from_runs_evaluations_and_cross_checks(tmp_path):
    results = script("results")
    row = {
        "accuracy": 0.98,
        "best_accuracy": 0.985,
        "parameters": 1234,
        "rho": None,
        "parameter_ratio": 1.0,
        "step_ms": 2.0,
    }
    variants = {"dense": row, "mpo": row | {"rho": 0.0767, "parameter_ratio": 0.08, "step_ms": 3.0}}
    for model in results.MODELS:
        for number, backend in enumerate(results.BACKENDS):
            run = tmp_path / f"{model}-{backend}"
            run.mkdir()
            (run / "result.json").write_text(json.dumps({"variants": variants}), encoding="utf-8")
            for other in range(3):
                rows = [{"variant": variant, "accuracy": 0.9 + 0.01 * number + 0.001 * other} for variant in variants]
                file = run / f"evaluated-{results.BACKENDS[other]}.json"
                file.write_text(json.dumps({"checkpoints": rows}), encoding="utf-8")
    assert list(results.training(tmp_path))[:2] == [
        "| FC2 | torch | dense | 98.00% | 98.50% | 1,234 |  | 1.0000 | 1 |",
        "| FC2 | torch | mpo | 98.00% | 98.50% | 1,234 | 0.0767 | 0.0800 | 1.50 |",
    ]
    assert "| LeNet-5 | mpo | jax | 91.00% | 91.10% | 91.20% |" in list(results.moved(tmp_path))


def test_of_all_pairs_the_worst_is_shown():
    (found,) = checked(error=2e-13)["reports"]
    assert script("results").worst(found["comparisons"], "gradients") == "1.0e-11 of 1e-10"
    assert script("results").worst(found["comparisons"], "forward") == "2.0e-13 of 1e-12"
    with pytest.raises(ValueError, match="max"):
        script("results").worst(found["comparisons"], "sgd")
