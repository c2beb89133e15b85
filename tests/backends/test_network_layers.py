"""What every framework's layer of a general tensor network promises, one suite for all of them."""

import numpy as np
import pytest
import tensornetwork as tn

import graphs
from frameworks import probe
from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import path
from mponet.contraction.planner import PlanSet
from mponet.draw import render
from mponet.errors import GraphError, ShapeError
from mponet.operators.mpo import to_matrix
from mponet.operators.nodes import from_network
from mponet.operators.topology import NetworkShape, copy_tensor, to_nodes

pytestmark = pytest.mark.usefixtures("double_precision")
NAMES = list(graphs.WIRINGS)
#: Inputs and three nodes in three orders: in between, at first, and after all others are merged.
PATHS = {"first": ((0, 1), (0, 2), (0, 1)), "between": ((2, 3), (0, 1), (0, 1)), "last": ((1, 3), (1, 2), (0, 1))}


@pytest.fixture(scope="module")
def lab(backend_name, backend):
    return probe(backend_name)


@pytest.fixture(params=NAMES)
def wiring(request):
    return graphs.WIRINGS[request.param]


RING = graphs.WIRINGS["ring"]


def made(lab, wiring, *, bias=True):
    """(layer, its tensors, its bias)."""
    tensors = graphs.tensors_of(wiring)
    values = np.random.default_rng(5).normal(size=wiring.out_features) if bias else None
    return lab.network.from_nodes(to_nodes(wiring, tensors), values, dtype=lab.float64), tensors, values


# ---------------------------------------------------------------- values and gradients


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_layer_is_the_product_with_the_matrix_of_its_graph(lab, wiring, rows):
    layer, tensors, bias = made(lab, wiring)
    inputs, _ = graphs.batch_of(wiring, rows)
    room = np.abs(inputs) @ graphs.matrix(wiring, graphs.magnitudes(tensors)) + np.abs(bias)
    found = lab.call(layer, inputs)
    expected = inputs @ graphs.matrix(wiring, tensors) + bias
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= graphs.allowed(wiring, 1, room))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_gradients_of_inputs_nodes_and_bias(lab, wiring, rows, bias):
    layer, tensors, _ = made(lab, wiring, bias=bias)
    inputs, slope = graphs.batch_of(wiring, rows)
    found = lab.gradients(layer, inputs, slope)
    expected = graphs.gradients(wiring, tensors, inputs, slope) + ([slope.sum(axis=0)] if bias else [])
    room = graphs.gradients(wiring, graphs.magnitudes(tensors), np.abs(inputs), np.abs(slope))
    for ours, theirs, size in zip(
        found, expected, [*room, *([np.abs(slope).sum(axis=0)] if bias else [])], strict=True
    ):
        assert ours.shape == theirs.shape
        assert np.all(np.abs(ours - theirs) <= graphs.allowed(wiring, max(rows, 1), size))


@pytest.mark.parametrize("order", PATHS)
@pytest.mark.parametrize(("rows", "tile"), [(7, 3), (6, 3), (2, 3), (0, 3), (7, None)])
def test_every_path_and_tile_is_the_same_map(lab, order, rows, tile):
    plan = GraphPlan(RING, PATHS[order], tile)
    tensors, bias = graphs.tensors_of(RING), np.arange(RING.out_features) / 7
    inputs, slope = graphs.batch_of(RING, rows)
    arrays = [inputs, *tensors, bias]

    def ours(inputs, *others):
        return lab.apply(PlanSet.alike(plan), inputs, others[:-1], others[-1])

    found = lab.slopes(ours, arrays, slope)
    expected = [*graphs.gradients(RING, tensors, inputs, slope), slope.sum(axis=0)]
    room = graphs.gradients(RING, graphs.magnitudes(tensors), np.abs(inputs), np.abs(slope))
    for one, other, size in zip(found, expected, [*room, np.abs(slope).sum(axis=0)], strict=True):
        assert np.all(np.abs(one - other) <= graphs.allowed(RING, max(rows, 1), size))


