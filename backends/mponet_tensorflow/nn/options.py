"""The weight arguments of `keras.layers.Dense`, for layers whose kernel is an operator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mponet.errors import InputError
from mponet_tensorflow.ops.arrays import Array, keras

#: Variance of a normal distribution cut off at two standard deviations, relative to that of the
#: whole.
TRUNCATED = 0.7737413035760013


@dataclass(frozen=True, slots=True)
class WeightOptions:
    """How weights start, what is added to the loss for them, and what they are held to.

    Attributes:
        kernel_initializer: gives the variance of the kernel's entries; None leaves it to the
            layer's ``initializer``.
        bias_initializer: of the bias.
        kernel_regularizer: a function of the kernel ``(inputs, units)``, the product of the cores.
        bias_regularizer: a function of the bias.
        kernel_constraint: applied to each core, since the kernel itself is not a variable.
        bias_constraint: applied to the bias.
    """

    kernel_initializer: Any = None
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None

    @classmethod
    def taken_from(cls, arguments: dict[str, Any]) -> Self:
        """Take the options out of a layer's keyword arguments.

        The rest are those of `keras.layers.Layer`.

        Args:
            arguments: keyword arguments; the options are removed from it.
        """
        given = {name: arguments.pop(name) for name in cls.__slots__ if name in arguments}
        kinds = {"initializer": keras.initializers, "regularizer": keras.regularizers, "constraint": keras.constraints}
        read = {name: kinds[name.partition("_")[2]].get(value) for name, value in given.items()}
        return cls(**{"bias_initializer": keras.initializers.get("zeros"), **read})

    @classmethod
    def of_layer(cls, layer: Any) -> dict[str, Any]:
        """The arguments that give a new layer the options of a Keras layer."""
        names = [name for name in cls.__slots__ if name != "kernel_initializer"]
        return {name: value for name in names if (value := getattr(layer, name, None)) is not None}

    def config(self) -> dict[str, Any]:
        """The options as Keras serialises them, those that are set."""
        kinds = {"initializer": keras.initializers, "regularizer": keras.regularizers, "constraint": keras.constraints}
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: kinds[name.partition("_")[2]].serialize(value) for name, value in values.items() if value is not None
        }


class KernelPenalty:
    """The regulariser of a layer's first weight: the penalty for the whole kernel.

    Keras collects penalties variable by variable.  The kernel is a product of variables, so one of
    them carries its penalty.
    """

    def __init__(self, layer: Any, regularizer: Any) -> None:
        self.layer, self.regularizer = layer, regularizer

    def __call__(self, core: Array) -> Array:
        """The penalty; the core is one of those that the kernel is made of."""
        return self.regularizer(self.layer.kernel)


def variance_of(initializer: Any, in_features: int, out_features: int) -> float:
    """The variance that an initialiser of Keras gives a kernel ``(in_features, out_features)``.

    Raises:
        InputError: it has no variance, or a mean that is not zero.
    """
    config: Mapping[str, Any] = initializer.get_config() if isinstance(initializer, keras.Initializer) else {}
    initializers = keras.initializers
    if isinstance(initializer, initializers.VarianceScaling):
        fans = {"fan_in": in_features, "fan_out": out_features, "fan_avg": (in_features + out_features) / 2}
        return float(initializer.scale / fans[initializer.mode])
    if isinstance(initializer, initializers.RandomNormal) and not config["mean"]:
        return float(config["stddev"] ** 2)
    if isinstance(initializer, initializers.TruncatedNormal) and not config["mean"]:
        return float(TRUNCATED * config["stddev"] ** 2)
    if isinstance(initializer, initializers.RandomUniform) and config["minval"] == -config["maxval"]:
        return float(config["maxval"] ** 2 / 3)
    name = getattr(initializer, "__name__", type(initializer).__name__)
    raise InputError(
        f"kernel_initializer is {name}; expected one with a variance and mean zero, "
        "such as 'he_normal' or keras.initializers.RandomNormal(0, 0.05); or pass initializer=<variance>"
    )
