"""What a layer of mponet must survive where it replaces a dense layer.

The rows of the table in docs/layers.md.

Each framework has a module here, `contract.torch_uses` and so on, with one function for each use,
named as the use.  It takes a `Kind` of layer and asserts.  A use that a framework does not have is
listed in its ``ABSENT`` with the reason.
"""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from mponet.contraction import planner
from mponet.errors import PlanError
from mponet.layers import frozen

FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "Keras"}
#: Use to what is asserted, in the order of the table.
USES = {
    "outputs": "Outputs and gradients of the inputs are those of the dense layer from `to_dense()`",
    "training": "An optimiser lowers the loss",
    "inference": "Inference gives what training gives, also after parameters were written to directly",
    "served": "`freeze` keeps merged weights for inference: same outputs for alternating batches, under threads, "
    "compiled, exported, copied; training ends it",
    "frozen": "Frozen parameters get no gradients, the inputs do",
    "second_derivative": "Gradients of gradients",
    "forward_mode": "Forward-mode derivatives, Jacobians, Hessians, Hessian-vector products",
    "batched_gradients": "Many backward passes at once, vectorised Jacobians",
    "mapped": "Vectorised mapping, and gradients of each sample",
    "transformed": "Transforms of transforms, compiled ones too, in training and inference",
    "memory": "`memory=` says how much a training step may take; states that are saved and states that are computed "
    "again give the same gradients",
    "recomputed": "Activations computed again in the backward pass (checkpointing, remat)",
    "mixed_precision": "Mixed precision by the rules of the framework; float64 keeps its precision",
    "compiled": "Compiled training and inference, compiled before any other call, without graph breaks",
    "exported": "Export with an open batch",
    "traced": "Other tracers: `torch.jit.trace`, `torch.fx.symbolic_trace`, `make_fx`",
    "without_numbers": "Built without numbers (meta device, fake tensors, abstract shapes), initialised later",
    "saved": "Saved and loaded; a dense layer refuses the file",
    "copied": "Copied, pickled, shared with other processes",
    "averaged": "Moving averages of the parameters",
    "threads": "One layer, several threads and batch sizes",
    "many_batches": "Thousands of batch sizes; caches stay small",
    "hooks": "Hooks and observers, and their owners, survive `from_dense`",
    "kept": "`from_dense` keeps trainability, mode, dtype and device; `to_dense` gives them back",
    "sources": "`from_dense` takes every layer that is a matrix, and refuses others with one error",
    "weight_readers": "Modules that read the dense weight; writes to it are refused",
    "parametrised": "Parametrisation and pruning of the parameters; `assign` refuses what it cannot write",
    "adapters": "Low-rank adapters on top of the layer",
    "odd_inputs": "Ragged inputs; complex, sparse, masked and foreign ones are refused with one error",
    "sharded": "Parameters or batch sharded",
}


@dataclass(frozen=True)
class Kind:
    """One kind of layer.

    Attributes:
        name: of the class, and what is special about it.
        make: makes a layer in float64 with fixed starting values, from the arguments of the layer.
        inputs: makes a batch of so many samples for a layer, float64 of the framework or tokens.
        reference: gives a function of inputs that does what the layer does with its dense weight.
    """

    name: str
    make: Callable[..., Any]
    inputs: Callable[..., Any]
    reference: Callable[[Any], Callable[[Any], Any]]

    @property
    def layer(self) -> str:
        """Name of the class."""
        return self.name.partition(",")[0]


@contextmanager
def keeping(sweeps: bool) -> Iterator[None]:
    """Inside, a frozen layer keeps a sweep if it has one, or its matrix, whatever is faster."""
    chosen = (frozen._kept_plans, frozen.kept_conv_plan)
    with mock.patch.object(frozen, "MARGIN", 1e9 if sweeps else 1e-9):
        for function in chosen:
            function.cache_clear()
        yield
    for function in chosen:
        function.cache_clear()


@contextmanager
def saving(states: bool) -> Iterator[None]:
    """Inside, training steps run the best sweep, if there is one; it saves its states, or none."""
    original = planner.PlanSet.of.__func__  # type: ignore[attr-defined]

    def of(cls: Any, request: Any, *rest: Any) -> Any:
        options = request.ranked("training")
        sweep = next((plan for plan in options if len(plan.steps) > 1), options[0]).with_tile(None)
        return replace(original(cls, request, *rest), training=replace(sweep, saves_states=states))

    try:
        with mock.patch.object(planner.PlanSet, "of", classmethod(of)):
            planner._plans_for.cache_clear()
            yield
    finally:
        planner._plans_for.cache_clear()


def check_budget(kind: Kind, inner: str, copied: Callable[[Any], Any]) -> None:
    """That ``memory=`` of a layer, or of what it holds, is checked, kept, shown and set.

    Args:
        kind: of the layer.
        inner: attribute of the layer that has the operator, if there is one.
        copied: another layer by the framework's own means.
    """
    layer = kind.make(memory=1000)
    holder = getattr(layer, inner, None) or layer
    assert holder.memory == copied(holder).memory == 1000 and "memory=1000" in repr(holder)
    assert "memory limit 0.00 MB" in holder.plans(5).explain("training")
    holder.memory = 5_000_000
    assert "memory limit 5.00 MB" in holder.plans(5).explain("training")
    with pytest.raises(PlanError, match="memory is -1; expected a whole number of bytes"):
        kind.make(memory=-1)


def constants(framework: str) -> tuple[set[str], dict[str, str], dict[str, dict[str, str]]]:
    """Functions of a framework's module, and its ``ABSENT`` and ``ABSENT_KINDS``.

    Read from the source, nothing is imported.
    """
    tree = ast.parse((Path(__file__).parent / f"{framework}_uses.py").read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    values = {
        ast.unparse(node.targets[0]): node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("ABSENT")
    }
    return functions, ast.literal_eval(values["ABSENT"]), ast.literal_eval(values["ABSENT_KINDS"])


def cells() -> dict[str, dict[str, tuple[bool, list[str]]]]:
    """Use to framework to whether it is tested, and the reasons why not or not for a kind."""
    table: dict[str, dict[str, tuple[bool, list[str]]]] = {use: {} for use in USES}
    for framework, title in FRAMEWORKS.items():
        functions, absent, of_kinds = constants(framework)
        for use in USES:
            reasons = [f"{title}: {absent[use]}"] if use in absent else []
            reasons += [f"{kind} of {title}: {uses[use]}" for kind, uses in of_kinds.items() if use in uses]
            table[use][framework] = use in functions, reasons
    return table
