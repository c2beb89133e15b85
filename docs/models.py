"""Writes docs/models.md to standard output, every figure from the models themselves: ``models.py > docs/models.md``."""

from collections.abc import Iterable, Iterator
from math import prod

from mponet.cli.facts import listed
from mponet.models import build, published, shapes
from mponet.models.densenet import LAST_CONV
from mponet.models.outline import Line, count, joined, outline

HEAD = """# Networks

    python docs/models.py > docs/models.md

makes this page from the networks as they are in `mponet/models/`; a test compares the two.  `mponet info` prints the
first table, `mponet info MODEL` all that there is to say about one network, `mponet draw MODEL` its picture.

All are from Gao et al., Phys. Rev. Research 2, 023300 (2020).  Where its text and the authors' code differ, the text
rules; where the text says nothing, the code does; an option with a name has the other.  Each network has two variants:
`dense`, the normal one, and `mpo`, in which some layers are operators.

*Parameters* are all that training changes: biases, and scales and shifts of batch norms, included.  Running statistics
are none, and counted apart.  *rho* is the paper's compression ratio (Eq. 9): weights of the operators over the weights
that they stand for, nothing else.  *Ratio* is the whole MPO-Net over the whole normal network.  *Products* are
multiplications of the normal network for one image, in millions.

## All networks

| network | data | normal | MPO-Net | ratio | operators | stand for | rho | products | source |
|---|---|---|---|---|---|---|---|---|---|"""

MAPS = """
## What "MPO convolution" means here

The paper turns two convolutions of each VGG, and optionally the last ones of ResNet and DenseNet, into operators, and
these are **no convolutions**.  The whole feature map (height, width, channels) is flattened, height slowest and
channels fastest, multiplied by one operator of *height x width x channels* inputs, given one bias per output, and read
as a map again.  Positions share no weights, and every output sees every input; nor is a kernel decomposed, as in
Garipov et al. (2016), which is another model.  In `mponet.models.spec` it is what it is: `Flatten`, `Dense` with an
operator, `Reshape` (`global_maps`).

Between two such maps the authors' code stays flat, so the batch norm there is one over all values of the map, with a
scale and a shift for each, and not one over channels.

rho counts the *kernel* that was there (height x width x in x out), not the far larger matrix of the convolution; it
counts neither the new biases nor the new batch norm."""

FC2 = """
## FC2

`fc2`, or `fc2-code`.  MNIST; Fig. 2.  The factors are the paper's; the bond of the first operator is what Fig. 2 varies
and `--bond` sets, the second keeps 4.  The default, {bond}, is where the paper's MPO-Net reaches the normal network."""

FC2_QUIRKS = """
- The normal network has no biases and the MPO-Net has {biases}, as in the authors' code; rho counts none.
- The text splits the outputs of the second operator as 1, 1, 10, 1, the authors' code as 1, 10, 1, 1: `fc2-code` has
  the latter, with as many weights.
- Bonds are clamped to what the operator can use, which Fig. 2 does, too, and the authors' code does not: a bond of 22
  becomes {clamped} in the first operator."""

LENET5 = """
## LeNet-5

`lenet5`.  MNIST; Table I.  `--bond` is asked of all three operators; the published ones are {bonds}."""

LENET5_QUIRKS = """
- ReLU and largest-value pooling, not the tanh and averages of 1998.
- The third convolution covers the whole of its 5 x 5 map: it is a fully connected layer, and the MPO-Net writes it as
  one.
- The fully connected layers have no biases in the normal network and have them in the MPO-Net (authors' code)."""

VGG = """
## VGG-16 and VGG-19

`vgg16`, `vgg19`.  CIFAR-10; Table I.  A unit is batch norm, ReLU, convolution without bias.  In VGG-16 the first two
convolutions of the last stage become operators, in VGG-19 the last two, and in both all three fully connected layers.
`--bond` is asked of all five operators; the published bond is 4."""

