"""Refuse a network that cannot fit the memory before anything of it is built."""

import os

from mponet.errors import RecipeError
from mponet.models.shapes import parameter_count
from mponet.models.spec import Model
from mponet.recipe import Recipe


def check_memory(model: Model, recipe: Recipe) -> None:
    """Compare what the parameters need with the memory of this machine.

    Counted are the starting values in float64 and, in float32, parameters, gradients and what the
    optimiser keeps; activations need more, so training may still run out of memory.

    Raises:
        RecipeError: they need more than there is; says how much.
    """
    copies = 2 + bool(recipe.momentum) + bool(recipe.average)
    count, total = parameter_count(model), physical_memory()
    needed = count * (8 + 4 * copies)
    if total is not None and needed > total:
        raise RecipeError(
            f"{model.name} ({model.variant}) has {count} parameters; training takes about {needed / 2**30:.1f} GiB "
            f"and this machine has {total / 2**30:.1f} GiB; choose a smaller network or bond"
        )


def physical_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
