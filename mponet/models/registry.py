"""The networks of the paper by name.

A name gives everything about a network but its variant and bond dimension: ``resnet56-k2-unit`` is
the ResNet of 56 layers with ``k = 2`` whose last block is replaced as well.  Checkpoints, folders
and commands keep only the name.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from mponet.errors import ModelError
from mponet.models.densenet import densenet, first_width
from mponet.models.fc2 import fc2
from mponet.models.lenet5 import lenet5
from mponet.models.low_rank import low_rank
from mponet.models.resnet import K, resnet
from mponet.models.spec import Model as Model
from mponet.models.vgg import vgg

VARIANTS = ("dense", "mpo", "low-rank")
PAPER_VARIANTS = ("dense", "mpo")
LARGEST = {"depth": 2000, "k": 1000, "n": 10_000}  # layers, widening or growth, first width; published: 1202, 48


@dataclass(frozen=True, slots=True)
class Family:
    """Networks whose names follow one pattern.

    Attributes:
        name: name of the family.
        pattern: regular expression of the names; its groups hold the sizes of the network.
        spelling: the pattern as users read it.
        published: names that the paper has results for.
        make: builds a network from the match, the variant and the bond dimension.
        title: description in one line.
        data: data set that the paper trains on.
    """

    name: str
    pattern: str
    spelling: str
    published: tuple[str, ...]
    make: Callable[["re.Match[str]", str, int | None], Model]
    title: str
    data: str


def _resnet(match: "re.Match[str]", variant: str, bond: int | None) -> Model:
    depth, k = _number(match, "depth"), _number(match, "k", K)
    name = f"resnet{depth}" + (f"-k{k}" if k != K else "") + (match["unit"] or "")
    return resnet(name, depth, k, variant, bond, unit=bool(match["unit"]))


def _densenet(match: "re.Match[str]", variant: str, bond: int | None) -> Model:
    depth, k = _number(match, "depth"), _number(match, "k")
    default = first_width(depth, k)
    n = _number(match, "n", default)
    name = f"densenet{depth}-{k}" + (f"-n{n}" if n != default else "") + (match["conv"] or "")
    return densenet(name, depth, k, n, variant, bond, conv=bool(match["conv"]))


def _number(match: "re.Match[str]", name: str, default: int | None = None) -> int:
    """A number of a network's name.

    One that asks for more than any machine holds is refused before it is built.
    """
    text = match[name]
    if text is None and default is not None:
        return default
    if len(text.lstrip("0")) > len(str(LARGEST[name])) or int(text) > LARGEST[name]:
        shown = text if len(text) <= 20 else f"a number of {len(text)} digits"
        raise ModelError(f"{name} of the network is {shown}; expected at most {LARGEST[name]}; choose a smaller one")
    return int(text)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "fc2",
            r"fc2(?P<code>-code)?",
            "fc2[-code]",
            ("fc2",),
            lambda match, variant, bond: fc2(variant, bond, code=bool(match["code"])),
            "two fully connected layers, 784-256-10",
            "mnist",
        ),
        Family(
            "lenet5",
            r"lenet5",
            "lenet5",
            ("lenet5",),
            lambda _, variant, bond: lenet5(variant, bond),
            "LeNet-5 with ReLU and max pooling",
            "mnist",
        ),
        Family(
            "vgg",
            r"vgg(?P<depth>16|19)",
            "vgg16, vgg19",
            ("vgg16", "vgg19"),
            lambda match, variant, bond: vgg(int(match["depth"]), variant, bond),
            "VGG with pre-activation",
            "cifar10",
        ),
        Family(
            "resnet",
            r"resnet(?P<depth>\d+)(-k(?P<k>\d+))?(?P<unit>-unit)?",
            "resnet<6n+2>[-k<K>][-unit]",
            (*(f"resnet{depth}" for depth in (14, 20, 26, 32, 38, 44, 50, 56, 86, 104, 110, 116)), "resnet56-unit"),
            _resnet,
            "wide ResNet with pre-activation",
            "cifar10",
        ),
        Family(
            "densenet",
            r"densenet(?P<depth>\d+)-(?P<k>\d+)(-n(?P<n>\d+))?(?P<conv>-conv)?",
            "densenet<3m+4>-<k>[-n<N>][-conv]",
            ("densenet40-12", "densenet40-24", "densenet100-12", "densenet100-24", "densenet40-12-conv"),
            _densenet,
            "DenseNet without bottleneck",
            "cifar10",
        ),
    )
}


def family(name: str) -> Family:
    """The family of the network ``name``.

    Raises:
        ModelError: no family has such names.

    >>> family("resnet20").data
    'cifar10'
    """
    return _read(name)[0]


def spellings() -> str:
    """The patterns of all names, as users read them."""
    return ", ".join(family.spelling for family in FAMILIES.values())


def published() -> tuple[str, ...]:
    """Names of the networks that the paper has results for.

    >>> published()[:4]
    ('fc2', 'lenet5', 'vgg16', 'vgg19')
    """
    return tuple(name for family in FAMILIES.values() for name in family.published)


def build(name: str, variant: str = "mpo", bond: int | None = None) -> Model:
    """The network ``name``.

    Args:
        name: ``fc2`` (``-code`` for the factors of the authors' code), ``lenet5``, ``vgg16``,
            ``vgg19``, ``resnet20`` (any 6n + 2; ``-k1`` for another width than 4, ``-unit`` to
            replace the last block as well), ``densenet40-12`` (any 3m + 4 and k; ``-n24`` for
            another first width, ``-conv`` to replace the last convolution as well).  The name of
            the model omits defaults: ``resnet20-k4`` becomes ``resnet20``.
        variant: ``dense``, ``mpo``, or ``low-rank`` for operators with factors of one whose weights
            are nearest to those of the MPO variant.
        bond: bond dimension of the operators of the MPO variant; None for the published ones.

    Raises:
        ModelError: the name or the variant is unknown, the bond dimension is below 1, or a bond
            dimension is given for the dense variant.

    >>> model = build("resnet20-k4", "mpo", bond=2)
    >>> model.name, model.variant, model.bond
    ('resnet20', 'mpo', 2)
    """
    _read(name)
    if variant not in VARIANTS:
        raise ModelError(f"variant is {variant!r}; expected one of {', '.join(VARIANTS)}")
    if bond is not None and variant == "dense":
        raise ModelError(
            f"bond is {bond} for the dense variant of {name}; expected none; only mpo and low-rank have one"
        )
    if bond is not None and bond < 1:
        raise ModelError(f"bond is {bond}; expected a whole number of at least 1")
    return _made(name, variant, bond)


@lru_cache(maxsize=64)
def _made(name: str, variant: str, bond: int | None) -> Model:
    """The network, which does not change: the settings of a suite's trainings share few of them."""
    found, match = _read(name)
    if variant == "low-rank":
        return low_rank(found.make(match, "mpo", bond))
    return found.make(match, variant, bond)


def full_name(name: str, k: int | None = None, *, unit: bool = False, conv: bool = False) -> str:
    """The name with options included.

    Args:
        name: name of a network, as for `build`.
        k: widening factor of a ResNet; None keeps that of the name.
        unit: whether the MPO variant of a ResNet replaces the last block as well.
        conv: whether the MPO variant of a DenseNet replaces the last convolution as well.

    Raises:
        ModelError: there is no such network, or its family does not have the option.

    >>> full_name("resnet20", k=2, unit=True)
    'resnet20-k2-unit'
    """
    found, match = _read(name)
    for option, given, owner in (("k", k is not None, "resnet"), ("unit", unit, "resnet"), ("conv", conv, "densenet")):
        if given and found.name != owner:
            raise ModelError(f"{option} is given for {name}; expected a network of the {owner} family; leave it out")
    if k is not None:
        if match["k"] not in (None, str(k)):
            raise ModelError(f"k is {k} for {name}; expected {match['k']}, as in its name; leave one of them out")
        name = f"resnet{match['depth']}-k{k}{match['unit'] or ''}"
    for suffix, given in (("-unit", unit), ("-conv", conv)):
        name = name.removesuffix(suffix) + suffix if given else name
    return build(name).name


def _read(name: str) -> tuple[Family, "re.Match[str]"]:
    for candidate in FAMILIES.values():
        if match := re.fullmatch(candidate.pattern, name):
            return candidate, match
    raise ModelError(f"model is {name!r}; expected one of {spellings()}")
