"""What a run is, as data: everything that decides its result, apart from the machine.

A preset counts its steps on the data set of the paper.  On another one it keeps its number of
*epochs*, and what it does per epoch, but trains at least `FEWEST` steps, since an epoch of a small
set is next to nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mponet.errors import MPONetError, RecipeError
from mponet.models import VARIANTS, build, family
from mponet.models.spec import Model
from mponet.recipe import Recipe, preset
from mponet.training.schema import MAX_INTEGER, Count, Name, Positive, convert_exactly

MAX_BOND = 1_000_000  # far beyond any bond that an operator keeps
FEWEST = 500  # on the digits more steps bring nothing but time
PUBLISHED = {"mnist": 60_000, "cifar10": 50_000}  # training images of the data sets that presets are written for


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a run must have in common with the one it resumes.

    Attributes:
        model: a name of `mponet.models.build`.
        bond: bond dimension of the MPO variant; None for the published one.
        data: name of the data set.
        recipe: how to train; its name is that of the preset.
        seed: of the starting values and of the batch order, from 0.
        networks: the networks by variant, built once; ``dense`` has no bond dimension.
    """

    model: str
    bond: int | None
    data: str
    recipe: Recipe
    seed: int
    networks: Mapping[str, Model] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_INTEGER:
            raise RecipeError(f"seed is {self.seed}; expected 0 to {MAX_INTEGER}; choose another")
        if self.bond is not None and self.bond > MAX_BOND:
            raise RecipeError(f"bond is {self.bond}; expected at most {MAX_BOND}; choose a smaller one")
        networks = {
            variant: build(self.model, variant, None if variant == "dense" else self.bond) for variant in VARIANTS
        }
        object.__setattr__(self, "networks", networks)

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {
            "model": self.model,
            "bond": self.bond,
            "data": self.data,
            "recipe": self.recipe.as_dict(),
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class SettingsDocument:
    """`Settings.as_dict` as files hold it."""

    model: Name
    bond: Positive | None
    data: Name
    recipe: Recipe
    seed: Count


def from_dict(values: dict[str, Any]) -> Settings:
    """The inverse of `Settings.as_dict`.

    Fields that an older mponet did not write have their defaults.

    Raises:
        RecipeError: they are not the settings of a run, or those of a newer mponet.
    """
    try:
        document = convert_exactly(values, SettingsDocument)
    except MPONetError:
        raise
    except ValueError as error:
        raise RecipeError(
            f"the settings are not usable ({error}); expected those of a training; start it anew, or read it with a "
            "newer mponet"
        ) from error
    return Settings(document.model, document.bond, document.data, document.recipe, document.seed)


def resolve(
    model: str,
    *,
    data: str,
    images: int,
    preset_name: str = "short",
    epochs: int | None = None,
    steps: int | None = None,
    bond: int | None = None,
    seed: int = 0,
    rate: float | None = None,
) -> Settings:
    """The settings that a command line specifies.

    Args:
        model: a name of `mponet.models.build`.
        data: name of the data set.
        images: number of its training images.
        preset_name: ``paper`` or ``short``.
        epochs: length in epochs of this data set; None for the preset's.
        steps: length in steps, instead.
        bond: bond dimension of the MPO variant; None for the published one.
        seed: from 0.
        rate: learning rate at the start; None for the preset's.

    Raises:
        ModelError: an unknown model, or a bond below 1.
        RecipeError: an unknown preset, epochs and steps together, or a number out of range.
    """
    build(model)
    recipe = fitted(preset(model, preset_name, bond), model, images)
    if rate is not None:
        recipe = replace(recipe, learning_rate=rate)
    if epochs is not None and steps is not None:
        raise RecipeError(f"epochs is {epochs} and steps is {steps}; expected one of them; leave one out")
    if epochs is not None:
        recipe = replace(recipe, steps=epochs * _per_epoch(images, recipe))
    if steps is not None:
        recipe = replace(recipe, steps=steps)
    return Settings(model, bond, data, recipe, seed)


def fitted(recipe: Recipe, model: str, images: int) -> Recipe:
    """A preset of ``model`` for ``images`` images.

    As many epochs, at least `FEWEST` steps, equal decay in each.
    """
    here, there = _per_epoch(images, recipe), PUBLISHED[family(model).data] // recipe.batch
    if here == there:
        return recipe
    steps = max(recipe.steps * here // there, min(FEWEST, recipe.steps))
    return replace(recipe, steps=steps, decay_steps=max(recipe.decay_steps * here // there, 1))


def default_folder(settings: Settings, backend: str, *, epochs: int | None = None, steps: int | None = None) -> Path:
    """Where a run is kept unless told otherwise; runs of different settings have different folders.

    Args:
        settings: of the run.
        backend: name of the framework.
        epochs: asked for in place of the preset's length, as for `resolve`.
        steps: likewise.
    """
    lengths = ((settings.bond, "D{}"), (epochs, "{}epochs"), (steps, "{}steps"), (settings.seed, "seed{}"))
    parts = [form.format(value) for value, form in lengths if value is not None]
    return Path("runs") / "-".join([settings.model, settings.data, backend, settings.recipe.name, *parts])


def differences(wanted: dict[str, Any], found: dict[str, Any], prefix: str = "") -> list[str]:
    """Where two settings differ, one line each: ``recipe.steps is 100, was 200``."""
    lines = []
    for key in dict.fromkeys((*wanted, *found)):
        new, old = wanted.get(key), found.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            lines += differences(new, old, f"{prefix}{key}.")
        elif new != old:
            lines.append(f"{prefix}{key} is {new!r}, was {old!r}")
    return lines


def _per_epoch(images: int, recipe: Recipe) -> int:
    return max(images // recipe.batch, 1)
