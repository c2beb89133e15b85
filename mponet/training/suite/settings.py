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


@dataclass(frozen=True, slots=True)
class Network:
    """A network of a suite; the suite trains several variants of it.

    Attributes:
        model: a name of `mponet.models.build`.
        bond: of the MPO variant; None for the published one.
    """

    model: str
    bond: int | None

    def __str__(self) -> str:
        return self.model if self.bond is None else f"{self.model}:{self.bond}"


@dataclass(frozen=True, slots=True)
class Training:
    """One training.

    Attributes:
        settings: of its run.
        variant: one of `mponet.models.VARIANTS`.
    """

    settings: Settings
    variant: str

    @property
    def network(self) -> tuple[str, str, int | None]:
        """What it has in common with its likes of other seeds: model, variant and bond."""
        return self.settings.model, self.variant, self.settings.bond

    def __str__(self) -> str:
        """The name, and that of its folder."""
        bond = [] if self.settings.bond is None else [f"D{self.settings.bond}"]
        return "-".join([self.settings.model, self.variant, *bond, f"seed{self.settings.seed}"])

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
            Training(replace(training.settings, seed=seed), training.variant)
            for seed in range(self.seeds)
            for training in once
        )

    def _of_seed_0(self) -> Iterator[Training]:
        for model in dict.fromkeys(network.model for network in self.networks):
            if "dense" in self.variants:
                yield Training(self._settings(model, None), "dense")
            for network in self.networks:
                if network.model == model:
                    settings = self._settings(model, network.bond)
                    yield from (Training(settings, variant) for variant in self.variants if variant != "dense")

    def _settings(self, model: str, bond: int | None) -> Settings:
        data = self.data_of(model)
        return resolve(
            model,
            data=data,
            images=self.images[data],
            preset_name=self.preset,
            epochs=self.epochs,
            steps=self.steps,
            bond=bond,
        )


def data_of(model: str, data: str | None) -> str:
    """Name of the data set that a network is trained on.

    The one asked for, or that of the paper.
    """
    return family(model).data if data is None else data


def networks(entries: Sequence[str]) -> tuple[Network, ...]:
    """The networks that ``NAME`` and ``NAME:BOND`` specify, each once.

    Raises:
        ModelError: an unknown network, or a bond that is not a whole number of at least 1.
    """
    return tuple(dict.fromkeys(_network(entry.strip()) for entry in entries if entry.strip()))


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
        entries: networks, ``NAME`` or ``NAME:BOND``; a bond is that of the MPO variant.
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
    name, colon, bond = entry.partition(":")
    if colon and not (bond.isascii() and bond.isdigit()):
        raise ModelError(f"bond of {entry!r} is {bond!r}; expected NAME or NAME:BOND, such as fc2:4; correct it")
    if len(bond) > len(str(MAX_BOND)):
        raise ModelError(f"bond of {entry[:60]!r} has {len(bond)} digits; expected at most {MAX_BOND}; correct it")
    number = int(bond) if colon else None
    return Network(build(name, "mpo", number).name, number)


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
