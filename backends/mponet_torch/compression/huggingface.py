"""Compressed models of Hugging Face, saved and loaded by their own methods.

A compressed `transformers.PreTrainedModel` carries an entry ``quantization_config`` with the method
``mponet`` in its config: the operators of every replaced layer.  ``save_pretrained`` writes it into
``config.json``, and ``from_pretrained`` asks `mponet_torch.compression.quantizer` to build these
layers before it reads the weights.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import nn

from mponet.compress.fitting import FittedLayer, TiedUse
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.plan import CompressionPlan
from mponet.compress.pretrained import VERSION, config_entry, is_entry, operator_entry
from mponet.compress.structures import Layout
from mponet.errors import CheckpointError, CompressionError
from mponet.operators.mpo import MPO
from mponet_torch.compression.modules import OPERATORS
from mponet_torch.compression.network import NativeNetwork
from mponet_torch.nn.embedding import TiedHead

#: The module of `transformers` that keeps the list of methods.
REGISTRY = "transformers.quantizers.auto"


# ---------------------------------------------------------------- before and after compression


def check_unpacked(model: nn.Module) -> None:
    """Refuse models of Hugging Face whose weights are packed by a method of quantisation.

    One that was read from a GGUF file and unpacked has ordinary weights, and is taken.

    Raises:
        CompressionError: there is such a model in a module.
    """
    for name, pretrained in _pretrained(model):
        quantizer = getattr(pretrained, "hf_quantizer", None)
        if quantizer is not None and getattr(quantizer, "packed_modules", True):
            method = getattr(quantizer.quantization_config, "quant_method", "a method of its own")
            kind = f"{type(pretrained).__name__} quantised by {getattr(method, 'value', method)}"
            raise CompressionError(
                f"{name or 'the model'} is a {kind}; expected weights that are floats; "
                "call its dequantize() first, or load it without quantisation"
            )


def describe(model: nn.Module, plan: CompressionPlan) -> None:
    """Enter the operators of a plan into the configs of the Hugging Face models in a module.

    Other modules are left alone.  The method that read a model from a GGUF file is forgotten.

    Args:
        model: a module whose layers were replaced.
        plan: what was replaced; its bonds are read from the module, which may have changed them.
    """
    for prefix, pretrained in _pretrained(model):
        start = f"{prefix}." if prefix else ""
        own = {layer.name.removeprefix(start): layer for layer in plan.replaced if layer.name.startswith(start)}
        if not own:
            continue
        shared: dict[str, list[str]] = {name: [] for name in own}
        for layer in plan.layers:
            if (owner := layer.tied_to.removeprefix(start)) in shared:
                shared[owner].append(layer.name.removeprefix(start))
        layers = dict(_layers(pretrained.config))
        for name, layer in own.items():
            layers[name] = operator_entry(layer, _bonds(pretrained.get_submodule(name)), shared[name])
        pretrained.config.quantization_config = config_entry(layers)
        vars(pretrained).pop("hf_quantizer", None)  # of GGUF: it would refuse to save the model
        retie(pretrained)


def refresh(model: nn.Module) -> None:
    """Bring the bonds in the configs up to date after operators of a module were truncated."""
    for _, pretrained in _pretrained(model):
        for name, described in _layers(pretrained.config).items():
            described["bonds"] = _bonds(pretrained.get_submodule(name))


def forget(model: nn.Module) -> None:
    """Take the entry out of the configs again, once no layer of a module is an operator."""
    for _, pretrained in _pretrained(model):
        if is_entry(getattr(pretrained.config, "quantization_config", None)):
            del pretrained.config.quantization_config
            for module in pretrained.modules():
                if "all_tied_weights_keys" in vars(module):
                    vars(module).pop("_tied_weights_keys", None)  # that of the class counts again
                    module.all_tied_weights_keys = module.get_expanded_tied_weights_keys(all_submodels=True)


def _layers(config: Any) -> dict[str, Any]:
    """The operators that a config lists; none if its entry is of another method, as of GGUF."""
    entry: Any = getattr(config, "quantization_config", None)
    return entry["layers"] if is_entry(entry) else {}


def retie(model: nn.Module) -> None:
    """Name cores instead of weights where a model of Hugging Face lists tied parameters."""
    for root in model.modules():
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
            keys = getattr(root, attribute, None)
            if isinstance(keys, Mapping) and keys:
                changed = dict(pair for entry in keys.items() for pair in _renamed(root, *entry))
                if changed != dict(keys):
                    setattr(root, attribute, changed)


def _renamed(root: nn.Module, target: str, source: str) -> Iterator[tuple[str, str]]:
    """The pairs of cores in the place of a pair of weights; none for a head, which has no cores."""
    names = [_parameters(root, name) for name in (target, source)]
    if names[0] is None or names[1] is None:
        yield target, source
    elif names[0] and names[1]:
        yield from zip(names[0], names[1], strict=True)


def _parameters(root: nn.Module, name: str) -> list[str] | None:
    """Names of the cores of the operator in the place of a weight; None if it is a weight still."""
    prefix, _, attribute = name.rpartition(".")
    try:
        module = root.get_submodule(prefix)
    except AttributeError:  # a pattern of names
        return None
    if attribute != "weight" or not isinstance(module, OPERATORS):
        return None
    return [] if isinstance(module, TiedHead) else [f"{prefix}.{core}" for core in module.parameter_names]


def _pretrained(model: nn.Module) -> list[tuple[str, Any]]:
    """The models of Hugging Face in a module that are part of no other one, by name."""
    found: list[tuple[str, Any]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") or not outer for outer, _ in found)
        if not inside and any(base.__name__ == "PreTrainedModel" for base in type(module).__mro__):
            found.append((name, module))
    return found


def _bonds(module: Any) -> list[int]:
    """Inner bonds of an operator, which healing may have changed."""
    return [int(core.shape[-1]) for core in module.cores[:-1]]


# ---------------------------------------------------------------- while a model is loaded


def build(model: nn.Module, entry: Mapping[str, Any]) -> None:
    """Put the operators of a config's entry into a model whose weights are not loaded yet.

    Args:
        model: of Hugging Face, on the meta device; of the class that was saved, or of another one
            of the same architecture, as the model without its head.
        entry: ``quantization_config`` of its config.

    Raises:
        CheckpointError: the entry is damaged, or none of its layers is in the model.
    """
    if entry.get("version") != VERSION or not isinstance(entry.get("layers"), Mapping):
        raise CheckpointError(
            f"quantization_config has version {entry.get('version')!r} and the fields {', '.join(entry)}; expected "
            f"version {VERSION} with layers; load it with the version of mponet that wrote it"
        )
    network, built = NativeNetwork(model), 0
    for name, described in entry["layers"].items():
        found = _resolved(model, name)
        if found is not None:
            network.replace(_fitted(model, found, described))
            built += 1
    if not built:
        raise CheckpointError(
            f"{type(model).__name__} has none of the {len(entry['layers'])} layers that config.json lists as "
            "operators; expected the class that was saved, or one of the same architecture"
        )
    sizes = [name for name, module in model.named_modules() if isinstance(module, OPERATORS)]
    ignored = {rf"^{re.escape(name)}\.weight$" for name in sizes}  # which keep dense models from the file
    model._keys_to_ignore_on_load_unexpected = {*(model._keys_to_ignore_on_load_unexpected or ()), *ignored}  # type: ignore[misc, assignment]
    retie(model)


def check_loaded(model: nn.Module) -> None:
    """Refuse a model with operators whose numbers were in no file.

    Raises:
        CheckpointError: there are some.
    """
    missing = [
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if isinstance(module, OPERATORS)
        for parameter, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        if not getattr(value, "_is_hf_initialized", False)
    ]
    if missing:
        raise CheckpointError(
            f"the checkpoint lacks {', '.join(missing[:3])}{' and others' if missing[3:] else ''}; expected the cores "
            "of every operator that config.json lists; save the compressed model again by save_pretrained"
        )


def _resolved(model: Any, name: str) -> str | None:
    """A layer's name in a model with or without the head; None if it is not there."""
    prefix = f"{model.base_model_prefix}."
    for candidate in (name, name.removeprefix(prefix), prefix + name):
        try:
            model.get_submodule(candidate)
        except AttributeError:
            continue
        return candidate
    return None


