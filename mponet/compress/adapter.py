"""What a framework has to offer so that its networks can be compressed.

The core plans and fits; an adapter walks the user's network, streams data through it, and swaps
modules.  The steps, in order:

1. ``targets()`` describes every module that holds a weight (`Target`), in the order of the network.
2. ``calibrate(...)`` runs the network on data and fills a `Calibration`.  Of layers that read the
   same tensor (query, key and value) only one gathers sums; ``Calibration.inputs`` maps each
   target to the key of its sums, which is the name of the first target that reads them.
3. `mponet.compress.pipeline.make_plan` gives a `CompressionPlan`.
4. `mponet.compress.execution.fitted` gives the operators of the plan, one by one; the adapter puts
   each in place by ``replace(...)``.

Conventions that every adapter keeps:

- A matrix is ``(in_features, out_features)``: a torch ``nn.Linear`` hands over ``weight.T``.
- A layer with a bias gives it by ``Target.load_bias``; `FittedLayer.bias` is then the new one.  A
  layer without a bias stays without.
- Modules that share a weight are one layer.  One of them owns it, an embedding if there is one, and
  is tied to none; the others name it by ``Target.tied_to``, and stay in the order of the network.
  An output head that multiplies with the transposed table is a ``linear`` target of its own sizes,
  ``in_features`` features and ``out_features`` tokens, with ``transposed=True``.  Where one module
  is both, as `flax.nnx.Embed` with ``attend`` or an embedding of Keras called with
  ``reverse=True``, the adapter announces the second use as a target with a name of its own, such
  as ``embed.attend``; no module needs to have that name.  Sums and gradients are gathered for each
  use: token counts for the embedding, `InputSums` of the features for the head, and ``sum g^2`` or
  products of its logits.  The fit weighs both uses by what they cost the loss.
- ``replace`` is called once for such a layer: ``FittedLayer.mpo`` is the table's operator, and
  ``FittedLayer.tied`` names the other uses with their new biases.  All of them must share one set
  of parameters afterwards.  A pair of which the adapter can replace one module only is announced
  with ``unsupported``; then both are left.
- The rows of a convolution's matrix are ``(kh, kw, C_in)``, its inputs are patches in that order,
  and ``Target.input_dims`` is ``(kh, kw, C_in)``.  `mponet.compress.convolution.kernel_operator`
  gives structure and operator for ``MPOConv2d.from_mpo`` and its twins.
- The inputs of an embedding are one-hot: ``InputSums.zeros(vocabulary, diagonal=True)`` and
  `InputSums.add_counts`.
- ``g`` (`Calibration.add_gradient`) is the mean over rows and features of the squared gradient of
  the loss *summed* over rows.  A loss that is a mean over ``n`` tokens has gradients ``n`` times
  smaller.  Its ``products`` are ``sum g^T g`` over the same rows, ``(out, out)``, and for more than
  `mponet.compress.calibrate.MAX_PRODUCT_OUTPUTS` outputs ``sum g^2``, ``(out,)``; the outputs of a
  convolution are its channels.
- ``Target.positions`` is the number of rows per example: tokens of a sequence, pixels of a map.
  An adapter that counts the examples of the data, ``Calibration.examples``, need not give it.
- ``merge(model)`` is the name of the way back to ordinary layers; it gives the model and a
  `mponet.compress.merging.MergeReport`.
- Nothing of the network changes before ``replace`` is called for the first time.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from mponet.compress.calibrate import Calibration
from mponet.compress.fitting import FittedLayer, unfitted
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.target import Target
from mponet.compress.upstream import CrossSums
from mponet.errors import CompressionError


@dataclass(frozen=True, slots=True)
class Functions:
    """What a framework does with its own modules; all of it without a network around them.

    Attributes:
        stream: runs a model on data, in eval mode, and gathers sums: ``(model, modules by name,
            data, loss, *, gradients, products, sums, shapes)`` gives a `Calibration`, and puts the
            shape of each module's last input into ``shapes``.
        rows_per_example: ``(model, modules by name, batch)`` counts the rows of each module.
        sample_inputs: ``(module, shape, rows)`` gives inputs to time a module with, or None.
        speed_ratio: ``(module, operator, inputs)`` gives the time of a module over its operator's.
        build: ``(module, fitted)`` gives the operator that replaces a module.
        cross_stream: ``(dense, compressed, names, data)`` gives the sums of `cross_sums`.
        copied: ``(model)`` gives a copy with parameters of its own.
        loss_rise: ``(dense, compressed, data, loss)`` gives how much larger the loss of the
            compressed model is, a mean over examples; without a loss, the divergence of its logits
            from the dense model's, or half of the squared distance of its outputs.
    """

    stream: Callable[..., Calibration]
    rows_per_example: Callable[[Any, Mapping[str, Any], Any], Mapping[str, int]]
    sample_inputs: Callable[[Any, tuple[int, ...] | None, int | None], Any]
    speed_ratio: Callable[[Any, Any, Any], float]
    build: Callable[[Any, FittedLayer], Any]
    cross_stream: Callable[[Any, Any, Sequence[str], Iterable[Any]], Mapping[str, CrossSums]]
    copied: Callable[[Any], Any]
    loss_rise: Callable[[Any, Any, Iterable[Any], Any], float]


class CompressAdapter(ABC):
    """The two ends of compression for a network of one framework.

    Attributes:
        model: the network, changed by `replace`.
        functions: those of the framework.
        kind: the class of the framework's networks.

    Args:
        model: the network.
        loss: the sum of the loss over rows; None chooses by the outputs.
        example: a batch of inputs that tells the rows per example of every layer; None takes those
            of the calibration, or one.
        reference: the network as it was, for `cross_sums`; None if ``model`` is not a copy.
    """

    functions: ClassVar[Functions]
    kind: ClassVar[type]

    def __init__(self, model: Any, loss: Any = None, example: Any = None, reference: Any = None) -> None:
        self.check(model)
        self.model = model
        self._loss, self._example, self._reference = loss, example, reference
        self._targets: tuple[Target, ...] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}

    @classmethod
    def of(cls, model: Any, loss: Any = None, example: Any = None, *, in_place: bool) -> Self:
        """The adapter of a network, or of a copy of it that is changed in its place."""
        cls.check(model)
        return cls(model if in_place else cls.functions.copied(model), loss, example, None if in_place else model)

    @classmethod
    def check(cls, model: Any) -> None:
        """Check that a model is one of the framework.

        Raises:
            CompressionError: it is not.
        """
        if not isinstance(model, cls.kind):
            raise CompressionError(
                f"the model is a {type(model).__module__}.{type(model).__name__}; expected a {cls.kind.__module__}."
                f"{cls.kind.__name__}; take the functions of the model's own framework; for a command set "
                "MPONET_BACKEND"
            )

    @abstractmethod
    def module(self, name: str) -> Any:
        """The module that a target names."""

    @abstractmethod
    def described(self) -> Iterable[Target]:
        """Every module that holds a weight, in the order of the network; ``positions`` is 1."""

    @abstractmethod
    def weights(self) -> int:
        """Number of weights of the network, shared ones once."""

    @abstractmethod
    def replace(self, fitted: FittedLayer) -> None:
        """Replace a module by an operator with its device, dtype, mode and bias.

        Those that share its weight are replaced with it.
        """

    def targets(self) -> Sequence[Target]:
        """Every module that holds a weight, in the order of the network; one used twice once.

        Modules that cannot be replaced are included, with the reason in ``unsupported``.
        """
        if self._targets is None:
            found = tuple(self.described())
            counts: Mapping[str, int] = {}
            if self._example is not None:
                known = {target.name: self.module(target.name) for target in found if not target.unsupported}
                counts = self.functions.rows_per_example(self.model, known, self._example)
            self._targets = tuple(replace(target, positions=counts.get(target.name, 1)) for target in found)
        return self._targets

    def other_weights(self) -> int:
        """Number of weights of the network that belong to no target, biases and norms included."""
        return self.weights() - sum(target.weights for target in self.targets() if not target.tied_to)

    def calibrate(
        self,
        targets: Sequence[Target],
        data: Iterable[Any],
        *,
        gradients: bool,
        products: bool,
        sums: Calibration | None = None,
    ) -> Calibration:
        """Run the network on data and gather sums over the inputs of the targets.

        The sums of some batches in one call, or in several that each go on with the ``sums`` of the
        one before, are the same to the last bit.

        Args:
            targets: those that sums are wanted of.
            data: the network's own inputs, batch by batch; read once.
            gradients: whether to run backward passes for ``g``, too.
            products: whether they gather the products of gradients.
            sums: what earlier batches gave, to be added to in place; None begins anew.
        """
        modules = {target.name: self.module(target.name) for target in targets}
        options = {"gradients": gradients, "products": products, "sums": sums, "shapes": self._shapes}
        return self.functions.stream(self.model, modules, data, self._loss, **options)

    def measure(self, layer: LayerPlan, rows: int | None = None) -> float | None:
        """Time of a module over that of the operator that a plan names: above 1 it is faster.

        Args:
            layer: a row of a plan that replaces a module.
            rows: rows of the batch; None takes the shape of the calibration's last batch.

        Returns:
            The median ratio of interleaved calls (`mponet.compress.timing.median_ratio`); None if
            the inputs' shape is not known.
        """
        module = self.module(layer.name)
        inputs = self.functions.sample_inputs(module, self._shapes.get(layer.name), rows)
        if inputs is None:
            return None
        target = next(target for target in self.targets() if target.name == layer.name)
        return self.functions.speed_ratio(module, self.functions.build(module, unfitted(target, layer)), inputs)

    def trial(self) -> Self:
        """An adapter of a copy of the network, on which replacements can be tried."""
        return type(self)(self.functions.copied(self.model), self._loss)

    def loss_rise(self, dense: Any, data: Iterable[Any]) -> float:
        """How much larger the network's loss is than that of a dense one, a mean over examples."""
        return self.functions.loss_rise(dense, self.model, data, self._loss)

    def cross_sums(self, names: Sequence[str], data: Iterable[Any]) -> Mapping[str, CrossSums]:
        """Sums over the inputs of linear layers in the compressed and in the dense network.

        Args:
            names: of the layers, none of them replaced yet.
            data: the network's own inputs, batch by batch.

        Raises:
            CompressionError: the dense network is gone, since it is compressed in place.
        """
        if self._reference is None:
            raise CompressionError(
                "upstream is set and the network is compressed in place; expected in_place=False, which keeps the "
                "dense network that its layers are compared with"
            )
        return self.functions.cross_stream(self._reference, self.model, names, data)
