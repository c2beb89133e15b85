"""The door to the frameworks: what an adapter offers, which are known, and which one is meant.

An adapter is an ordinary package with layers and one `Backend` object: ``mponet.load("torch")``
gives ``mponet_torch.backend``.  The core names adapters by string only.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.planner import PlanningContext
from mponet.errors import BackendError
from mponet.group import ALONE, Group
from mponet.models.dropout import Masks
from mponet.models.spec import Model
from mponet.recipe import Recipe

Numbers = NDArray[np.floating[Any]]
Parameters = Mapping[str, Numbers]
VARIABLE = "MPONET_BACKEND"


class Trainer(Protocol):
    """Trains one native model by one recipe; holds the optimiser's state."""

    def step(
        self,
        images: Numbers,
        labels: NDArray[np.int64],
        learning_rate: float,
        *,
        masks: Masks = (),
        share: float = 0.0,
    ) -> Any:
        """One step on a batch ``(batch, H, W, C)``.

        The mean cross-entropy before it, as something ``float()`` reads.

        Reading waits for the device, so the loop reads seldom.

        Args:
            images: normalised.
            labels: of the images.
            learning_rate: of this step.
            masks: what each dropout keeps (`mponet.models.dropout`); without them the framework
                draws its own.
            share: of the new parameters in their moving average (`mponet.recipe.average_share`).
        """

    def state(self) -> dict[str, Numbers]:
        """Optimiser state, numpy, canonical layout.

        By ``velocity/<parameter name>`` where the recipe has momentum, and by ``average/<parameter
        name>`` where it averages; running statistics have neither.  Before the first step it may be
        empty, or velocities zero, which mean the same.
        """

    def restore(self, state: Parameters) -> None:
        """Take over what `state` gave, from any backend."""


class Backend(Protocol):
    """What every adapter offers.

    Arrays go in and out as numpy, images as NHWC, parameters in the canonical layout.

    Attributes:
        name: as in `load`.
        shards: whether processes that train together can keep a share of the parameters each.
    """

    name: str
    shards: bool

    @property
    def planner(self) -> PlanningContext:
        """What plans for the default device are chosen by."""

    def versions(self) -> dict[str, str]:
        """Versions of the packages underneath."""

    def devices(self) -> tuple[str, ...]:
        """Devices that ``build`` accepts, the default first."""

    def build(
        self,
        model: Model,
        parameters: Parameters,
        *,
        dtype: str = "float32",
        device: str | None = None,
    ) -> Any:
        """The native ``nn.Module``, ``nnx.Module`` or ``keras.Model`` with these parameters."""

    def parameters(self, native: Any) -> dict[str, Numbers]:
        """Its parameters and running statistics by canonical name, numpy, in the native dtype."""

    def assign(self, native: Any, parameters: Parameters) -> None:
        """Overwrite its parameters and running statistics."""

    def predict(self, native: Any, images: Numbers, masks: Masks = ()) -> Numbers:
        """Logits ``(batch, classes)`` in inference mode.

        With ``masks``, dropout is active all the same.
        """

    def gradients(
        self, native: Any, images: Numbers, labels: NDArray[np.int64], masks: Masks = ()
    ) -> tuple[float, dict[str, Numbers]]:
        """Mean cross-entropy in training mode, and its gradient by parameter name.

        Weight decay is not included.

        The model is left as it was: running statistics do not move.
        """

    def trainer(self, native: Any, recipe: Recipe, group: Group = ALONE) -> Trainer:
        """A trainer that changes ``native`` in place.

        In a group, every process takes its rows of each batch; gradients, losses and the statistics
        of batch norms are those of the whole batch.  Where the group is sharded, `parameters`,
        `predict` and `Trainer.state` are to be called by all processes.
        """

    def group(self) -> Group:
        """The processes that the environment says train together; joins them at the first call."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Where a backend is found.

    Attributes:
        module: import name of the adapter.
        needs: import names of the framework.
        extra: pip extra that installs it.
        aliases: other names people write.
    """

    module: str
    needs: tuple[str, ...]
    extra: str
    aliases: tuple[str, ...] = ()


