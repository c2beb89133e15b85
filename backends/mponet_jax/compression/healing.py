"""Heal a compressed `flax.nnx.Module` by ``heal(student, teacher, data, config)``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from flax import nnx
from numpy.typing import NDArray

from mponet.compress.gather import Progress
from mponet.compress.healing import HealConfig, HealReport, OperatorParameters
from mponet.compress.healing import heal as heal_network
from mponet.compress.healing.adapter import FIRST, PARAMETERS, SECOND, STATISTICS, State
from mponet.compress.healing.decay import norm_gradients
from mponet.compress.healing.loop import Reporter
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape
from mponet_jax.compression.distillation import Distillation, LabelLoss
from mponet_jax.compression.modules import OPERATORS
from mponet_jax.compression.network import NativeNetwork
from mponet_jax.compression.streaming import Fixed, apart, joined, named_modules
from mponet_jax.nn.network import NetworkLinear
from mponet_jax.nn.parameters import put
from mponet_jax.ops.arrays import OPS, Array, to_numpy

#: optax's names of the moments that each optimiser keeps.
SLOTS = {
    "adam": {FIRST: "mu", SECOND: "nu"},
    "sgd": {FIRST: "trace"},
}
EPSILON = 1e-8  # of Adam
Arrays = dict[str, Array]


def heal(
    student: nnx.Module,
    teacher: nnx.Module,
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

    Modes and random streams of both modules are as before afterwards.

    Args:
        student: the compressed module, as `compress` returned it.
        teacher: the original; it is not changed.
        data: batches of the model's own inputs: arrays, tuples of arguments, or mappings of keyword
            arguments.  A sequence is shuffled anew for each epoch.
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
        >>> from mponet.compress import CompressConfig, HealConfig
        >>> from mponet_jax.compression import compress
        >>> rngs = nnx.Rngs(0)
        >>> layers = nnx.Linear(64, 96, rngs=rngs), nnx.relu, nnx.Linear(96, 10, rngs=rngs)
        >>> model, data = nnx.Sequential(*layers), list(jax.random.normal(rngs(), (20, 50, 64)))
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

    Steps run on copies of both modules that share their arrays, so their own modes and random
    streams stay as they are; only the student's parameters and statistics are set.

    Args:
        student: the module that learns.
        teacher: the module that it learns from.
        config: how it learns.
        inputs: gives the inputs from a batch; None takes the batch itself.
        loss: mean loss of the labels.
    """

    def __init__(
        self,
        student: nnx.Module,
        teacher: nnx.Module,
        config: HealConfig,
        inputs: Callable[[Any], Any] | None = None,
        loss: LabelLoss | None = None,
    ) -> None:
        self.student, self.config = student, config
        self._inputs = inputs
        self._distillation = Distillation(student, teacher, config, loss)
        self._teacher = nnx.split(_in_mode(self._distillation.observed(teacher)))
        self._optimizer = _optimizer(config)
        self._factors: Mapping[str, float] = {}
        self._moments: Any = None

    # ------------------------------------------------------------ what there is

    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of all parameters of the student, tied ones once."""
        return {name: tuple(variable.shape) for name, variable in self._variables(nnx.Param).items()}

    def operators(self) -> Mapping[str, OperatorParameters]:
        """The operators of the student, by name of their module."""
        names = {id(variable): name for name, variable in self._variables(nnx.Param).items()}
        found = {}
        for name, module in self._layers().items():
            cores = [names[id(tensor)] for tensor in module.tensors if id(tensor) in names]
            others = () if module.bias is None else (names[id(module.bias)],)
            found[name] = OperatorParameters(tuple(cores), others, not isinstance(module, NetworkLinear))
        return found

    def _layers(self) -> dict[str, Any]:
        return {name: module for name, module in named_modules(self.student) if isinstance(module, OPERATORS)}

    def _variables(self, kind: Any) -> dict[str, Any]:
        """The student's variables of a kind, by their path."""
        return {".".join(map(str, path)): variable for path, variable in self._flat(kind)}

    def _flat(self, kind: Any) -> Any:
        return nnx.to_flat_state(nnx.state(self.student, kind))

    # ------------------------------------------------------------ training

    def start(self, factors: Mapping[str, float]) -> None:
        """Prepare training of some parameters, with factors of their learning rates."""
        self._factors = dict(factors)
        self._prepare()

    def _prepare(self) -> None:
        """The student's structure, and a new optimiser of the parameters that move."""
        observed = self._distillation.observed(self.student)
        self._training = nnx.graphdef(_in_mode(observed, training=self.config.dropout))
        self._inference = nnx.graphdef(_in_mode(observed))
        self._all, self._paths = self._variables(...), [path for path, _ in self._flat(...)]
        self._moments = jax.jit(self._optimizer.init)(self._numbers()[0])
        self._update = jax.jit(self._stepped, static_argnames="fixed", donate_argnames="moments")
        self._measure = jax.jit(self._measured, static_argnames="fixed")

    def step(self, batch: Any, rate: float, step: int) -> Array:
        """One optimiser step on a batch; the loss before it."""
        arrays, fixed = self._batch(batch)
        rates = jnp.asarray(rate, jnp.result_type(float)), jnp.asarray(step)  # arrays: a new rate compiles nothing
        numbers = (*self._numbers(), self._teacher[1], arrays)
        loss, changed, self._moments = self._update(*numbers, *rates, moments=self._moments, fixed=fixed)
        for name, value in changed.items():
            self._all[name].set_raw_value(value)
        return loss  # type: ignore[no-any-return]

    def loss(self, batches: Iterable[Any]) -> float:
        """The mean loss on some batches, the student in inference mode."""
        values = []
        for batch in batches:
            arrays, fixed = self._batch(batch)
            values.append(float(self._measure(*self._numbers(), self._teacher[1], arrays, fixed=fixed)))
        return float(np.mean(values))

    def _batch(self, batch: Any) -> tuple[list[Array], Fixed]:
        """Inputs, and the batch where it is another thing, as arrays and what is none."""
        inputs = batch if self._inputs is None else self._inputs(batch)
        return apart((inputs, None if inputs is batch else batch))

    def _numbers(self) -> tuple[Arrays, Arrays]:
        """The arrays that move, and the others."""
        raw = {name: variable.get_raw_value() for name, variable in self._all.items()}
        moving = {name: raw[name] for name in self._factors}
        return moving, {name: value for name, value in raw.items() if name not in moving}

    # ------------------------------------------------------------ compiled

    def _loss_of(self, structure: Any, numbers: Arrays, teacher: Any, arrays: list[Array], fixed: Fixed) -> Any:
        """The loss, and the student after the pass."""
        inputs, batch = joined(arrays, fixed)
        flat = [(path, v.replace(numbers[n])) for path, (n, v) in zip(self._paths, self._all.items(), strict=True)]
        student = nnx.merge(structure, nnx.from_flat_state(flat))
        master = nnx.merge(self._teacher[0], teacher, copy=True)
        return self._distillation.loss(student, master, inputs, inputs if batch is None else batch), student

    def _measured(self, moving: Arrays, others: Arrays, teacher: Any, arrays: list[Array], *, fixed: Fixed) -> Array:
        return self._loss_of(self._inference, moving | others, teacher, arrays, fixed)[0]  # type: ignore[no-any-return]

    def _stepped(
        self,
        moving: Arrays,
        others: Arrays,
        teacher: Any,
        arrays: list[Array],
        rate: Array,
        step: Array,
        *,
        moments: Any,
        fixed: Fixed,
    ) -> tuple[Array, Arrays, Any]:
        """The loss, the arrays that changed, and the optimiser's state."""
        seeded = self._seeded(others, step)

        def loss(moving: Arrays) -> tuple[Array, Arrays]:
            value, student = self._loss_of(self._training, moving | seeded, teacher, arrays, fixed)
            after = {".".join(map(str, path)): v for path, v in nnx.to_flat_state(nnx.state(student))}
            return value, {name: after[name].get_raw_value() for name in self._statistics()}

        (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(moving)
        updates, moments = self._optimizer.update(self._decayed(gradients, moving), moments, moving)
        moved = {
            name: (leaf - rate * self._factors[name] * updates[name]).astype(leaf.dtype)
            for name, leaf in moving.items()
        }
        return value, moved | statistics, moments

    def _statistics(self) -> list[str]:
        """Names of the variables that a pass may change: no parameters, no random streams."""
        return [n for n, v in self._all.items() if not isinstance(v, nnx.Param | nnx.RngState)]

    def _seeded(self, others: Arrays, step: Array) -> Arrays:
        """The arrays with random streams that depend on seed and step alone."""
        seeded = dict(others)
        for place, (name, variable) in enumerate(self._all.items()):
            if isinstance(variable, nnx.RngKey) and self.config.dropout:
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.config.seed), step), place)
                seeded[name] = jax.random.split(key, others[name].shape) if others[name].shape else key
            elif isinstance(variable, nnx.RngCount) and self.config.dropout:
                seeded[name] = jnp.zeros_like(others[name])
        return seeded

    def _decayed(self, gradients: Arrays, moving: Arrays) -> Arrays:
        """The gradients with that of the decay added to those of the cores."""
        if not self.config.weight_decay:
            return gradients
        changed = dict(gradients)
        for operator in self.operators().values():
            if not operator.is_chain or not any(name in moving for name in operator.cores):
                continue
            cores = [moving.get(name, self._all[name].get_raw_value()) for name in operator.cores]
            decays = norm_gradients(cores, [core.shape for core in cores], OPS)
            for name, decay in zip(operator.cores, decays, strict=True):
                if name in moving:
                    changed[name] = changed[name] + self.config.weight_decay * decay.astype(changed[name].dtype)
        return changed

    # ------------------------------------------------------------ state

    def state(self) -> State:
        """Arrays of the student and of the optimiser."""
        state = {PARAMETERS + name: to_numpy(v[...]) for name, v in self._variables(nnx.Param).items()}
        state |= {STATISTICS + name: to_numpy(self._all[name][...]) for name in self._statistics()}
        for slot, own in SLOTS[self.config.optimizer].items():
            state |= {slot + name: to_numpy(v) for name, v in optax.tree_utils.tree_get(self._moments, own).items()}
        return state

    def restore(self, state: State, step: int) -> None:
        """Take over what `state` gave after so many steps."""
        for kind in (PARAMETERS, STATISTICS):
            for name, variable in self._all.items():
                if kind + name in state:
                    put(variable, state[kind + name])
        self._prepare()
        kept: dict[str, Any] = {
            own: {name: jnp.asarray(state[slot + name], leaf.dtype) for name, leaf in self._numbers()[0].items()}
            for slot, own in SLOTS[self.config.optimizer].items()
        }
        if self.config.optimizer == "adam":
            kept["count"] = jnp.asarray(step, jnp.int32)
        self._moments = optax.tree_utils.tree_set(self._moments, **kept)

    def resize(self, operator: str, cores: Sequence[NDArray[np.float64]]) -> None:
        """Give an operator other bonds and cores; `restore` follows."""
        layer = self._layers()[operator]
        mpo = MPO.from_cores(list(cores))
        first = layer.tensors[0]
        for other in self._layers().values():  # those that share its cores change with it
            if other.tensors[0] is first:
                _reshape(other, mpo.shape)
        for parameter, values in zip(layer.tensors, mpo.cores, strict=True):
            put(parameter, values)

    def close(self) -> None:
        """Nothing is to be given back: modes and random streams were never touched."""


def _reshape(layer: Any, shape: MPOShape) -> None:
    """Give a layer an operator of another shape, without numbers yet."""
    if hasattr(layer, "sizes"):
        layer.sizes = replace(layer.sizes, shape=shape)
    else:
        layer.shape = shape if isinstance(layer.shape, MPOShape) else replace(layer.shape, mpo=shape)


def _optimizer(config: HealConfig) -> optax.GradientTransformation:
    """What to subtract from the parameters for a learning rate of 1."""
    first, second = config.betas
    adam = config.optimizer == "adam"
    return optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        optax.scale_by_adam(first, second, EPSILON) if adam else optax.trace(first),
    )


def _in_mode(model: nnx.Module, *, training: bool = False) -> nnx.Module:
    """The model in training or in inference mode."""
    if training:
        model.train()
    else:
        model.eval()
    return model
