"""Writes docs/models.md from the models: ``python docs/models.py > docs/models.md``."""

from collections.abc import Iterable, Iterator
from math import prod

from mponet.cli.facts import listed
from mponet.models import build, published, shapes
from mponet.models.densenet import LAST_CONV
from mponet.models.outline import Line, count, joined, outline

HEAD = """# Networks

    python docs/models.py > docs/models.md

makes this page from the networks in `mponet/models/`; a test compares the two. `mponet info`
prints the first table, `mponet info MODEL` everything about one network, `mponet draw MODEL` its
picture.

All networks are from Gao et al., Phys. Rev. Research 2, 023300 (2020). Where the text of the
paper and the authors' code differ, we follow the text. Where the text says nothing, we follow the
code. Named options give the alternatives. Each network has two variants: `dense`, and `mpo`, in
which some layers are operators.

*Parameters* are all numbers that training changes, including biases and the scales and shifts of
batch norms. Running statistics are counted separately. *rho* is the compression ratio of the
paper (Eq. 9): the weights of the operators over the weights that they replace. *Ratio* is the
number of parameters of the mpo variant over that of the dense variant. *Products* are the
multiplications of the dense variant for one image, in millions.

## All networks

| network | data | dense | mpo | ratio | operators | replaced | rho | products | source |
|---|---|---|---|---|---|---|---|---|---|"""

MAPS = """
## What "MPO convolution" means here

The paper replaces two convolutions of each VGG by operators, and optionally the last convolutions
of ResNet and DenseNet. These operators are **not convolutions**. The whole feature map (height,
width, channels) is flattened, with the channels fastest. It is multiplied by one operator with
*height x width x channels* inputs, gets one bias per output, and is read as a feature map again.
Positions do not share weights, and every output depends on every input. Garipov et al. (2016)
decompose the kernel of a convolution instead; that is another model. In `mponet.models.spec` such
a layer is `Flatten`, `Dense` with an operator, `Reshape` (`global_maps`).

Between two such layers the authors' code stays flat. The batch norm there is over all values of
the feature map, with a scale and a shift for each value, and not over channels.

rho counts the weights of the *kernel* that is replaced (height x width x in x out), not the far
larger matrix of the convolution. It counts neither the new biases nor the new batch norm."""

FC2 = """
## FC2

`fc2`, or `fc2-code`. MNIST; Fig. 2. The factors are those of the paper. Fig. 2 varies the bond of
the first operator, which `--bond` sets; the second operator keeps bond 4. At the default, {bond},
the mpo variant of the paper reaches the accuracy of the dense variant."""

FC2_QUIRKS = """
- The dense variant has no biases and the mpo variant has {biases}, as in the authors' code. rho
  does not count them.
- The text factorises the outputs of the second operator as 1, 1, 10, 1, the authors' code as 1,
  10, 1, 1. `fc2-code` has the latter, with the same number of weights.
- Bonds are reduced to what the operator can use. Fig. 2 does so, the authors' code does not: a
  bond of 22 becomes {clamped} in the first operator."""

LENET5 = """
## LeNet-5

`lenet5`. MNIST; Table I. `--bond` applies to all three operators; the published bonds are
{bonds}."""

LENET5_QUIRKS = """
- ReLU and max pooling, not the tanh and average pooling of 1998.
- The third convolution covers its whole 5 x 5 feature map. It is a fully connected layer, and the
  mpo variant writes it as one.
- The fully connected layers have no biases in the dense variant and have biases in the mpo
  variant (authors' code)."""

VGG = """
## VGG-16 and VGG-19

`vgg16`, `vgg19`. CIFAR-10; Table I. A unit is batch norm, ReLU, convolution without bias. The
operators replace all three fully connected layers and two convolutions of the last stage: the
first two in VGG-16, the last two in VGG-19. `--bond` applies to all five operators; the published
bond is 4."""