@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (2, 1, 4), (0,), (2, 0)])
def test_any_leading_dimensions(lab, leading):
    layer, tensors, bias = made(lab, RING)
    inputs = np.random.default_rng(2).normal(size=(*leading, RING.in_features))
    outputs = lab.call(layer, inputs)
    assert outputs.shape == (*leading, RING.out_features)
    room = np.abs(inputs) @ graphs.matrix(RING, graphs.magnitudes(tensors)) + np.abs(bias)
    expected = inputs @ graphs.matrix(RING, tensors) + bias
    assert np.all(np.abs(outputs - expected) <= graphs.allowed(RING, 1, room))


@pytest.mark.parametrize("name", ["ring", "tucker"])
def test_a_few_steps_of_training_lower_the_loss(lab, name):
    wiring = graphs.WIRINGS[name]
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(32, wiring.in_features)).astype(np.float32)
    targets = (inputs @ rng.normal(size=(wiring.in_features, wiring.out_features))).astype(np.float32)
    losses = list(lab.losses(lab.wired(wiring, seed=1), inputs, targets, 40))
    assert losses[-1] < 0.9 * losses[0]


# ---------------------------------------------------------------- copy nodes

#: A canonical polyadic form: three factors that share one index.
CP = NetworkShape.from_edges(
    {"f": "in1 a", "g": "in2 b", "h": "out1 c", "delta": "a b c"},
    {"in1": 4, "in2": 3, "out1": 5, "a": 4, "b": 4, "c": 4},
    copies=("delta",),
)


def test_a_copy_node_is_not_trained(lab, tmp_path):
    layer = lab.wired(CP, seed=1)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(32, CP.in_features)).astype(np.float32)
    targets = (inputs @ rng.normal(size=(CP.in_features, CP.out_features))).astype(np.float32)
    before = layer.to_matrix()
    losses = list(lab.losses(layer, inputs, targets, 40))
    assert losses[-1] < losses[0]
    assert not np.allclose(layer.to_matrix(), before)
    assert np.array_equal(layer.to_nodes()[3].tensor, copy_tensor((4, 4, 4)))
    again = lab.reloaded(layer, tmp_path)
    assert again.shape == CP
    assert np.allclose(lab.call(again, inputs), lab.call(layer, inputs))


def test_a_copy_node_of_a_graph_stays_one(lab):
    tensors = [*graphs.tensors_of(CP)[:3], copy_tensor((4, 4, 4))]
    layer = lab.network.from_nodes(to_nodes(CP, tensors), dtype=lab.float64)
    assert layer.shape == CP
    expected = np.einsum("ir,jr,kr->ijk", *tensors[:3]).reshape(12, 5)
    assert np.allclose(layer.to_matrix(), expected, atol=1e-13)


# ---------------------------------------------------------------- fixed nodes

#: A low-rank layer between two constants: a rotation of the inputs, and a mixture of the outputs.
FRAMED = NetworkShape.from_edges(
    {"turn": "in1 a", "down": "a b", "up": "b c", "mix": "c out1"}, {"in1": 6, "a": 6, "b": 3, "c": 4, "out1": 5}
)


def constants():
    rng = np.random.default_rng(7)
    return {"turn": np.linalg.qr(rng.normal(size=(6, 6)))[0], "mix": rng.normal(size=(4, 5))}


def unfreeze(layer):
    """Train everything, as people do after a frozen phase."""
    if hasattr(layer, "requires_grad_"):
        layer.requires_grad_(True)
    elif hasattr(layer, "trainable"):
        layer.trainable = False
        layer.trainable = True


def test_fixed_nodes_are_not_trained(lab, tmp_path):
    layer = lab.wired(FRAMED, seed=1, fixed=constants())
    unfreeze(layer)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(32, 6)).astype(np.float32)
    targets = (inputs @ rng.normal(size=(6, 5))).astype(np.float32)
    before = layer.to_nodes()
    losses = list(lab.losses(layer, inputs, targets, 40))
    assert losses[-1] < losses[0]
    after = layer.to_nodes()
    for name, old, new in zip(FRAMED.names, before, after, strict=True):
        assert np.array_equal(old.tensor, new.tensor) == (name in constants()), name
    assert np.allclose(after[0].tensor, constants()["turn"], atol=1e-6)
    assert f"weights={6 * 3 + 3 * 4} of 30" in repr(layer)
    again = lab.reloaded(layer, tmp_path, lab.wired(FRAMED, seed=2, fixed=constants()))
    assert np.allclose(lab.call(again, inputs), lab.call(layer, inputs), atol=1e-6)
    assert again.fixed == layer.fixed
    assert set(again.fixed_names) == {"turn", "mix"}