#: In the order of preference when nothing is asked for.
ADAPTERS: dict[str, Adapter] = {
    "torch": Adapter("mponet_torch", ("torch",), "torch", ("pytorch", "pt")),
    "jax": Adapter("mponet_jax", ("jax", "flax", "optax"), "jax", ("flax",)),
    "tensorflow": Adapter("mponet_tensorflow", ("tensorflow", "keras"), "tensorflow", ("tf", "keras")),
    "numpy": Adapter("mponet_numpy", ("numpy",), "", ("np", "reference")),
}
TRAINABLE = ("torch", "jax", "tensorflow")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which backend, and why."""

    name: str
    why: str


def normalize(name: str) -> str:
    """The canonical name for ``name``: case, blanks, stray quotes and aliases are forgiven.

    Raises:
        BackendError: no installed package has it.
    """
    plain = name.strip().strip("'\"").strip().lower()
    for known, adapter in ADAPTERS.items():
        if plain == known or plain in adapter.aliases:
            return known
    if plain in (others := _entry_points()):
        return plain
    raise BackendError(
        f"backend is {name!r}; expected one of {', '.join((*ADAPTERS, *others))}; set {VARIABLE} or pass backend="
    )


def choose(name: str | None = None) -> Choice:
    """The backend that is meant.

    The argument, else ``MPONET_BACKEND``, else the first installed framework.

    Raises:
        BackendError: an unknown name, or no framework installed.
    """
    if name is not None:
        return Choice(normalize(name), "asked for by name")
    if wanted := os.environ.get(VARIABLE, "").strip().strip("'\"").strip():
        return Choice(normalize(wanted), f"{VARIABLE}={wanted}")
    for known in TRAINABLE:
        if installed(known):
            return Choice(known, f"first installed of {', '.join(TRAINABLE)}; {VARIABLE} is not set")
    raise BackendError(
        f"no framework is installed; expected one of {', '.join(TRAINABLE)}; for example: pip install 'mponet[torch]'"
    )


def installed(name: str) -> bool:
    """Whether the backend's framework is there; nothing is imported."""
    adapter = ADAPTERS.get(normalize(name))
    return adapter is None or not missing(adapter)


def missing(adapter: Adapter) -> tuple[str, ...]:
    """Import names that an adapter needs and that are not installed."""
    return tuple(module for module in adapter.needs if find_spec(module) is None)


def load(name: str | None = None) -> Backend:
    """The `Backend` object of a framework; see `choose` for what ``None`` means.

    Raises:
        BackendError: the name is unknown, or its framework is missing or broken.
    """
    known = choose(name).name
    if known not in ADAPTERS:
        return cast(Backend, _entry_points()[known].load())
    adapter = ADAPTERS[known]
    if absent := missing(adapter):
        raise BackendError(
            f"backend {known!r} needs {', '.join(absent)}, not installed here; pip install 'mponet[{adapter.extra}]', "
            f"or set {VARIABLE} to one of: {', '.join(n for n in ADAPTERS if installed(n))}"
        )
    return cast(Backend, import_module(adapter.module).backend)


def package_of(name: str) -> str:
    """Import name of a backend's package, such as ``mponet_torch``.

    Raises:
        BackendError: the name is unknown.
    """
    known = normalize(name)
    return ADAPTERS[known].module if known in ADAPTERS else str(_entry_points()[known].module)


def on_first_use(
    package: str, names: Sequence[str], modules: Sequence[str] = (), hint: Callable[[str], str] = lambda name: ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that imports modules when they are first used.

    ``__getattr__`` raises AttributeError for a name that is neither exported nor a module.

    Args:
        package: its name.
        names: what it exports.
        modules: those that are searched for a name of these, in this order.
        hint: what a message says of a name that does not exist; the default lists ``names``.
    """

    def find(name: str) -> Any:
        for module in modules if name in names else ():
            value = getattr(import_module(f"{package}.{module}"), name, None)
            if value is not None:
                return value
        if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        expected = hint(name) or f"expected one of {', '.join(names)}"
        raise AttributeError(f"module {package!r} has no attribute {name!r}; {expected}", name=name)

    return find, lambda: sorted(names)


def _entry_points() -> dict[str, Any]:
    """Adapters that others have installed, by name."""
    return {point.name: point for point in entry_points(group="mponet.backends") if point.name not in ADAPTERS}