VGG_QUIRKS = """
- VGG-16 is configuration C: the third convolutions of stages 3 to 5 are 1 x 1.
- Batch norm and ReLU stand in front of every convolution, so also on the input image.
- There is none between the last pooling and the fully connected layers, nor among these.
- Dropout of {dropout} behind the first two fully connected layers.  The authors' code never turns it off, so that their
  accuracies are those of a network that drops at random; here evaluation is without, as usual.
- Biases of the MPO-Nets: both maps have them; of the fully connected operators the first two in VGG-16, none in VGG-19.
- The batch norm between the two maps is over {flat} values.
- The operators are {share} of the weights of VGG-16's MPO-Net: its size is that of the convolutions that stay."""

RESNET = """
## ResNet

`resnet14`, `resnet20`, ... (any depth 6n + 2), `-k<K>` for another widening factor than 4, `-unit`; on the command line
also `--k K --unit`.  CIFAR-10; Fig. 3; `-unit` is in the text, for 56 layers.  A wide ResNet with pre-activation: three
groups of n blocks, 16k, 32k and 64k features wide.  The table shows n = 3; more blocks make the ranges longer."""

RESNET_QUIRKS = """
- The first block of every group projects its shortcut, also in the first group, whose map keeps its size: 16 features
  become 16k.  The projection starts behind the block's first batch norm and ReLU.
- The operator of the head stands behind a further batch norm and ReLU and has no bias (the authors' code of January
  2019, the one that runs).
- With the head alone, the MPO-Net is {head} of the normal network: its accuracy says little about compression.
- `-unit` replaces both convolutions of the last block by maps of the whole 8 x 8 feature map.  Their biases and the
  batch norm between them are {brought} parameters that rho does not count, {times} times as many as the {kept} weights
  of all operators.
- The head's factors are 4, 4, 4, k for any k.  Those of the unit are published for k = 4 only; for another k the map is
  split in eight as evenly as can be."""

DENSENET = """
## DenseNet

`densenet40-12`, ... : depth 3m + 4 and growth k; `-n<N>` for another first width, `-conv`; on the command line also
`--conv`.  CIFAR-10; Table II; `-conv` is in the text.  Three dense blocks of m layers, no bottleneck, and transitions
that keep all features (the authors' code has a flag to reduce them and does not use it).  The first width n is the
published row's, else 2k."""

DENSENET_QUIRKS = """
- The operator of the head stands behind a further batch norm and ReLU and has no bias, as in the ResNets.
- `densenet100-24` needs n = 96, not 2k = 48: the paper's factors make 2400 features.
- Where the paper has no factors for the head, its inputs are split in four as evenly as can be; a large prime in them
  makes an operator that saves nothing, and rho says so.
- `-conv` replaces the last convolution by a map of the whole 8 x 8 feature map.  The paper's input factors make
  {padded} values, the layer has {inputs}: {channels} channels of zeros are put behind the others.  That is our guess,
  as the paper does not say.  It prints rho = 0.497 for this network, which we found no way to count: here it is {rho},
  and without clamping the bonds it would be {unclamped}."""


def page() -> Iterator[str]:
    """The page, line by line."""
    yield HEAD
    yield from map(_network, published())
    yield MAPS
    yield FC2.format(bond=_operators("fc2")[0].shape.bond_dims[1])
    yield from (*_layers("fc2"), *_replaced("fc2", "fc2-code"))
    clamped = ", ".join(map(str, _operators("fc2", 22)[0].shape.bond_dims[1:-1]))
    yield FC2_QUIRKS.format(biases=shapes.counts(build("fc2")).biases, clamped=clamped)
    yield LENET5.format(bonds=", ".join(str(max(each.shape.bond_dims)) for each in _operators("lenet5")))
    yield from (*_layers("lenet5"), *_replaced("lenet5"), LENET5_QUIRKS, VGG)
    yield from (*_layers("vgg16"), *_layers("vgg19"), *_replaced("vgg16", "vgg19"), _vgg_quirks(), RESNET)
    yield from (*_layers("resnet20"), *_replaced("resnet20", "resnet56-unit"), _resnet_quirks(), DENSENET)
    names = [name for name in published() if name.startswith("densenet")]
    yield from (*_layers("densenet40-12"), *_replaced(*names), _densenet_quirks())