def test_nodes_of_a_graph_are_fixed_by_name(lab):
    tensors = graphs.tensors_of(FRAMED)
    layer = lab.network.from_nodes(to_nodes(FRAMED, tensors), fixed=("turn",), dtype=lab.float64)
    assert layer.fixed_names == ("turn",)
    expected = tensors[0] @ tensors[1] @ tensors[2] @ tensors[3]
    assert np.allclose(layer.to_matrix(), expected, atol=1e-12)
    layer.assign([tensors[0], *(2.0 * tensor for tensor in tensors[1:])])
    assert np.allclose(layer.to_matrix(), 8.0 * expected, atol=1e-12)
    with pytest.raises(GraphError, match="node 'turn' is fixed"):
        layer.assign([2.0 * tensors[0], *tensors[1:]])
    with pytest.raises(GraphError, match="fixed names 'nobody'"):
        lab.network.from_nodes(to_nodes(FRAMED, tensors), fixed=("nobody",), dtype=lab.float64)
    with pytest.raises(ShapeError, match="fixed node 'turn' has the shape"):
        lab.wired(FRAMED, fixed={"turn": np.ones((6, 5))})


def test_starting_values_around_fixed_nodes_have_the_target_variance(lab):
    matrices = [lab.wired(FRAMED, seed=seed, fixed=constants(), initializer=0.3).to_matrix() for seed in range(60)]
    assert np.mean(np.square(matrices)) == pytest.approx(0.3, rel=0.25)


# ---------------------------------------------------------------- to and from graphs


def test_nodes_come_back_as_they_went_in(lab, wiring):
    layer, tensors, _ = made(lab, wiring)
    nodes = layer.to_nodes()
    assert tuple(node.name for node in nodes) == wiring.names
    assert tuple(tuple(edge.name for edge in node.edges) for node in nodes) == wiring.edges
    assert all(np.array_equal(node.tensor, tensor) for node, tensor in zip(nodes, tensors, strict=True))
    again = lab.network.from_nodes(nodes, dtype=lab.float64)
    assert again.shape == layer.shape == wiring
    assert np.array_equal(again.to_matrix(), layer.to_matrix())


def test_to_matrix_is_the_sum_over_all_bonds(lab, wiring):
    layer, tensors, _ = made(lab, wiring)
    room = graphs.matrix(wiring, graphs.magnitudes(tensors))
    assert np.all(np.abs(layer.to_matrix() - graphs.matrix(wiring, tensors)) <= graphs.allowed(wiring, 1, room))


def test_a_chain_is_the_operator_of_its_nodes(lab):
    chain = NetworkShape.from_edges(
        {"a": "in1 out1 x", "b": "x in2 out2 y", "c": "y in3 out3"},
        {"in1": 2, "in2": 3, "in3": 2, "out1": 3, "out2": 2, "out3": 2, "x": 3, "y": 2},
    )
    layer, tensors, _ = made(lab, chain, bias=False)
    expected = to_matrix(from_network(layer.to_nodes()))
    room = graphs.matrix(chain, graphs.magnitudes(tensors))
    assert np.all(np.abs(layer.to_matrix() - expected) <= graphs.allowed(chain, 1, room))


def test_nodes_without_names_are_numbered_and_not_consumed(lab):
    a, b = tn.Node(np.ones((2, 3)), backend="numpy"), tn.Node(np.ones((3, 4)), backend="numpy")
    tn.connect(a[1], b[0])
    a[0].set_name("in1")
    b[1].set_name("out1")
    layer = lab.network.from_nodes([a, b], dtype=lab.float64)
    assert layer.shape.names == ("node1", "node2")
    assert layer.node1.shape == (2, 3)
    assert np.array_equal(lab.call(layer, np.ones((1, 2))), np.full((1, 4), 6.0))
    assert a[1] is b[0]


