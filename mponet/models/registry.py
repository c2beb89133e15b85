"""The networks of the paper as data; `build` makes one, `infer` counts it, `start` initialises it.

A name says everything about a network but its variant and bond: ``resnet56-k2-unit`` is the ResNet
of 56 layers with ``k = 2`` whose last block is replaced, too.  So a name is all that a checkpoint,
a folder or a command has to keep.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from mponet.errors import ModelError
from mponet.models.densenet import densenet, first_width
from mponet.models.fc2 import fc2
from mponet.models.lenet5 import lenet5
from mponet.models.resnet import K, resnet
from mponet.models.spec import Model as Model
from mponet.models.vgg import vgg

VARIANTS = ("dense", "mpo")


@dataclass(frozen=True, slots=True)
class Family:
    """Networks whose names have one pattern.

    Attributes:
        pattern: of the names; its groups say which one.
        spelling: the pattern for people.
        published: names that the paper has results for.
        make: builds one from the match, the variant and the bond.
        title: one line for people.
        data: the data set of the paper.
    """

    pattern: str
    spelling: str
    published: tuple[str, ...]
    make: Callable[["re.Match[str]", str, int | None], Model]
    title: str
    data: str


def _resnet(found: "re.Match[str]", variant: str, bond: int | None) -> Model:
    depth, k = int(found["depth"]), int(found["k"] or K)
    name = f"resnet{depth}" + (f"-k{k}" if k != K else "") + (found["unit"] or "")
    return resnet(name, depth, k, variant, bond, unit=bool(found["unit"]))


def _densenet(found: "re.Match[str]", variant: str, bond: int | None) -> Model:
    depth, k = int(found["depth"]), int(found["k"])
    usual = first_width(depth, k)
    n = int(found["n"] or usual)
    name = f"densenet{depth}-{k}" + (f"-n{n}" if n != usual else "") + (found["conv"] or "")
    return densenet(name, depth, k, n, variant, bond, conv=bool(found["conv"]))


TABLE: dict[str, Family] = {
    "fc2": Family(
        r"fc2(?P<code>-code)?",
        "fc2[-code]",
        ("fc2",),
        lambda found, variant, bond: fc2(variant, bond, code=bool(found["code"])),
        "two fully connected layers, 784-256-10",
        "mnist",
    ),
    "lenet5": Family(
        r"lenet5",
        "lenet5",
        ("lenet5",),
        lambda _, variant, bond: lenet5(variant, bond),
        "LeNet-5 with ReLU and max pooling",
        "mnist",
    ),
    "vgg": Family(
        r"vgg(?P<depth>16|19)",
        "vgg16, vgg19",
        ("vgg16", "vgg19"),
        lambda found, variant, bond: vgg(int(found["depth"]), variant, bond),
        "VGG with pre-activation",
        "cifar10",
    ),
    "resnet": Family(
        r"resnet(?P<depth>\d+)(-k(?P<k>\d+))?(?P<unit>-unit)?",
        "resnet<6n+2>[-k<K>][-unit]",
        (*(f"resnet{depth}" for depth in (14, 20, 26, 32, 38, 44, 50, 56, 86, 104, 110, 116)), "resnet56-unit"),
        _resnet,
        "wide ResNet with pre-activation",
        "cifar10",
    ),
    "densenet": Family(
        r"densenet(?P<depth>\d+)-(?P<k>\d+)(-n(?P<n>\d+))?(?P<conv>-conv)?",
        "densenet<3m+4>-<k>[-n<N>][-conv]",
        ("densenet40-12", "densenet40-24", "densenet100-12", "densenet100-24", "densenet40-12-conv"),
        _densenet,
        "DenseNet without bottleneck",
        "cifar10",
    ),
}


def family(name: str) -> Family:
    """The family that a network's name belongs to.

    Raises:
        ModelError: none has such names.
    """
    return _read(name)[0]


def family_name(name: str) -> str:
    """The key in `TABLE` of the family that a network's name belongs to.

    Raises:
        ModelError: none has such names.
    """
    one = family(name)
    return next(key for key, entry in TABLE.items() if entry is one)


def known() -> str:
    """All names, for people."""
    return ", ".join(one.spelling for one in TABLE.values())


def published() -> tuple[str, ...]:
    """The networks that the paper has results for."""
    return tuple(name for one in TABLE.values() for name in one.published)


def build(name: str, variant: str = "mpo", bond: int | None = None) -> Model:
    """The network ``name``.

    Args:
        name: ``fc2`` (``-code`` for the factors of the authors' code), ``lenet5``, ``vgg16``,
            ``vgg19``, ``resnet20`` (any 6n + 2; ``-k1`` for another width than 4, ``-unit`` to
            replace the last block, too), ``densenet40-12`` (any 3m + 4 and k; ``-n24`` for another
            first width, ``-conv`` to replace the last convolution, too).  The model's own name
            leaves out what goes without saying: ``resnet20-k4`` is ``resnet20``.
        variant: ``dense`` or ``mpo``.
        bond: bond dimension of its operators; None for the published one.

    Raises:
        ModelError: an unknown name or variant, or a bond for the dense variant.
    """
    one, found = _read(name)
    if variant not in VARIANTS:
        raise ModelError(f"variant is {variant!r}; expected one of {', '.join(VARIANTS)}")
    if bond is not None and variant == "dense":
        raise ModelError(
            f"bond is {bond} for the dense variant of {name}; expected none; a bond belongs to variant mpo"
        )
    if bond is not None and bond < 1:
        raise ModelError(f"bond is {bond}; expected a whole number of at least 1")
    return one.make(found, variant, bond)


def named(name: str, k: int | None = None, *, unit: bool = False, conv: bool = False) -> str:
    """The full name where a part is said beside it: ``resnet20``, ``k = 2`` and ``unit`` are ``resnet20-k2-unit``.

    Args:
        name: of the network, as in `build`.
        k: widening factor of a ResNet; None for what the name says.
        unit: whether the MPO variant of a ResNet replaces the last block, too.
        conv: whether that of a DenseNet replaces the last convolution, too.

    Raises:
        ModelError: no such network, or its family has no such choice.
    """
    one, found = _read(name)
    for option, asked, owner in (("k", k is not None, "resnet"), ("unit", unit, "resnet"), ("conv", conv, "densenet")):
        if asked and one is not TABLE[owner]:
            raise ModelError(f"{option} is given for {name}; expected a network of the {owner} family; leave it out")
    if k is not None:
        if found["k"] not in (None, str(k)):
            raise ModelError(f"k is {k} for {name}; expected {found['k']}, as in its name; leave one of them out")
        name = f"resnet{found['depth']}-k{k}{found['unit'] or ''}"
    for suffix, asked in (("-unit", unit), ("-conv", conv)):
        name = name.removesuffix(suffix) + suffix if asked else name
    return build(name).name


def _read(name: str) -> tuple[Family, "re.Match[str]"]:
    for one in TABLE.values():
        if found := re.fullmatch(one.pattern, name):
            return one, found
    raise ModelError(f"model is {name!r}; expected one of {known()}")
