"""Copy nodes stay copy nodes.

No weights, the same tensor, and the variance of the matrix is still the target.
"""

import numpy as np
import pytest
import tensornetwork as tn

from mponet import NetworkShape
from mponet.contraction.graph_search import matrix_of
from mponet.errors import GraphError, InputError
from mponet.operators.initialize import exact_tensors
from mponet.operators.topology import check_tensors, copy_tensor, from_nodes, to_nodes

CP_DIMS = {"in1": 4, "in2": 3, "out1": 5, "a": 3, "b": 3, "c": 3}
#: A canonical polyadic form: all factors share one rank index.
CP = NetworkShape.from_edges({"f": "in1 a", "g": "in2 b", "h": "out1 c", "delta": "a b c"}, CP_DIMS, copies=("delta",))
#: Two copy nodes that are joined, one of them with a leg: the matrix is zero off a diagonal.
DIAGONAL = NetworkShape.from_edges(
    {"f": "in1 a", "one": "a b in2", "two": "b out1 c", "g": "c out2"},
    {"in1": 2, "in2": 3, "out1": 3, "out2": 4, "a": 3, "b": 3, "c": 3},
    copies=("one", "two"),
)
#: A bond between factors beside one through a copy node.
MIXED = NetworkShape.from_edges(
    {"f": "in1 a x", "g": "out1 b x", "delta": "a b"}, {"in1": 4, "out1": 4, "a": 5, "b": 5, "x": 2}, copies=("delta",)
)


def cp_nodes():
    rng = np.random.default_rng(0)
    sizes = {"f": 4, "g": 3, "h": 5}
    nodes = [tn.Node(rng.normal(size=(n, 3)), name=name, backend="numpy") for name, n in sizes.items()]
    delta = tn.CopyNode(3, 3, name="delta", backend="numpy", dtype=np.float64)
    for k, (node, leg) in enumerate(zip(nodes, ("in1", "in2", "out1"), strict=True)):
        node[0].set_name(leg)
        tn.connect(delta[k], node[1])
    return [*nodes, delta]


def test_a_copy_node_is_read_as_one_and_written_as_one():
    nodes = cp_nodes()
    shape, tensors = from_nodes(nodes)
    assert shape.copies == ("delta",)
    assert shape.parameters == 3 * (4 + 3 + 5)
    expected = np.einsum("ir,jr,kr->ijk", *(node.tensor for node in nodes[:3])).reshape(12, 5)
    assert np.allclose(matrix_of(shape, tensors), expected, atol=1e-13)
    written = to_nodes(shape, tensors)
    assert [isinstance(node, tn.CopyNode) for node in written] == [False, False, False, True]
    assert from_nodes(written)[0] == shape


@pytest.mark.parametrize("shape", [CP, DIAGONAL, MIXED], ids=["cp", "diagonal", "mixed"])
def test_the_variance_is_the_target(shape):
    """The mean of many draws.

    Each has at least twelve independent products, so 4000 come within 15 %.
    """
    rng = np.random.default_rng(1)
    total = 0.0
    for _ in range(4000):
        tensors = exact_tensors(shape, rng, 0.5)
        total += float((np.asarray(matrix_of(shape, tensors)) ** 2).mean())
    assert abs(total / 4000 / 0.5 - 1) < 0.15
    for name, tensor in zip(shape.names, tensors, strict=True):
        if name in shape.copies:
            assert np.array_equal(tensor, copy_tensor(tensor.shape))


def test_a_copy_tensor_is_the_one_of_tensornetwork():
    node = tn.CopyNode(3, 4, backend="numpy", dtype=np.float64)
    assert np.array_equal(node.tensor, copy_tensor((4, 4, 4)))


def test_other_numbers_in_a_copy_node_are_refused():
    tensors = list(exact_tensors(CP, np.random.default_rng(0)))
    tensors[3] = 2 * tensors[3]
    with pytest.raises(GraphError, match="copy node"):
        check_tensors(CP, tensors)


@pytest.mark.parametrize("copies", [("none",), ("f",)])
def test_a_node_that_cannot_be_a_copy_node_is_refused(copies):
    with pytest.raises(GraphError, match="copy node"):
        NetworkShape(CP.names, CP.edges, CP.sizes, copies)


def test_constants_are_kept_and_the_variance_is_still_the_target():
    rng = np.random.default_rng(3)
    constants = {"f": rng.normal(size=(4, 3)), "delta": 2.0 * rng.normal(size=(3, 3, 3))}
    plain = NetworkShape(CP.names, CP.edges, CP.sizes)
    draws = [exact_tensors(plain, rng, 0.7, constants) for _ in range(3000)]
    assert all(np.array_equal(draws[0][plain.names.index(name)], value) for name, value in constants.items())
    assert np.mean([np.mean(matrix_of(plain, tensors) ** 2) for tensors in draws]) == pytest.approx(0.7, rel=0.1)
    with pytest.raises(InputError, match="make every entry of the matrix zero"):
        exact_tensors(plain, rng, 0.7, {"f": np.zeros((4, 3))})
