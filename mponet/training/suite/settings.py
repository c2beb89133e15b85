"""What a suite is, as data: its settings, and the trainings that they mean."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mponet.errors import ModelError, RecipeError
from mponet.files import to_json
from mponet.models import PAPER_VARIANTS, VARIANTS, build, family
from mponet.training.run import Settings, resolve
from mponet.training.run.settings import MAX_BOND

#: One of each family, the smallest that the paper has results for.
DEFAULT = ("fc2", "lenet5", "vgg16", "resnet20", "densenet40-12")
SEEDS = 5  # as in the paper
MAX_NETWORKS, MAX_TRAININGS = 1000, 20_000  # what status and tables still list in seconds
AXES, MAX_RATE = ("bond", "rate"), 1e6


@dataclass(frozen=True, slots=True)
class Network:
    """A network of a suite; the suite trains several variants of it.

    Attributes:
        model: a name of `mponet.models.build`.
        bond: of the MPO variant; None for the published one.
        rate: learning rate at the start; None for the preset's.
    """

    model: str
    bond: int | None
    rate: float | None = None

    def __str__(self) -> str:
        bond = "" if self.bond is None else f":{self.bond}"
        return self.model + bond + ("" if self.rate is None else f"@{self.rate:g}")


@dataclass(frozen=True, slots=True)
class Training:
    """One training.

    Attributes:
        settings: of its run.
        variant: one of `mponet.models.VARIANTS`.
        rate: learning rate at the start, where the suite names one.
    """

    settings: Settings
    variant: str
    rate: float | None = None

    @property
    def network(self) -> tuple[str, str, int | None, float | None]:
        """What it has in common with its likes of other seeds: model, variant, bond and rate."""
        return self.settings.model, self.variant, self.settings.bond, self.rate

    def __str__(self) -> str:
        """The name, and that of its folder."""
        bond = [] if self.settings.bond is None else [f"D{self.settings.bond}"]
        rate = [] if self.rate is None else [f"rate{self.rate:g}"]
        return "-".join([self.settings.model, self.variant, *bond, *rate, f"seed{self.settings.seed}"])

    def run_folder(self, folder: Path) -> Path:
        """Its run folder within ``folder``, that of the suite."""
        return folder / str(self)


@dataclass(frozen=True, slots=True)
class Suite:
    """Everything that a suite must have in common with the one that it goes on with.

    Attributes:
        backend: name of what trains; the figures of two do not mix.
        preset: the recipes, ``paper`` or ``short``.
        networks: in the order of the table.
        seeds: how many; they are 0, 1, ...
        data: name of the data set; None for that of the paper, each network its own.
        epochs: length in epochs; None for the preset's.
        steps: length in steps, instead.
        images: number of training images of each data set.
        variants: what is trained of each network, in this order.
    """

    backend: str
    preset: str
    networks: tuple[Network, ...]
    seeds: int
    data: str | None
    epochs: int | None
    steps: int | None
    images: Mapping[str, int]
    variants: tuple[str, ...] = PAPER_VARIANTS

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise RecipeError(f"seeds is {self.seeds}; expected a whole number of at least 1; choose another")
        if not self.networks:
            raise RecipeError("models is empty; expected at least one network; name some")
        if not self.variants or len(set(self.variants)) < len(self.variants) or not set(self.variants) <= set(VARIANTS):
            raise RecipeError(f"variants is {self.variants}; expected different ones of {', '.join(VARIANTS)}")
        if len(self.networks) > MAX_NETWORKS:
            raise RecipeError(f"models names {len(self.networks)}; expected at most {MAX_NETWORKS}; name fewer")
        if (count := self.seeds * len(self.variants) * len(self.networks)) > MAX_TRAININGS:
            raise RecipeError(
                f"seeds is {self.seeds} for {len(self.networks)} networks, up to {count} trainings; expected at most "
                f"{MAX_TRAININGS}; choose fewer seeds, or several suites"
            )

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {
            "backend": self.backend,
            "preset": self.preset,
            "models": [str(network) for network in self.networks],
            "seeds": self.seeds,
            "data": self.data,
            "epochs": self.epochs,
            "steps": self.steps,
            "images": dict(self.images),
            "variants": list(self.variants),
        }

    def data_of(self, model: str) -> str:
        """Name of the data set that a network is trained on."""
        return data_of(model, self.data)

    def trainings(self) -> tuple[Training, ...]:
        """The trainings, seed by seed, so that a suite that is not finished has whole rows.

        Raises:
            RecipeError: an unknown preset, epochs and steps together, or a number out of range.
        """
        once = [*self._of_seed_0()]
        return tuple(
            replace(training, settings=replace(training.settings, seed=seed))
            for seed in range(self.seeds)
            for training in once
        )

    def _of_seed_0(self) -> Iterator[Training]:
        for model, rate in dict.fromkeys((network.model, network.rate) for network in self.networks):
            if "dense" in self.variants:
                yield Training(self._settings(Network(model, None, rate)), "dense", rate)
            for network in self.networks:
                if (network.model, network.rate) == (model, rate):
                    settings = self._settings(network)
                    yield from (Training(settings, variant, rate) for variant in self.variants if variant != "dense")

    def _settings(self, network: Network) -> Settings:
        data = self.data_of(network.model)
        return resolve(
            network.model,
            data=data,
            images=self.images[data],
            preset_name=self.preset,
            epochs=self.epochs,
            steps=self.steps,
            bond=network.bond,
            rate=network.rate,
        )


def data_of(model: str, data: str | None) -> str:
    """Name of the data set that a network is trained on.

    The one asked for, or that of the paper.
    """
    return family(model).data if data is None else data


def networks(entries: Sequence[str]) -> tuple[Network, ...]:
    """The networks that ``NAME[:BOND][@RATE]`` specify, each once.

    Raises:
        ModelError: an unknown network, or a bond that is not a whole number of at least 1.
        RecipeError: a learning rate that is not a number above 0.
    """
    return tuple(dict.fromkeys(_network(entry.strip()) for entry in entries if entry.strip()))


def swept(entries: Sequence[str], axes: Sequence[str]) -> list[str]:
    """Entries for every combination of the values of some axes.

    Args:
        entries: networks, ``NAME[:BOND][@RATE]``.
        axes: ``bond=2,4,8`` and ``rate=0.1,0.4``; they replace what an entry says.

    Raises:
        RecipeError: an axis has another name, is given twice, or has no value.

    Example:
        >>> swept(["fc2"], ["bond=2,4", "rate=0.1,0.4"])
        ['fc2:2@0.1', 'fc2:2@0.4', 'fc2:4@0.1', 'fc2:4@0.4']
    """
    values: dict[str, list[str]] = {}
    for axis in axes:
        name, _, listed = axis.partition("=")
        chosen = [value.strip() for value in listed.split(",") if value.strip()]
        if name not in AXES or name in values or not chosen:
            raise RecipeError(
                f"sweep is {axis!r}; expected bond=... and rate=..., each once, with values between commas; seeds are "
                "swept by --seeds"
            )
        values[name] = chosen
    found = []
    for entry in entries:
        head, _, rate = entry.partition("@")
        model, _, bond = head.partition(":")
        for one in values.get("bond", [bond]):
            for other in values.get("rate", [rate]):
                found.append(model + (f":{one}" if one else "") + (f"@{other}" if other else ""))
    return found


def plan(
    entries: Sequence[str],
    *,
    backend: str,
    images: Mapping[str, int],
    preset: str = "short",
    seeds: int = SEEDS,
    data: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    variants: Sequence[str] = PAPER_VARIANTS,
) -> Suite:
    """The suite that a command line specifies.

    Args:
        entries: networks, ``NAME[:BOND][@RATE]``; a bond is that of the MPO variant.
        backend: name of what trains.
        images: number of training images of each data set that is needed.
        preset: ``paper`` or ``short``.
        seeds: how many.
        data: name of the data set; None for that of the paper.
        epochs: length in epochs; None for the preset's.
        steps: length in steps, instead.
        variants: what is trained of each network.

    Raises:
        ModelError: an unknown network or a bond that is none.
        RecipeError: another setting makes no sense.
    """
    suite = Suite(backend, preset, networks(entries), seeds, data, epochs, steps, images, tuple(variants))
    suite.trainings()
    return suite


def _network(entry: str) -> Network:
    head, at, rate = entry.partition("@")
    name, colon, bond = head.partition(":")
    if colon and not (bond.isascii() and bond.isdigit()):
        raise ModelError(f"bond of {entry!r} is {bond!r}; expected NAME[:BOND][@RATE], such as fc2:4; correct it")
    if len(bond) > len(str(MAX_BOND)):
        raise ModelError(f"bond of {entry[:60]!r} has {len(bond)} digits; expected at most {MAX_BOND}; correct it")
    number = int(bond) if colon else None
    return Network(build(name, "mpo", number).name, number, _rate(entry, rate) if at else None)


def _rate(entry: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.0 < rate <= MAX_RATE:
        raise RecipeError(
            f"rate of {entry!r} is {text!r}; expected a number above 0 and at most {MAX_RATE:g}; correct it"
        )
    return rate


def default_folder(suite: Suite, usual: Suite) -> Path:
    """Where a suite is kept unless told otherwise.

    Suites of different settings have different folders.

    Args:
        suite: what is trained.
        usual: the suite of the same backend and preset with all else as it is by default.
    """
    name = f"suite-{suite.backend}-{suite.preset}"
    text = to_json([suite.as_dict()[key] for key in ("models", "seeds", "data", "epochs", "steps", "variants")])
    return Path("runs") / (name if suite == usual else f"{name}-{sha256(text.encode()).hexdigest()[:8]}")