def test_a_layer_goes_to_a_file_and_comes_back(lab, wiring, tmp_path):
    layer, _, _ = made(lab, wiring)
    inputs, _ = graphs.batch_of(wiring, 3)
    again = lab.reloaded(layer, tmp_path)
    assert again.shape == wiring
    assert np.array_equal(lab.call(again, inputs), lab.call(layer, inputs))


# ---------------------------------------------------------------- what it says and refuses


@pytest.mark.parametrize("shape", [(5, 13), (6, 6), (24,), (4, 3)])
def test_a_wrong_width_names_both_sizes(lab, shape):
    layer, _, _ = made(lab, RING)
    with pytest.raises(ShapeError, match=rf"{shape[-1]}.*12"):
        lab.call(layer, np.ones(shape))


def test_bad_tensors_and_bad_biases_are_refused(lab):
    tensors = graphs.tensors_of(RING)
    with pytest.raises(ShapeError, match="bias"):
        lab.network.from_nodes(to_nodes(RING, tensors), np.zeros(7), dtype=lab.float64)
    layer, _, _ = made(lab, RING, bias=False)
    before = layer.to_matrix()
    with pytest.raises(ShapeError, match="expected none"):
        layer.assign(tensors, np.zeros(6))
    with pytest.raises(ShapeError, match="2 tensors are given; expected 3: a, b, c"):
        layer.assign(tensors[:2])
    with pytest.raises(ShapeError, match=r"node 'b' has the shape \(2,\); expected \(3, 3, 1, 2\)"):
        layer.assign((tensors[0], np.ones(2), tensors[2]))
    assert np.array_equal(layer.to_matrix(), before)


def test_a_node_must_not_be_called_as_something_that_the_layer_has(lab):
    with pytest.raises(GraphError, match="nodes are called shape, which a layer has already"):
        lab.wired(NetworkShape.from_edges({"shape": "in1 out1"}, {"in1": 2, "out1": 2}))


def test_a_graph_that_is_no_layer_is_refused(lab):
    node = tn.Node(np.ones((2, 3)), name="a", axis_names=["in1", "x"], backend="numpy")
    node["in1"].set_name("in1")
    node["x"].set_name("x")
    with pytest.raises(GraphError, match="dangling edge 'x'; expected 'in1'"):
        lab.network.from_nodes([node])


def test_starting_values_have_the_target_variance_and_follow_the_seed(lab):
    wiring = NetworkShape.from_edges(
        {"a": "in1 x y", "b": "x in2 out1 z", "c": "y z out2"},
        {"in1": 24, "in2": 32, "out1": 24, "out2": 32, "x": 24, "y": 24, "z": 24},
    )
    layer = lab.wired(wiring, seed=3)
    # each node has thousands of entries: the mean square of W is within a few percent of its
    # expectation
    assert layer.to_matrix().var() == pytest.approx(2 / (768 + 768), rel=0.2)
    assert np.array_equal(lab.wired(wiring, seed=3).to_matrix(), layer.to_matrix())
    assert not np.array_equal(lab.wired(wiring, seed=4).to_matrix(), layer.to_matrix())
    assert "float32" in str(layer.tensors[0].dtype)


def test_repr_shows_nodes_counts_and_plan(lab):
    text = repr(lab.wired(RING))
    for part in (str(RING), f"{RING.parameters} of {RING.dense_parameters}", "plan="):
        assert part in text


def test_a_layer_shows_itself_in_notebooks_as_its_graph(lab, wiring):
    layer, _, _ = made(lab, wiring)
    assert layer._repr_svg_() == render(layer, "svg").rstrip()
    assert render(layer, "dot") == render(list(layer.to_nodes()), "dot")
    for name in wiring.names:
        assert name in render(layer, "txt")


@pytest.mark.parametrize("batch", [None, 1, 1000])
def test_the_plan_explains_itself(lab, batch):
    layer = lab.wired(RING)
    text = layer.explain(batch)
    plan = layer.plans(batch).training
    assert str(plan) in text
    assert "multiplications" in text
    assert ("batch unknown" if batch is None else "batch 1") in text
    assert plan.path in (path(RING, batch or 128), path(RING, 1), path(RING, 1024), path(RING, None))
