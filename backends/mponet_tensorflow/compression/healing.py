"""Heal a compressed `keras.Model` by ``heal(student, teacher, data, config)``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.compress.gather import Progress
from mponet.compress.healing import HealConfig, HealReport, OperatorParameters
from mponet.compress.healing import heal as heal_network
from mponet.compress.healing.adapter import FIRST, PARAMETERS, SECOND, STATISTICS, State
from mponet.compress.healing.decay import norm_gradients
from mponet.compress.healing.loop import Reporter
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape
from mponet_tensorflow.compression.distillation import Distillation, LabelLoss
from mponet_tensorflow.compression.duplicate import compile_as
from mponet_tensorflow.compression.graph import named_layers, named_variables
from mponet_tensorflow.compression.modules import OPERATORS
from mponet_tensorflow.compression.network import NativeNetwork
from mponet_tensorflow.nn.network import NetworkDense
from mponet_tensorflow.ops.arrays import OPS, Array, from_numpy, keras, tf, to_numpy

#: The moments that each optimiser keeps.
SLOTS = {"adam": (FIRST, SECOND), "sgd": (FIRST,)}
EPSILON = 1e-8  # of Adam


def heal(
    student: keras.Model,
    teacher: keras.Model,
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
    """Train a compressed model, in place, to do what the original does.

    A killed healing is started again by the same call: with ``folder`` it continues at its last
    checkpoint, and gives the same numbers as without the interruption if the config counts steps.

    Args:
        student: the compressed model, as `compress` returned it.
        teacher: the original; it is not changed.
        data: batches of the model's own inputs, as `compress` takes them.  A sequence is shuffled
            anew for each epoch.
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
        >>> import keras
        >>> from mponet.compress import CompressConfig, HealConfig
        >>> from mponet_tensorflow.compression import compress
        >>> keras.utils.set_random_seed(0)
        >>> layers = keras.layers.Dense(96, activation="relu"), keras.layers.Dense(10)
        >>> model = keras.Sequential([keras.Input((64,)), *layers])
        >>> data = list(keras.random.normal((20, 50, 64)))
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
        student: the model that learns.
        teacher: the model that it learns from.
        config: how it learns.
        inputs: gives the inputs from a batch; None takes the batch itself.
        loss: mean loss of the labels.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        config: HealConfig,
        inputs: Callable[[Any], Any] | None = None,
        loss: LabelLoss | None = None,
    ) -> None:
        self.student, self.teacher, self.config = student, teacher, config
        self._distillation = Distillation(student, teacher, config, inputs, loss)
        layers = list(named_layers(student).values())
        generators = [seeds.state for layer in (student, *layers) for seeds in layer._seed_generators]
        self._seeds = [(state, to_numpy(state)) for state in generators]
        self._factors: Mapping[str, float] = {}
        self._moments: dict[str, dict[str, tf.Variable]] = {}
        self._update: Callable[..., Array] | None = None
        self._resized = False

    # ------------------------------------------------------------ what there is

    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of all parameters of the student, tied ones once."""
        return {name: tuple(variable.shape) for name, variable in self._parameters().items()}

    def operators(self) -> Mapping[str, OperatorParameters]:
        """The operators of the student, by name of their layer."""
        names = {id(variable): name for name, variable in self._parameters().items()}
        found = {}
        for name, layer in self._layers().items():
            cores = [names[id(tensor)] for tensor in layer.tensors if id(tensor) in names]
            own = [names[id(value)] for value in layer._trainable_variables if id(value) in names]
            others = [value for value in own if value not in cores]
            found[name] = OperatorParameters(tuple(cores), tuple(others), not isinstance(layer, NetworkDense))
        return found

    def _layers(self) -> dict[str, Any]:
        return {name: layer for name, layer in named_layers(self.student).items() if isinstance(layer, OPERATORS)}

    def _parameters(self) -> dict[str, Any]:
        return named_variables(self.student, trained=True)

    def _statistics(self) -> dict[str, Any]:
        return named_variables(self.student, trained=False)

    # ------------------------------------------------------------ training

    def start(self, factors: Mapping[str, float]) -> None:
        """Prepare training of some parameters, with factors of their learning rates."""
        self._factors = dict(factors)
        self._prepare()

    def _prepare(self) -> None:
        """Moments of the parameters that move, all zero, and a step that is traced anew."""
        moving = {name: variable for name, variable in self._parameters().items() if name in self._factors}
        self._moments = {
            slot: {name: tf.Variable(tf.zeros_like(variable.value)) for name, variable in moving.items()}
            for slot in SLOTS[self.config.optimizer]
        }
        self._update = tf.function(lambda *arguments: self._updated(moving, *arguments), reduce_retracing=True)

    def step(self, batch: Any, rate: float, step: int) -> Array:
        """One optimiser step on a batch; the loss before it."""
        assert self._update is not None
        for k, (state, _) in enumerate(self._seeds):  # dropout depends on seed and step alone
            words = np.random.SeedSequence([self.config.seed, step, k]).generate_state(2)
            state.assign(words.astype(state.dtype))
        inputs = self._distillation.inputs(batch)
        numbers = (tf.constant(value, tf.float64) for value in (rate, float(step + 1)))
        return self._update(*keras.tree.map_structure(_as_tensor, (inputs, batch)), *numbers)

    def _updated(self, moving: Mapping[str, Any], inputs: Any, batch: Any, rate: Array, count: Array) -> Array:
        """One step; the loss before it.  It is traced once for each structure of batches."""
        values = [variable.value for variable in moving.values()]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss = self._distillation.loss_of(inputs, batch, training=self.config.dropout)
        found = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = dict(zip(moving, map(tf.convert_to_tensor, found), strict=True))
        self._decay(gradients)
        if self.config.clip:
            norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.cast(g, tf.float64) ** 2) for g in gradients.values()]))
            scale = tf.minimum(tf.ones_like(norm), self.config.clip / (norm + 1e-6))
            gradients = {name: gradient * tf.cast(scale, gradient.dtype) for name, gradient in gradients.items()}
        for name, gradient in gradients.items():
            self._move(moving[name], name, gradient, rate, count)
        return loss

    def _move(self, variable: Any, name: str, gradient: Array, rate: Array, count: Array) -> None:
        first, beta = self._moments[FIRST][name], self.config.betas[0]
        rate = tf.cast(rate * self._factors[name], gradient.dtype)
        if self.config.optimizer == "sgd":
            first.assign(beta * first + gradient)
            variable.value.assign_sub(rate * first)
            return
        second, other = self._moments[SECOND][name], self.config.betas[1]
        first.assign(beta * first + (1 - beta) * gradient)
        second.assign(other * second + (1 - other) * gradient**2)
        biases = [tf.cast(1 - tf.pow(tf.constant(b, tf.float64), count), gradient.dtype) for b in (beta, other)]
        variable.value.assign_sub(rate * (first / biases[0]) / (tf.sqrt(second / biases[1]) + EPSILON))

    def _decay(self, gradients: dict[str, Array]) -> None:
        """Add the gradient of the decay to the gradients of the cores."""
        if not self.config.weight_decay:
            return
        layers = self._layers()
        for name, operator in self.operators().items():
            if not operator.is_chain or not any(core in gradients for core in operator.cores):
                continue
            cores = [tensor.value for tensor in layers[name].tensors]
            decays = norm_gradients(cores, [tuple(core.shape) for core in cores], OPS)
            for core, decay in zip(operator.cores, decays, strict=True):
                if core in gradients:
                    gradients[core] += self.config.weight_decay * decay

    def loss(self, batches: Iterable[Any]) -> float:
        """The mean loss on some batches, the student in inference mode."""
        return float(np.mean([float(self._distillation.loss(batch)) for batch in batches]))

    # ------------------------------------------------------------ state

    def state(self) -> State:
        """Arrays of the student and of the optimiser."""
        state = {PARAMETERS + name: to_numpy(value) for name, value in self._parameters().items()}
        state |= {STATISTICS + name: to_numpy(value) for name, value in self._statistics().items()}
        for slot, moments in self._moments.items():
            state |= {slot + name: to_numpy(value) for name, value in moments.items()}
        return state

    def restore(self, state: State, step: int) -> None:
        """Take over what `state` gave after so many steps."""
        self._prepare()
        places = {PARAMETERS + name: value for name, value in self._parameters().items()}
        places |= {STATISTICS + name: value for name, value in self._statistics().items()}
        for slot, moments in self._moments.items():
            places |= {slot + name: value for name, value in moments.items() if slot + name in state}
        for name, place in places.items():
            place.assign(from_numpy(state[name], tf.as_dtype(place.dtype)))

    def resize(self, operator: str, cores: Sequence[NDArray[np.float64]]) -> None:
        """Give an operator other bonds and cores; `restore` follows."""
        layer = self._layers()[operator]
        mpo = MPO.from_cores(list(cores))
        shape = mpo.shape if isinstance(layer.shape, MPOShape) else replace(layer.shape, mpo=mpo.shape)
        layer._resize(shape, mpo.cores)
        self._resized = True

    def close(self) -> None:
        """Give the seeds of dropout back.

        A compiled student whose bonds changed is compiled anew.
        """
        for state, value in self._seeds:
            state.assign(value)
        if self._resized:
            compile_as(self.student, self.student)


def _as_tensor(value: Any) -> Any:
    return tf.convert_to_tensor(value) if isinstance(value, np.ndarray) else value
