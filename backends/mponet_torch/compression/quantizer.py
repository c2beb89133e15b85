"""How `transformers` builds a compressed model: ``mponet`` among its quantisation methods.

Imported by `mponet_torch.compression.huggingface` when `transformers` is.
"""

from typing import Any

from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from mponet.compress.pretrained import METHOD
from mponet.errors import CheckpointError
from mponet_torch.compression.huggingface import build, check_loaded


@register_quantization_config(METHOD)
class MPONetConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """The operators of a compressed model, as ``config.json`` lists them.

    Args:
        layers: what it takes to build each operator, by the layer's name.
        version: of the entry.
    """

    def __init__(self, layers: dict[str, Any], version: int, **_: Any) -> None:
        self.quant_method = METHOD
        self.version, self.layers = version, layers


@register_quantizer(METHOD)
class MPONetQuantizer(HfQuantizer):  # type: ignore[misc]
    """Builds operators before weights are read, and checks that all of them were there.

    The model is an ordinary one otherwise: it is trained, cast and saved as any other.
    """

    requires_calibration = True

    def validate_environment(self, *_: Any, device_map: Any = None, **__: Any) -> None:
        """Refuse several devices and offloading.

        Raises:
            CheckpointError: ``device_map`` names more than one device.
        """
        devices = set(device_map.values()) if isinstance(device_map, dict) else set()
        if len(devices) > 1 or "disk" in devices:
            raise CheckpointError(
                f"device_map names {', '.join(sorted(map(str, devices)))}; expected one device; move the model after "
                "it is loaded, or use device_map={'': device}"
            )

    def preprocess_model(self, model: nn.Module, *_: Any, **__: Any) -> None:
        """Put the operators into the model, whose weights are on the meta device."""
        build(model, self.quantization_config.to_dict())

    def postprocess_model(self, model: Any, **_: Any) -> None:
        """Check that nothing is left at random, and keep only the entry of the config."""
        check_loaded(model)
        del model.hf_quantizer
        model.config.quantization_config = self.quantization_config.to_dict()

    def is_serializable(self) -> bool:
        """Whether the model can be saved: as any other."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether the model can be trained: as any other."""
        return True
