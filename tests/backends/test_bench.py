"""What `mponet bench` times: every implementation computes the operator and all gradients."""

import numpy as np
import pytest

from mponet.bench.layers import CLOSE, bench_of, expected, prepare, problem
from mponet.bench.networks import RECIPE
from mponet.bench.process import run
from mponet.bench.rows import Row
from mponet.bench.worker import task_of
from mponet.models import build
from mponet.models.init import start
from mponet.operators.shape import MPOShape

ROW = Row("small", MPOShape.from_factors((4, 4, 4), (3, 3, 3), 2), 6)
#: The layer of TensorNetwork asks for three sites or more, all factors and bonds alike.
UNEVEN = Row("uneven", MPOShape.from_factors((2, 3), (4, 2), 3), 5)
#: A matrix that outweighs what frameworks allocate on the side.
WIDE = Row("wide", MPOShape.from_factors((16, 16, 2), (16, 16, 2), 2), 64)


@pytest.fixture
def bench(backend_name):
    return bench_of(backend_name)


def leaves(tree):
    if isinstance(tree, (tuple, list)):
        return [leaf for branch in tree for leaf in leaves(branch)]
    return [tree]


def installed(bench):
    return [one for one in bench.implementations() if not one.absent]


def test_ours_and_the_dense_layer_take_part_first(bench):
    assert [one.name for one in bench.implementations()][:4] == ["dense", "ours", "low rank", "paper's sweep"]


@pytest.mark.filterwarnings("ignore")  # other packages warn of old habits
@pytest.mark.parametrize("row", [ROW, UNEVEN], ids=lambda row: row.name)
def test_every_implementation_computes_the_operator(bench, row):
    prepared, unsupported = prepare(bench, installed(bench), row)
    assert {layer.implementation.kind for layer in prepared} >= {"ours", "dense", "peer", "other"}
    assert all(layer.error is None or layer.error <= CLOSE for layer in prepared)
    assert set(unsupported) <= ({"DenseMPO"} if row is UNEVEN else set())


def test_a_step_gives_every_gradient(bench):
    mpo, bias, inputs, slopes = problem(ROW)
    parameters = [core.size for core in mpo.cores] + [bias.size]
    for one in installed(bench)[:2]:
        passes = bench.Passes(one.make(mpo, bias), inputs, slopes)
        sizes = sorted(int(np.prod(leaf.shape)) for leaf in leaves(passes.step()))
        for size in (inputs.size, *(parameters if one.name == "ours" else (ROW.shape.dense_parameters, bias.size))):
            assert size in sizes
        assert passes.outputs() == pytest.approx(expected(mpo, bias, inputs, compared=True), abs=1e-4)


@pytest.mark.parametrize("name", ["dense", "ours"])
def test_the_peak_of_a_step_holds_the_outputs_and_every_gradient(backend_name, name):
    """And little more for the dense layer: inputs or outputs may be copied, but not the matrix.

    TensorFlow counts blocks, of which it splits those that are at least twice as large as what is
    asked for.
    """
    asked = {"job": "memory", "backend": backend_name, "row": task_of(WIDE), "implementation": name}
    found = run(asked)
    activations = 4 * WIDE.batch * (WIDE.shape.in_features + WIDE.shape.out_features)
    least = activations + found["parameters"]
    assert least <= found["step"]
    if name == "dense":
        blocks = 2 if backend_name == "tensorflow" else 1
        assert found["step"] <= blocks * (least + activations)


def test_a_frozen_and_a_compiled_network_compute_the_same(backend, bench):
    model = build("fc2", "mpo", 2)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(6, *model.input_shape)).astype("float32"), rng.integers(10, size=6)
    native, frozen, compiled = (backend.build(model, start(model, 0)) for _ in range(3))
    expected = backend.predict(native, images)
    assert backend.predict(bench.frozen(frozen), images) == pytest.approx(expected, abs=1e-5)
    compiled = bench.compiled(compiled)
    if compiled is None:  # the framework always compiles
        assert backend.name in ("jax", "tensorflow")
        return
    trainers = [backend.trainer(one, RECIPE) for one in (native, compiled)]
    losses = [[float(trainer.step(images, labels, 0.1)) for _ in range(3)] for trainer in trainers]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert losses[0][0] > losses[0][2]


def test_settings_say_threads_and_device(bench):
    found = bench.settings()
    assert found["threads"] >= 1
    assert found["device"]
