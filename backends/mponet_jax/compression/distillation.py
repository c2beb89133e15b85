"""The loss of distillation: how far a student's outputs are from those of its teacher."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mponet.compress.healing import HealConfig
from mponet.errors import CompressionError
from mponet_jax.compression.streaming import call, first_array, named_modules
from mponet_jax.ops.arrays import Array

#: The mean loss of the labels, from the student's outputs and the batch.
LabelLoss = Callable[[Any, Any], Array]


class Distillation:
    """The loss of a student on a batch, as a function of two modules that JAX can compile.

    Args:
        student: the module that learns.
        teacher: the module that it learns from.
        config: weights of the terms.
        loss: mean loss of the labels; None takes the ``loss`` of the student's outputs.

    Raises:
        CompressionError: the student or the teacher has no module of a name in ``config.hidden``.
    """

    def __init__(
        self, student: nnx.Module, teacher: nnx.Module, config: HealConfig, loss: LabelLoss | None = None
    ) -> None:
        self.config, self._label_loss = config, loss
        for model in (student, teacher):
            known = dict(named_modules(model))
            for name in config.hidden:
                if name not in known:
                    raise CompressionError(
                        f"hidden {name!r} is not a module of {type(model).__name__}; expected its name"
                    )

    def observed(self, model: nnx.Module) -> nnx.Module:
        """A copy whose modules of ``config.hidden`` hand out their outputs."""
        copy = nnx.clone(model)
        for name, module in list(named_modules(copy)):
            if name in self.config.hidden:
                module.__class__ = _handing_out(type(module))
                module._mponet_name = name  # type: ignore[attr-defined]
        return copy

    def loss(self, student: nnx.Module, teacher: nnx.Module, inputs: Any, batch: Any) -> Array:
        """The loss, a mean over rows, of modules that `observed` gave."""
        config = self.config
        expected, wanted = _run(teacher, inputs) if config.logits or config.hidden else (None, {})
        expected, wanted = jax.lax.stop_gradient(expected), jax.lax.stop_gradient(wanted)
        outputs, seen = _run(student, inputs)
        hidden_rows = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        terms = []
        if config.logits:
            terms.append(config.logits * self._divergence(outputs, expected, hidden_rows))
        if config.hidden and config.hidden_weight:
            errors = [relative_error(seen[name], wanted[name], hidden_rows) for name in config.hidden]
            terms.append(config.hidden_weight * jnp.stack(errors).mean())
        if config.labels:
            terms.append(config.labels * self._labels(outputs, batch))
        return jnp.stack(terms).sum()

    def _divergence(self, outputs: Any, expected: Any, mask: Array | None) -> Array:
        if self.config.objective == "mse" or (self.config.objective == "auto" and _logits(outputs) is None):
            return relative_error(first_array(outputs), first_array(expected), mask)
        logits, wanted = _logits(outputs), _logits(expected)
        if logits is None or wanted is None:
            raise CompressionError(
                f"objective is 'kl' and the model gives {type(outputs).__name__} without logits; expected logits or "
                "one array; take objective='mse'"
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
        >>> logits = jnp.array([[0.0, 1.0], [3.0, 0.0]])
        >>> bool(abs(kl_divergence(logits, logits + 5, 2.0)) < 1e-6)
        True
    """
    if logits.shape != wanted.shape:
        raise CompressionError(
            f"the student's logits have the shape {logits.shape}, the teacher's {wanted.shape}; expected equal ones"
        )
    dtype = jnp.promote_types(logits.dtype, jnp.float32)
    rows = jax.nn.log_softmax(logits.astype(dtype) / temperature)
    target = jax.nn.log_softmax(wanted.astype(dtype) / temperature)
    return _row_mean((jnp.exp(target) * (target - rows)).sum(-1), mask) * temperature**2


def relative_error(value: Array, wanted: Array, mask: Array | None = None) -> Array:
    """``||value - wanted||^2 / ||wanted||^2``, over the rows that count, in float32 at least."""
    if value.shape != wanted.shape:
        raise CompressionError(
            f"the student gives the shape {value.shape}, the teacher {wanted.shape}; expected equal ones"
        )
    dtype = jnp.promote_types(value.dtype, jnp.float32)
    wanted = wanted.astype(dtype)
    error, energy = jnp.square(value.astype(dtype) - wanted), jnp.square(wanted)
    if value.ndim > 1:
        error, energy = error.mean(-1), energy.mean(-1)
    return _row_mean(error, mask) / jnp.maximum(_row_mean(energy, mask), np.finfo(np.dtype(dtype)).tiny)


def _row_mean(rows: Array, mask: Array | None) -> Array:
    """The mean of the rows that count."""
    if mask is None or mask.shape != rows.shape:
        return rows.mean()
    weights = mask.astype(rows.dtype)
    return (rows * weights).sum() / jnp.maximum(weights.sum(), 1)


def _logits(outputs: Any) -> Array | None:
    """The outputs as logits; None if they have none and are more than one array."""
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(logits, jax.Array):
        return logits
    return outputs if isinstance(outputs, jax.Array) else None


def _run(model: nnx.Module, inputs: Any) -> tuple[Any, dict[str, Array]]:
    """Outputs of a model, and those of the modules that hand theirs out, of their last call."""
    outputs, found = nnx.capture(call, nnx.Intermediate)(model, inputs)
    return outputs, {str(path[-1]): variable.get_value()[-1] for path, variable in nnx.to_flat_state(found)}


@cache
def _handing_out(cls: type[nnx.Module]) -> type[nnx.Module]:
    """The class with a forward pass that hands out its outputs."""

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = cls.__call__(self, *args, **kwargs)
        self.sow(nnx.Intermediate, self._mponet_name, first_array(outputs))
        return outputs

    return type(f"Observed{cls.__name__}", (cls,), {"__call__": __call__})
