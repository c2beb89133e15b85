"""One pass of data through a module.

Sums over the inputs of its layers, and gradients at their outputs.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mponet.compress.calibrate import MAX_PRODUCT_OUTPUTS, Calibration, InputSums
from mponet.errors import CompressionError
from mponet_torch.compression.modules import kind_of
from mponet_torch.ops.arrays import Array, to_numpy

#: The loss summed over rows, from the outputs of the model and the batch.
LossFunction = Callable[[Any, Any], Array]
#: Rows at the first layer after which no more backward passes are run.
GRADIENT_ROWS = 4096
#: Input tensors of one pass that are remembered, to recognise layers that read the same one.
RECENT_INPUTS = 16


def stream(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    data: Iterable[Any],
    loss: LossFunction | None,
    *,
    gradients: bool,
    products: bool = False,
    sums: Calibration | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> Calibration:
    """Run a model on data and gather what compression needs.

    Args:
        model: the model; its mode and what requires gradients are restored afterwards.
        modules: the layers that sums are wanted of, by name.
        data: batches: a tensor, a tuple of arguments, or a mapping of keyword arguments.
        loss: the summed loss; None takes `default_loss`.
        gradients: whether to run backward passes.
        products: whether they gather the products of gradients.
        sums: what earlier batches gave, to be added to; None begins anew.
        shapes: gets the shape of each module's last input; None keeps none.

    Raises:
        CompressionError: there are no data, or values are not finite.
    """
    watch = _Watch(modules, products, Calibration() if sums is None else sums, {} if shapes is None else shapes)
    with frozen(model), watch:
        batches = 0
        for batch in data:
            batches += 1
            watch.calibration.examples += examples_in(batch)
            backward = gradients and watch.gradient_rows < GRADIENT_ROWS
            watch.start(backward)
            with torch.set_grad_enabled(backward):
                outputs = call(model, batch)
                if backward:
                    (loss or default_loss)(outputs, batch).backward()
    if not batches:
        raise CompressionError("calibration holds no batch; expected at least one; a generator can be read once only")
    return watch.calibration


def call(model: nn.Module, batch: Any) -> Any:
    """The outputs of a model for one batch, moved to the device of its parameters."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if isinstance(batch, Mapping):
        return model(**{name: _moved(value, device) for name, value in batch.items()})
    if isinstance(batch, tuple | list):
        return model(*(_moved(value, device) for value in batch))
    return model(_moved(batch, device))


def examples_in(batch: Any) -> int:
    """Number of examples in a batch: the length of the first axis of its first tensor."""
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else (batch,)
    return next((len(value) for value in values if isinstance(value, torch.Tensor) and value.ndim), 1)


def rows_per_example(model: nn.Module, modules: Mapping[str, nn.Module], example: Any) -> dict[str, int]:
    """How many rows each module makes for one example, from one forward pass without gradients.

    Args:
        model: the model.
        modules: those that are counted, by name.
        example: a batch of the model's own inputs.
    """
    counts: dict[str, int] = {}
    handles = []
    for name, module in modules.items():
        kind = kind_of(module)
        assert kind is not None

        def count(
            _: nn.Module, __: Any, outputs: Array, name: str = name, kind: Any = kind, module: Any = module
        ) -> None:
            counts[name] = counts.get(name, 0) + len(kind.gradient_rows(module, outputs.detach()))

        handles.append(module.register_forward_hook(count))
    try:
        with frozen(model), torch.no_grad():
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: max(round(rows / examples_in(example)), 1) for name, rows in counts.items()}


def default_loss(outputs: Any, batch: Any) -> Array:
    """A loss for models that come without.

    The summed loss of labels drawn from the model's own predictions.

    Outputs with ``logits`` (Hugging Face) are read as logits of classes, and one label is drawn for
    each row, so that squared gradients are those of the Fisher information; no labels are needed.
    Other outputs are projected on random signs, so that squared gradients measure how far the
    outputs themselves move.
    """
    logits = getattr(outputs, "logits", None)
    generator = torch.Generator().manual_seed(0)
    if isinstance(logits, torch.Tensor):
        rows = logits.reshape(-1, logits.shape[-1]).float()
        drawn = torch.multinomial(rows.detach().softmax(-1).cpu(), 1, generator=generator)[:, 0].to(rows.device)
        return nn.functional.cross_entropy(rows, drawn, reduction="sum")
    value = first_tensor(outputs)
    signs = torch.randint(0, 2, tuple(value.shape), generator=generator).to(value) * 2 - 1
    return (value * signs).sum()