def _fitted(model: nn.Module, name: str, entry: Mapping[str, Any]) -> FittedLayer:
    """The operator of an entry, its numbers zero."""
    try:
        fields = {key: tuple(entry[key]) for key in ("input_dims", "output_dims", "input_axes", "input_order")}
        plan = LayerPlan(
            name=name,
            kind=entry["kind"],
            type_name="",
            dense_weights=entry["weights"],
            dense_multiplications=0,
            layout=Layout(entry["structure"], **fields),
            bonds=tuple(entry["bonds"]),
        )
        others = [found for other in entry["tied"] if (found := _resolved(model, other)) is not None]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"config.json describes {name} without {error}; expected a saved model's entry"
        ) from error
    module: Any = model.get_submodule(name)
    shape = plan.shape
    assert shape is not None
    if getattr(module.weight, "numel", lambda: 0)() != plan.dense_weights:
        raise CheckpointError(
            f"{name} is a {type(module).__name__} of {tuple(module.weight.shape)}; expected the "
            f"{plan.dense_weights} weights that config.json lists; the config was changed"
        )
    mpo = MPO(shape, tuple(map(np.zeros, shape.core_shapes)))
    shared = tuple(
        TiedUse(other, entry["kind"] == "embedding" and isinstance(part, nn.Linear), _no_bias(part), 0.0)
        for other in others
        for part in (model.get_submodule(other),)
    )
    return FittedLayer(plan, mpo, _no_bias(module), 0.0, 0.0, shared)


def _no_bias(module: Any) -> Any:
    bias = getattr(module, "bias", None)
    return None if bias is None else np.zeros(tuple(bias.shape))
