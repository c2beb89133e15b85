"""The loss of distillation in PyTorch, and what healing does to modules of it."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest

from mponet.compress import CompressConfig, HealConfig
from mponet.errors import CompressionError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from mponet_torch import compress, heal  # noqa: E402
from mponet_torch.compression.distillation import TILE, Distillation, kl_divergence, relative_error  # noqa: E402

CONFIG = HealConfig(steps=12, learning_rate=1e-3, log_every=4)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("masked", [False, True])
def test_the_divergence_is_that_of_the_formula(temperature, masked):
    student, teacher = rows(3, TILE + 5, 7).requires_grad_(), rows(3, TILE + 5, 7, seed=1)
    mask = (torch.arange(3 * (TILE + 5)).reshape(3, -1) % 3 > 0).long() if masked else None

    def expected(logits):
        target = functional.log_softmax(teacher / temperature, -1)
        each = (target.exp() * (target - functional.log_softmax(logits / temperature, -1))).sum(-1)
        weights = torch.ones_like(each) if mask is None else mask
        return temperature**2 * (each * weights).sum() / weights.sum()

    value = kl_divergence(student, teacher, temperature, mask)
    torch.testing.assert_close(value, expected(student), rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (3 * value, 3 * expected(student))]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


def test_rows_that_the_mask_hides_do_not_count():
    value, wanted = rows(2, 5, 4), rows(2, 5, 4, seed=1)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    kept = value[mask.bool()], wanted[mask.bool()]
    value[~mask.bool()] = 1e6
    expected = (kept[0] - kept[1]).square().sum() / kept[1].square().sum()
    torch.testing.assert_close(relative_error(value, wanted, mask), expected)


class Classifier(nn.Module):
    """Outputs as Hugging Face gives them."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.body = nn.Linear(16, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens, attention_mask=None, labels=None):
        logits = self.head(torch.tanh(self.body(self.embed(tokens))))
        loss = None if labels is None else functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return SimpleNamespace(logits=logits, loss=loss)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    teacher = Classifier()
    student, _ = compress(teacher, CompressConfig(keep=0.4, include="body", min_weights=1), tokens())
    return student, teacher


def tokens():
    return list(torch.randint(0, 20, (6, 4, 9), generator=torch.Generator().manual_seed(1)))


def test_tied_weights_move_once_and_stay_tied(pair, tmp_path):
    student, teacher = pair
    before = student.embed.weight.detach().clone()
    report = heal(student, teacher, tokens(), CONFIG, folder=tmp_path)
    assert student.head.weight is student.embed.weight
    assert (student.embed.weight != before).any()
    assert report.trained == sum(parameter.numel() for parameter in student.parameters())


def test_hidden_states_are_matched(pair):
    student, teacher = pair
    batch = tokens()[0]
    config = HealConfig(steps=1, logits=0.0, hidden=("body",), hidden_weight=2.0)
    loss = Distillation(student, teacher, config).loss(batch)
    outputs = [model.body(model.embed(batch)) for model in (student, teacher)]
    torch.testing.assert_close(loss, 2.0 * relative_error(*outputs))
    with pytest.raises(CompressionError, match="bodies"):
        heal(student, teacher, tokens(), HealConfig(steps=1, hidden=("bodies",)))
    assert not any(module._forward_hooks for module in (*student.modules(), *teacher.modules()))


def test_labels_come_from_the_outputs_or_from_a_function(pair):
    student, teacher = pair
    batch = {"tokens": tokens()[0], "labels": tokens()[1]}
    config = HealConfig(steps=1, logits=0.0, labels=1.0)
    expected = student(**batch).loss
    torch.testing.assert_close(Distillation(student, teacher, config).loss(batch), expected)

    def loss(outputs, pair):
        return functional.cross_entropy(outputs.logits.flatten(0, 1), pair[1].flatten())

    found = Distillation(student, teacher, config, lambda pair: pair[0], loss).loss((tokens()[0], tokens()[1]))
    torch.testing.assert_close(found, expected)
    with pytest.raises(CompressionError, match="has no loss"):
        heal(student, teacher, tokens(), config)


def test_under_autocast_every_step_sees_the_weights_of_the_last(pair):
    """Autocast keeps casts of weights, which the steps change."""
    student, teacher = pair
    outside, inside = deepcopy(student), deepcopy(student)
    with torch.autocast("cpu", torch.bfloat16):
        report = heal(inside, teacher, tokens(), CONFIG)
    heal(outside, teacher, tokens(), CONFIG)
    assert all(parameter.dtype == torch.float32 for parameter in inside.parameters())
    batch = tokens()[0]
    before, moved, found = (model(batch).logits for model in (student, outside, inside))
    assert (found - moved).norm() <= 0.3 * (moved - before).norm()
    assert report.after < report.before


def test_regression_takes_the_first_tensor_of_the_outputs(pair):
    student, teacher = (nn.Sequential(nn.Linear(4, 3)).double() for _ in range(2))
    batch = rows(8, 4)
    config = HealConfig(steps=1, objective="mse")
    torch.testing.assert_close(
        Distillation(student, teacher, config).loss(batch), relative_error(student(batch), teacher(batch))
    )
    with pytest.raises(CompressionError, match="equal ones"):
        kl_divergence(rows(2, 3), rows(2, 4), 1.0)


def test_modes_and_gradients_are_given_back(pair):
    student, teacher = pair
    student.body.requires_grad_(False)
    student.train()
    heal(student, teacher.train(), tokens(), CONFIG)
    assert student.training and teacher.training
    assert [p.requires_grad for p in student.body.parameters()] == [False] * len(list(student.body.parameters()))
    assert all(parameter.grad is None for parameter in (*student.parameters(), *teacher.parameters()))
    assert np.isfinite(student(tokens()[0]).logits.detach().numpy()).all()