class _Watch:
    """Hooks on the layers while data run through the model."""

    def __init__(
        self, modules: Mapping[str, nn.Module], products: bool, sums: Calibration, shapes: dict[str, tuple[int, ...]]
    ) -> None:
        self.modules = modules
        self._products = products
        self.calibration = sums
        self.shapes = shapes
        self._recent: list[tuple[Array, Hashable, str]] = []
        self._handles: list[Any] = []
        self._backward = False
        self._rows: dict[str, int] = {}

    @property
    def gradient_rows(self) -> int:
        """Rows of which gradients were seen, at the layer that saw the fewest."""
        return min(self.calibration.gradient_rows.values(), default=0)

    def start(self, backward: bool) -> None:
        """Begin a batch."""
        self._backward = backward
        self._recent.clear()

    def __enter__(self) -> "_Watch":
        for name, module in self.modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._recent.clear()

    def _hook(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], outputs: Array) -> Array | None:
            if not inputs:
                raise CompressionError(f"{name} is called with keyword arguments only; exclude it")
            self._add_inputs(name, module, inputs[0])
            return self._watch_gradient(name, module, outputs) if self._backward else None

        return hook

    def _add_inputs(self, name: str, module: nn.Module, inputs: Array) -> None:
        calibration = self.calibration
        self.shapes[name] = tuple(inputs.shape)
        kind = kind_of(module)
        assert kind is not None
        if name not in calibration.inputs:  # the first batch tells which layers read the same tensor
            rows = kind.reading(module)
            recent = (key for tensor, reading, key in self._recent if reading == rows and _same(tensor, inputs))
            shared = calibration.inputs[name] = next(recent, name)
            self._recent = [*self._recent[1 - RECENT_INPUTS :], (inputs, rows, shared)]
        if calibration.inputs[name] != name:
            return
        products, total, count = kind.sums(module, inputs.detach())
        if name not in calibration.sums:
            calibration.sums[name] = InputSums.zeros(len(total), diagonal=products.ndim == 1)
        calibration.sums[name].add_sums(products, total, count)
        self._rows[name] = count

    def _watch_gradient(self, name: str, module: nn.Module, outputs: Array) -> Array | None:
        kind = kind_of(module)
        assert kind is not None

        def add(gradient: Array) -> None:
            rows = kind.gradient_rows(module, gradient).double()
            wide = rows.shape[1] > MAX_PRODUCT_OUTPUTS
            sums = (rows.square().sum(0) if wide else rows.T @ rows) if self._products else None
            products = None if sums is None else to_numpy(sums)
            mean_square = float(rows.square().mean())
            self.calibration.add_gradient(name, mean_square, self._rows[self.calibration.inputs[name]], products)

        changed = None
        if not outputs.requires_grad:  # parameters are frozen, so the graph begins here
            changed = outputs.detach().requires_grad_().clone()
        (outputs if changed is None else changed).register_hook(add)
        return changed


@contextmanager
def frozen(model: nn.Module) -> Any:
    """The model in eval mode, no parameter requiring a gradient; both restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, value in wanted.items():
            parameter.requires_grad_(value)


def _same(first: Array, second: Array) -> bool:
    """Whether two tensors are the same numbers in the same memory."""
    return first.data_ptr() == second.data_ptr() and first.shape == second.shape and first.stride() == second.stride()


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def first_tensor(outputs: Any) -> Array:
    """The outputs, or the first tensor of real numbers among them.

    Raises:
        CompressionError: there is none.
    """
    if isinstance(outputs, torch.Tensor):
        return outputs
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    for value in values:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value
    raise CompressionError(f"the model gives {type(outputs).__name__}; expected a tensor in it; pass loss=")
