"""The loss of distillation: how far a student's outputs are from those of its teacher."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mponet.compress.healing import HealConfig
from mponet.errors import CompressionError
from mponet_torch.compression.streaming import call, first_tensor
from mponet_torch.ops.arrays import Array

#: The mean loss of the labels, from the student's outputs and the batch.
LabelLoss = Callable[[Any, Any], Array]
#: Rows of logits at a time.
TILE = 16


class Distillation:
    """The loss of a student on a batch.

    Args:
        student: the module that learns.
        teacher: the module that it learns from, in eval mode.
        config: weights of the terms.
        inputs: gives the inputs of both from a batch; None takes the batch itself.
        loss: mean loss of the labels; None takes the ``loss`` of the student's outputs.

    Raises:
        CompressionError: the student or the teacher has no module of a name in ``config.hidden``.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        config: HealConfig,
        inputs: Callable[[Any], Any] | None = None,
        loss: LabelLoss | None = None,
    ) -> None:
        self.student, self.teacher, self.config = student, teacher, config
        self._inputs, self._label_loss = inputs, loss
        for name in config.hidden:
            for model in (student, teacher):
                if name not in dict(model.named_modules()):
                    raise CompressionError(
                        f"hidden {name!r} is not a module of {type(model).__name__}; expected its name"
                    )

    def loss(self, batch: Any) -> Array:
        """The loss, a mean over rows."""
        config = self.config
        inputs = batch if self._inputs is None else self._inputs(batch)
        with torch.no_grad(), _recorded(self.teacher, config.hidden) as wanted:
            expected = call(self.teacher, inputs) if config.logits or config.hidden else None
        with _recorded(self.student, config.hidden) as seen:
            outputs = call(self.student, inputs)
        hidden_rows = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        terms = []
        if config.logits:
            terms.append(config.logits * self._divergence(outputs, expected, hidden_rows))
        if config.hidden and config.hidden_weight:
            errors = [relative_error(seen[name], wanted[name], hidden_rows) for name in config.hidden]
            terms.append(config.hidden_weight * torch.stack(errors).mean())
        if config.labels:
            terms.append(config.labels * self._labels(outputs, batch))
        return torch.stack(terms).sum()

    def _divergence(self, outputs: Any, expected: Any, mask: Array | None) -> Array:
        if self.config.objective == "mse" or (self.config.objective == "auto" and _logits(outputs) is None):
            return relative_error(first_tensor(outputs), first_tensor(expected), mask)
        logits, wanted = _logits(outputs), _logits(expected)
        if logits is None or wanted is None:
            raise CompressionError(
                f"objective is 'kl' and the model gives {type(outputs).__name__} without logits; expected logits or "
                "one tensor; take objective='mse'"
            )
        return kl_divergence(logits, wanted, self.config.temperature, mask)

    def _labels(self, outputs: Any, batch: Any) -> Array:
        value = self._label_loss(outputs, batch) if self._label_loss else getattr(outputs, "loss", None)
        if value is None:
            raise CompressionError(
                f"labels weigh {self.config.labels} and {type(outputs).__name__} has no loss; expected labels in the "
                "batch, or loss="
            )
        return value


def kl_divergence(logits: Array, wanted: Array, temperature: float, mask: Array | None = None) -> Array:
    """Mean over rows of ``KL(teacher || student)``, in float32 at least, times ``temperature^2``.

    Args:
        logits: of the student, classes last.
        wanted: of the teacher.
        temperature: both are divided by it.
        mask: 0 for rows that do not count; it is used if it has the shape of the rows.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
        >>> float(kl_divergence(logits, logits + 5, 2.0).abs()) < 1e-6
        True
    """
    if logits.shape != wanted.shape:
        raise CompressionError(
            f"the student's logits have the shape {tuple(logits.shape)}, the teacher's {tuple(wanted.shape)}; expected "
            "equal ones"
        )
    rows, expected = (value.reshape(-1, value.shape[-1]) for value in (logits, wanted.detach()))
    dtype = torch.promote_types(logits.dtype, torch.float32)
    weights = torch.ones(len(rows), dtype=dtype, device=rows.device)
    if mask is not None and mask.shape == logits.shape[:-1]:
        weights = mask.reshape(-1).to(weights)
    weights = weights / weights.sum().clamp_min(1)
    divergence: Array = _Divergence.apply(rows, expected, weights, temperature)  # type: ignore[no-untyped-call]
    return divergence * temperature**2


class _Divergence(torch.autograd.Function):
    """The weighted sum of divergences of rows, a few rows at a time.

    The logits of a vocabulary are large.  A tile of rows stays in the cache, and its gradient is
    computed with it, which takes a quarter of the time of whole arrays.
    """

    @staticmethod
    def forward(ctx: Any, rows: Array, wanted: Array, weights: Array, temperature: float) -> Array:
        gradient, total = torch.empty_like(rows), weights.new_zeros(())
        for start in range(0, len(rows), TILE):
            part = slice(start, start + TILE)
            found, target = (
                functional.log_softmax(value[part].to(weights.dtype) / temperature, -1) for value in (rows, wanted)
            )
            probabilities = target.exp()
            total += (target.sub_(found).mul_(probabilities)).sum(-1) @ weights[part]
            gradient[part] = found.exp_().sub_(probabilities).mul_(weights[part, None] / temperature)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Array) -> tuple[Array | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * slope.to(gradient.dtype), None, None, None


def relative_error(value: Array, wanted: Array, mask: Array | None = None) -> Array:
    """``||value - wanted||^2 / ||wanted||^2``, over the rows that count, in float32 at least."""
    if value.shape != wanted.shape:
        raise CompressionError(
            f"the student gives the shape {tuple(value.shape)}, the teacher {tuple(wanted.shape)}; expected equal ones"
        )
    dtype = torch.promote_types(value.dtype, torch.float32)
    wanted = wanted.detach().to(dtype)
    error, energy = (value.to(dtype) - wanted).square(), wanted.square()
    if value.ndim > 1:
        error, energy = error.mean(-1), energy.mean(-1)
    error, energy = (_row_mean(rows.reshape(-1), rows.shape, mask) for rows in (error, energy))
    return error / energy.clamp_min(torch.finfo(dtype).tiny)


def _row_mean(rows: Array, shape: Iterable[int], mask: Array | None) -> Array:
    """The mean of the rows that count."""
    if mask is None or tuple(mask.shape) != tuple(shape):
        return rows.mean()
    weights = mask.reshape(-1).to(rows)
    return (rows * weights).sum() / weights.sum().clamp_min(1)


def _logits(outputs: Any) -> Array | None:
    """The outputs as logits; None if they have none and are more than one tensor."""
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(logits, torch.Tensor):
        return logits
    return outputs if isinstance(outputs, torch.Tensor) else None


@contextmanager
def _recorded(model: nn.Module, names: Iterable[str]) -> Any:
    """The outputs of some modules, by name, of the calls within the block."""
    values: dict[str, Array] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, outputs: Any) -> None:
            values[name] = first_tensor(outputs)

        return keep

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield values
    finally:
        for handle in handles:
            handle.remove()
