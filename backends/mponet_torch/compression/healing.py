"""Heal a compressed `torch.nn.Module` by ``heal(student, teacher, data, config)``."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mponet.compress.gather import Progress
from mponet.compress.healing import HealConfig, HealReport, OperatorParameters
from mponet.compress.healing import heal as heal_network
from mponet.compress.healing.adapter import FIRST, PARAMETERS, SECOND, STATISTICS, State
from mponet.compress.healing.decay import norm_gradients
from mponet.compress.healing.loop import Reporter
from mponet.operators.mpo import MPO
from mponet_torch.compression.distillation import Distillation, LabelLoss
from mponet_torch.compression.huggingface import refresh
from mponet_torch.compression.modules import share
from mponet_torch.compression.network import NativeNetwork, owners, shares
from mponet_torch.nn.network import NetworkLinear
from mponet_torch.ops.arrays import OPS, Array, to_numpy

#: torch's names of the moments that each optimiser keeps.
SLOTS = {
    "adam": {FIRST: "exp_avg", SECOND: "exp_avg_sq"},
    "sgd": {FIRST: "momentum_buffer"},
}
EPSILON = 1e-8  # of Adam


def heal(
    student: nn.Module,
    teacher: nn.Module,
    data: Iterable[Any],
    config: HealConfig,
    *,
    inputs: Callable[[Any], Any] | None = None,
    loss: LabelLoss | None = None,
    validation: Iterable[Any] | None = None,
    folder: str | Path | None = None,
    every: float = 60.0,
    progress: Progress | None = None,
    reporter: Reporter | None = None,
) -> HealReport:
    """Train a compressed module, in place, to do what the original does.

    A killed healing is started again by the same call: with ``folder`` it continues at its last
    checkpoint, and gives the same numbers as without the interruption if the config counts steps.

    Under ``torch.autocast`` the products of the steps are computed in its dtype, and the parameters
    keep theirs.  Modes, and what requires gradients, are as before afterwards.

    Args:
        student: the compressed module, as `compress` returned it.
        teacher: the original; it is not changed.
        data: batches of the model's own inputs: tensors, tuples of arguments, or mappings of
            keyword arguments.  A sequence is shuffled anew for each epoch.
        config: how long, how fast, what moves.
        inputs: gives the model's inputs from a batch, where batches hold more, such as labels.
        loss: mean loss of the labels from the student's outputs and the batch; None takes the
            ``loss`` of the outputs.  Only used if ``config.labels`` is above 0.
        validation: batches that measure the loss before and after; None takes the first 8 of the
            data.
        folder: where checkpoints are kept; None keeps none.
        every: seconds between checkpoints.
        progress: called with ``heal``, how many steps (or seconds) are done, how many there are.
        reporter: called with every entry of the loss curve.

    Raises:
        CompressionError: the config does not fit the student, the data hold no batch, or a model
            belongs to another framework.
        CheckpointError: the folder holds the healing of another student or config.
        DivergedError: the loss is not finite.

    Example:
        >>> import torch
        >>> from mponet.compress import CompressConfig, HealConfig
        >>> from mponet_torch.compression import compress
        >>> _ = torch.manual_seed(0)
        >>> layers = torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 10)
        >>> model, data = torch.nn.Sequential(*layers), list(torch.randn(20, 50, 64))
        >>> small, _ = compress(model, CompressConfig(keep=0.3), data)
        >>> report = heal(small, model, data, HealConfig(steps=100, learning_rate=3e-3))
        >>> report.after < report.before / 2
        True
    """
    for model in (student, teacher):
        NativeNetwork.check(model)
    network = NativeHealing(student, teacher, config, inputs, loss)
    return heal_network(
        network,
        data,
        config,
        validation=validation,
        folder=folder,
        every=every,
        progress=progress,
        reporter=reporter,
    )


class NativeHealing:
    """A student and its teacher as `mponet.compress.healing` sees them.

    See `mponet.compress.healing.adapter.HealAdapter`.

    Args:
        student: the module that learns.
        teacher: the module that it learns from.
        config: how it learns.
        inputs: gives the inputs from a batch; None takes the batch itself.
        loss: mean loss of the labels.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        config: HealConfig,
        inputs: Callable[[Any], Any] | None = None,
        loss: LabelLoss | None = None,
    ) -> None:
        self.student, self.config = student, config
        self._distillation = Distillation(student, teacher, config, inputs, loss)
        self._modes = {module: module.training for model in (student, teacher) for module in model.modules()}
        self._wanted = {name: parameter.requires_grad for name, parameter in student.named_parameters()}
        self._factors: Mapping[str, float] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        teacher.eval()

    # ------------------------------------------------------------ what there is

    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of all parameters of the student, tied ones once."""
        return {name: tuple(parameter.shape) for name, parameter in self.student.named_parameters()}

    def operators(self) -> Mapping[str, OperatorParameters]:
        """The operators of the student, by name of their module."""
        names = {id(parameter): name for name, parameter in self.student.named_parameters()}
        found = {}
        for name, module in self._layers().items():
            cores = [names[id(tensor)] for tensor in module.tensors]
            others = [names[id(value)] for value in module.parameters(recurse=False) if names[id(value)] not in cores]
            found[name] = OperatorParameters(tuple(cores), tuple(others), not isinstance(module, NetworkLinear))
        return found

    def _layers(self) -> dict[str, Any]:
        return owners(self.student)

    # ------------------------------------------------------------ training

    def start(self, factors: Mapping[str, float]) -> None:
        """Prepare training of some parameters, with factors of their learning rates."""
        self._factors = dict(factors)
        self._prepare()

    def _prepare(self) -> None:
        """A new optimiser of the parameters that move, without moments."""
        groups: dict[float, list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self.student.named_parameters():
            parameter.requires_grad_(name in self._factors)
            if name in self._factors:
                groups[self._factors[name]].append(parameter)
        listed = [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]
        config = self.config
        if config.optimizer == "adam":
            self._optimizer = torch.optim.Adam(listed, config.learning_rate, config.betas, EPSILON, fused=True)
        else:
            self._optimizer = torch.optim.SGD(listed, config.learning_rate, momentum=config.betas[0], fused=True)

    def step(self, batch: Any, rate: float, step: int) -> Array:
        """One optimiser step on a batch; the loss before it."""
        optimizer = self._optimizer
        assert optimizer is not None
        self._enter_mode()
        torch.clear_autocast_cache()  # under the caller's autocast it holds weights from before the last step
        with _seeded(self.config.seed, step, active=self.config.dropout):
            loss = self._distillation.loss(batch)
            loss.backward()
        with torch.no_grad(), torch.autocast(loss.device.type, enabled=False):
            self._decay()
            moving = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            if self.config.clip:
                nn.utils.clip_grad_norm_(moving, self.config.clip)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def loss(self, batches: Iterable[Any]) -> float:
        """The mean loss on some batches, the student in inference mode."""
        self.student.eval()
        torch.clear_autocast_cache()
        with torch.no_grad():
            values = [float(self._distillation.loss(batch)) for batch in batches]
        return float(np.mean(values))

    def _enter_mode(self) -> None:
        """Training mode only for dropout: statistics of small batches and other noise do harm."""
        if self.student.training != self.config.dropout:  # asking all modules takes time
            self.student.train(self.config.dropout)

    def _decay(self) -> None:
        """Add the gradient of the decay to the gradients of the cores."""
        if not self.config.weight_decay:
            return
        for module in self._layers().values():
            cores = module.tensors
            if isinstance(module, NetworkLinear) or not any(core.grad is not None for core in cores):
                continue
            decays = norm_gradients(cores, [tuple(core.shape) for core in cores], OPS)
            for core, decay in zip(cores, decays, strict=True):
                if core.grad is not None:
                    core.grad.add_(decay, alpha=self.config.weight_decay)

    # ------------------------------------------------------------ state

    def state(self) -> State:
        """Arrays of the student and of the optimiser."""
        state = {PARAMETERS + name: to_numpy(value) for name, value in self.student.named_parameters()}
        state |= {STATISTICS + name: to_numpy(value) for name, value in self.student.named_buffers()}
        assert self._optimizer is not None
        for name, parameter in self.student.named_parameters():
            kept = self._optimizer.state.get(parameter, {})
            for slot, own in SLOTS[self.config.optimizer].items():
                if kept.get(own) is not None:
                    state[slot + name] = to_numpy(kept[own])
        return state

    def restore(self, state: State, step: int) -> None:
        """Take over what `state` gave after so many steps."""
        self._prepare()
        assert self._optimizer is not None
        places: dict[str, Array] = {PARAMETERS + name: value for name, value in self.student.named_parameters()}
        places |= {STATISTICS + name: value for name, value in self.student.named_buffers()}
        with torch.no_grad():
            for name, place in places.items():
                place.copy_(torch.from_numpy(state[name]))
            for name, parameter in self.student.named_parameters():
                kept = {
                    own: torch.empty_like(parameter).copy_(torch.from_numpy(state[slot + name]))
                    for slot, own in SLOTS[self.config.optimizer].items()
                    if slot + name in state
                }
                if kept and self.config.optimizer == "adam":
                    kept["step"] = torch.tensor(float(step), device=parameter.device)
                if kept:
                    self._optimizer.state[parameter] = kept

    def resize(self, operator: str, cores: Sequence[NDArray[np.float64]]) -> None:
        """Give an operator other bonds and cores; `restore` follows."""
        layer: Any = self.student.get_submodule(operator)
        mpo = MPO.from_cores(list(cores))
        sharing: list[Any] = [other for other in self.student.modules() if shares(other, layer)]
        layer._resize(mpo.shape, mpo.cores)
        for other in sharing:
            other._resize(mpo.shape, mpo.cores)
            share(other, layer)
        refresh(self.student)

    def close(self) -> None:
        """Give modes and what requires gradients back."""
        for module, mode in self._modes.items():
            module.training = mode
        for name, parameter in self.student.named_parameters():
            parameter.requires_grad_(self._wanted[name])
            parameter.grad = None


@contextmanager
def _seeded(seed: int, step: int, *, active: bool) -> Any:
    """Random numbers that depend on seed and step alone."""
    if not active:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
        yield
