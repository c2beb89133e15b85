"""The figures of the paper, as suites print them beside ours."""

import pytest

from mponet.models import FAMILIES, build, published
from mponet.training.suite.published import Figure, find, rows


@pytest.mark.parametrize(
    ("name", "bond", "normal", "mpo", "rho"),
    [
        ("fc2", 2, (0.9835, 0.0020), (0.9757, 0.0036), 0.0050),
        ("fc2", None, (0.9835, 0.0020), (0.9835, 0.0012), 0.0767),
        ("fc2", 22, (0.9835, 0.0020), (0.9841, 0.0013), 0.1031),
        ("lenet5", None, (0.9917, 0.0004), (0.9917, 0.0008), 0.05),
        ("vgg16", None, (0.9313, 0.0039), (0.9376, 0.0016), 0.0005),
        ("vgg19", 4, (0.9336, 0.0026), (0.9380, 0.0009), 0.0005),
        ("resnet14", None, (0.9338, 0.0022), (0.9338, 0.0013), 0.11),
        ("resnet116", 3, (0.9514, 0.0031), (0.9517, 0.0026), 0.11),
        ("densenet40-24", None, (0.9512, 0.0015), (0.9513, 0.0013), 0.089),
        ("densenet100-24", None, (0.9574, 0.0009), (0.9609, 0.0007), 0.044),
        ("densenet40-12-conv", None, (0.9356, 0.0026), (0.9352, 0.0040), 0.497),
    ],
)
def test_published_figures_are_those_of_the_paper(name, bond, normal, mpo, rho):
    model = build(name, "mpo", bond)
    found = find(model, FAMILIES[next(key for key in FAMILIES if name.startswith(key))].data)
    assert (found.normal, found.mpo, found.rho) == (Figure(*normal), Figure(*mpo), rho)


def test_every_published_network_has_a_row_and_no_other():
    assert {row.model for row in rows()} == set(published())
    assert len(list(rows())) == 11 + 3 + 13 + 5


def test_what_the_paper_did_not_train_has_no_published_figure():
    for name, bond, data in (("fc2", 3, "mnist"), ("fc2-code", 16, "mnist"), ("lenet5", 3, "mnist")):
        assert find(build(name, "mpo", bond), data) is None
    assert find(build("fc2", "mpo"), "digits") is None
    assert find(build("resnet20-k2", "mpo"), "cifar10") is None