def _network(name: str) -> str:
    facts, millions = listed(name), sum(info.multiplications for info in shapes.layers(build(name, "dense"))) / 1e6
    kept = sum(each.shape.parameters for each in _operators(name))
    replaced = sum(each.replaced_weights for each in _operators(name))
    cells = (
        f"`{name}`",
        facts["data"],
        count(facts["dense_parameters"]),
        count(facts["parameters"]),
        f"{facts['parameter_ratio']:.4f}",
        count(kept),
        count(replaced),
        f"{facts['rho']:.3g}",
        f"{millions:.3g}" if millions < 100 else count(round(millions)),
        facts["source"],
    )
    return _row(cells)


def _layers(name: str) -> Iterator[str]:
    """The layers of the normal network; blocks that are alike folded and counted together."""
    model = build(name, "dense")
    height, width, channels = model.input_shape
    yield f"\nThe normal `{name}`, from an image of {height} x {width} x {channels}:\n"
    yield from ("| layer | kind | output | parameters |", "|---|---|---|---|", *_lines(outline(model), ""))


def _lines(lines: Iterable[Line], mark: str) -> Iterator[str]:
    for line, *activations in joined(lines):
        titles = ", ".join(one.title for one in (line, *activations))
        yield _row((mark + line.name, titles, line.output, count(line.parameters) if line.parameters else ""))
        for branch, inner in zip(line.branches, ("· ", "+ "), strict=False):
            yield from _lines(branch, mark + inner)


def _replaced(*names: str) -> Iterator[str]:
    """The operators of MPO-Nets."""
    yield "\nThe operators of the MPO-Net:\n"
    yield "| network | layer | operator, outputs above inputs | bonds | bias | weights | stand for |"
    yield "|---|---|---|---|---|---|---|"
    for name in names:
        parameters = shapes.parameter_shapes(build(name, "mpo"))
        for each in _operators(name):
            outputs, inputs = (" ".join(map(str, dims)) for dims in (each.shape.output_dims, each.shape.input_dims))
            bonds = " ".join(map(str, each.shape.bond_dims[1:-1]))
            bias = "yes" if f"{each.name}/bias" in parameters else "no"
            weights = count(each.shape.parameters), count(each.replaced_weights)
            yield _row((f"`{name}`", each.name, f"{outputs} / {inputs}", bonds, bias, *weights))


def _vgg_quirks() -> str:
    model = build("vgg16")
    kept = sum(each.shape.parameters for each in _operators("vgg16"))
    rate = next(info.layer.rate for info in shapes.leaves(model) if info.kind == "Dropout")
    flat = _operators("vgg16")[0].shape.out_features
    return VGG_QUIRKS.format(dropout=rate, flat=count(flat), share=f"{kept / shapes.counts(model).weights:.1%}")


def _resnet_quirks() -> str:
    kept = sum(each.shape.parameters for each in _operators("resnet56-unit"))
    brought = sum(
        prod(shape)
        for name, shape in shapes.parameter_shapes(build("resnet56-unit")).items()
        if name.startswith("group3_block9_") and ("/bias" in name or "bn2/" in name)
    )
    ratio = f"{listed('resnet20')['parameter_ratio']:.2%}"
    return RESNET_QUIRKS.format(head=ratio, brought=count(brought), kept=count(kept), times=brought // kept)


def _densenet_quirks() -> str:
    conv, head = (each.shape for each in _operators("densenet40-12-conv"))
    last = LAST_CONV[16, 12, 12]
    bonds = (1, *(last.bond,) * (len(last.inputs) - 1), 1)
    loose = sum(map(prod, zip(bonds, last.inputs, last.outputs, bonds[1:], strict=False)))
    replaced = sum(each.replaced_weights for each in _operators("densenet40-12-conv"))
    return DENSENET_QUIRKS.format(
        channels=last.channels,
        padded=f"8 x 8 x {conv.in_features // 64}",
        inputs=f"8 x 8 x {conv.in_features // 64 - last.channels}",
        rho=f"{(conv.parameters + head.parameters) / replaced:.2f}",
        unclamped=f"{(loose + head.parameters) / replaced:.2f}",
    )


def _operators(name: str, bond: int | None = None) -> tuple[shapes.Operator, ...]:
    return shapes.operators(build(name, "mpo", bond))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(page()))