VGG_QUIRKS = """
- VGG-16 is configuration C: the third convolutions of stages 3 to 5 are 1 x 1.
- Batch norm and ReLU come before every convolution, so also before the first, on the input image.
- There are none between the last pooling and the fully connected layers, nor between these.
- Dropout of {dropout} after the first two fully connected layers. The authors' code never turns
  it off, so their accuracies are those of a network that drops at random. Here evaluation is
  without dropout, as usual.
- Biases of the mpo variants: both replaced convolutions have them; of the fully connected
  operators the first two in VGG-16 have them, and none in VGG-19.
- The batch norm between the two replaced convolutions is over {flat} values.
- The operators are {share} of the weights of the mpo variant of VGG-16: its size is that of the
  convolutions that stay."""

RESNET = """
## ResNet

`resnet14`, `resnet20`, ... (any depth 6n + 2), `-k<K>` for another widening factor than 4,
`-unit`; on the command line also `--k K --unit`. CIFAR-10; Fig. 3; `-unit` is described in the
text, for 56 layers. A wide ResNet with pre-activation: three groups of n blocks with 16k, 32k and
64k features. The table shows n = 3; with more blocks the ranges are longer."""

RESNET_QUIRKS = """
- The first block of every group projects its shortcut. This includes the first group, whose
  feature map keeps its size: 16 features become 16k. The projection starts after the first batch
  norm and ReLU of the block.
- The operator of the head comes after another batch norm and ReLU and has no bias (the authors'
  code of January 2019, the version that runs).
- With the head alone, the mpo variant has {head} of the parameters of the dense variant. Its
  accuracy says little about compression.
- `-unit` replaces both convolutions of the last block by operators on the whole 8 x 8 feature
  map. Their biases and the batch norm between them add {brought} parameters that rho does not
  count, {times} times as many as the {kept} weights of all operators.
- The factors of the head are 4, 4, 4, k for any k. The factors of the unit are published for k =
  4 only; for another k the feature map is factorised into eight factors that are as equal as
  possible."""

DENSENET = """
## DenseNet

`densenet40-12`, ...: depth 3m + 4 and growth k; `-n<N>` for another first width, `-conv`; on the
command line also `--conv`. CIFAR-10; Table II; `-conv` is described in the text. Three dense
blocks of m layers, without a bottleneck. The transitions keep all features; the authors' code has
an option to reduce them and does not use it. The first width n is that of the published row,
otherwise 2k."""

DENSENET_QUIRKS = """
- The operator of the head comes after another batch norm and ReLU and has no bias, as in the
  ResNets.
- `densenet100-24` needs n = 96, not 2k = 48: the factors of the paper make 2400 features.
- Where the paper has no factors for the head, its inputs are factorised into four factors that
  are as equal as possible. A large prime factor makes an operator that saves nothing, and rho
  shows it.
- `-conv` replaces the last convolution by an operator on the whole 8 x 8 feature map. The input
  factors of the paper make {padded} values, but the layer has {inputs}: {channels} channels of
  zeros are added after the others. That is our guess, because the paper does not say. The paper
  prints rho = 0.497 for this network. We found no way of counting that gives this number: we
  count {rho}, and {unclamped} without reducing the bonds."""


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
    """The layers of the dense variant; equal blocks are one row with a count."""
    model = build(name, "dense")
    height, width, channels = model.input_shape
    yield f"\nThe dense variant of `{name}`, for an image of {height} x {width} x {channels}:\n"
    yield from ("| layer | kind | output | parameters |", "|---|---|---|---|", *_lines(outline(model), ""))


def _lines(lines: Iterable[Line], mark: str) -> Iterator[str]:
    for line, *activations in joined(lines):
        titles = ", ".join(one.title for one in (line, *activations))
        yield _row((mark + line.name, titles, line.output, count(line.parameters) if line.parameters else ""))
        for branch, inner in zip(line.branches, ("· ", "+ "), strict=False):
            yield from _lines(branch, mark + inner)


def _replaced(*names: str) -> Iterator[str]:
    """The operators of the mpo variants."""
    yield "\nThe operators of the mpo variant:\n"
    yield "| network | layer | operator, outputs / inputs | bonds | bias | weights | replaced |"
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
