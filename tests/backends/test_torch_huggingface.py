"""Compressed models of Hugging Face: what save_pretrained writes, from_pretrained gives back."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest

if "torch" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name torch", allow_module_level=True)
os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers", reason="transformers is optional")

import torch  # noqa: E402

from backends.test_torch_transformers import MODELS, batch  # noqa: E402
from mponet.compress import CompressConfig, HealConfig, Override  # noqa: E402
from mponet.errors import CheckpointError, CompressionError  # noqa: E402
from mponet_torch import calibrate, compress, heal, merge, plan  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers itself
TABLES = {r".*\.(wte|word_embeddings|embed_tokens)|shared": Override(keep=0.6)}
CONFIG = CompressConfig(keep=0.6, min_weights=256, overrides=TABLES)


def compressed(name, config=CONFIG):
    """A small model, and what compress made of it."""
    torch.manual_seed(0)
    config = replace(config, overrides={}) if name == "vit" else config
    kind, options = MODELS[name]
    model = kind(type(options).from_dict({**options.to_dict(), "tie_word_embeddings": True})).eval()
    inputs = batch(model)
    inputs.pop("labels") if name == "vit" else None
    return model, *compress(model, config, [inputs])


def same(first, second):
    """Whether two models have the same parameters and buffers under the same names."""
    ours, theirs = dict(first.named_parameters()), dict(second.named_parameters())
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)


def same_names(first, second):
    """Whether two models have parameters of the same names and shapes, and the same ones tied."""
    names = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in (first, second)]
    return names[0] == names[1] and first.all_tied_weights_keys == second.all_tied_weights_keys


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_comes_back(name, tmp_path):
    model, small, report = compressed(name)
    assert sum(p.numel() for p in small.parameters()) == report.plan.network_weights
    if name != "vit":
        table = report.plan[next(layer.name for layer in report.plan.layers if layer.kind == "embedding")]
        assert table.replaced
        assert any(layer.tied_to == table.name for layer in report.plan.layers)
    small.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert same(small, loaded)
    inputs = batch(small)
    with torch.no_grad():
        # a copy: parameters of a file lie at other places of a cache line, which moves the last bit
        torch.testing.assert_close(deepcopy(loaded)(**inputs).logits, small(**inputs).logits, rtol=0, atol=0)
    loaded.save_pretrained(tmp_path / "again")
    assert same(small, type(model).from_pretrained(tmp_path / "again"))
    dense, merged = merge(loaded)
    assert merged.deviation < 1e-6 and not hasattr(dense.config, "quantization_config")
    assert [type(module) for module in dense.modules()] == [type(module) for module in model.modules()]
    assert same_names(dense, model)
    dense.save_pretrained(tmp_path / "dense")
    assert same(dense, type(model).from_pretrained(tmp_path / "dense"))
    # it is an ordinary model: cast, trained, and its shared parameters stay shared
    assert next(loaded.half().parameters()).dtype == torch.float16
    loaded.float().train()(**inputs).loss.backward()
    assert all(p.grad is not None for n, p in loaded.named_parameters() if "pooler" not in n)
    assert sum(p.numel() for p in loaded.parameters()) == report.plan.network_weights
    # without its file's operators it does not come back at random
    with pytest.raises(RuntimeError, match="mismatch"):
        config = json.loads((tmp_path / "config.json").read_text())
        del config["quantization_config"]
        (tmp_path / "config.json").write_text(json.dumps(config))
        type(model).from_pretrained(tmp_path)


class Unpacked(transformers.quantizers.HfQuantizer):
    """A method that cannot be saved, as that of GGUF."""

    is_trainable = True

    def is_serializable(self):
        return False


def test_a_model_with_packed_weights_is_refused():
    model, _, report = compressed("llama")
    model.hf_quantizer = Unpacked(transformers.GPTQConfig(bits=4))
    with pytest.raises(CompressionError, match=r"LlamaForCausalLM quantised by gptq.*dequantize\(\)"):
        compress(model, report.plan)
    model.hf_quantizer.packed_modules = {"model.layers.0.mlp.up_proj": None}
    for call in (
        lambda: compress(model, report.plan),
        lambda: plan(model, CONFIG),
        lambda: calibrate(model, CONFIG, [batch(model)]),
    ):
        with pytest.raises(CompressionError, match="expected weights that are floats"):
            call()


def test_the_entry_of_another_method_is_replaced(tmp_path):
    """A model that was read from a GGUF file has one, which is not a mapping."""
    model, _, report = compressed("llama")
    model.config.quantization_config = object()
    model.hf_quantizer = Unpacked.__new__(Unpacked)
    model.hf_quantizer.packed_modules = {}
    small, _ = compress(model, report.plan)
    heal(small, model, [batch(small)], HealConfig(steps=1))
    small.save_pretrained(tmp_path)
    assert same(small, type(model).from_pretrained(tmp_path))


def test_auto_classes_and_dtypes_and_the_model_without_its_head(tmp_path):
    _, small, _ = compressed("llama")
    small.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert torch.equal(loaded.lm_head.weight.to(torch.bfloat16), loaded.model.embed_tokens.weight.to(torch.bfloat16))
    base = transformers.AutoModel.from_pretrained(tmp_path)
    assert same(base, small.model)
    with torch.no_grad():
        ids = batch(small)["input_ids"]
        assert torch.equal(base(ids).last_hidden_state, small.model(ids).last_hidden_state)
    other = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert same(other.model, small.model)  # its new head starts at random, as that of any other model
    base.save_pretrained(tmp_path / "base")
    again = transformers.AutoModel.from_pretrained(tmp_path / "base", device_map="cpu")
    assert same(base, again)
    with pytest.raises(CheckpointError, match="expected one device"):
        transformers.AutoModel.from_pretrained(tmp_path, device_map={"layers": "cpu", "": "disk"})


def test_what_a_file_lacks_is_an_error(tmp_path):
    model, small, report = compressed("gpt2")
    name = report.plan.replaced[0].name
    state = {key: value for key, value in small.state_dict().items() if key != f"{name}.core1"}
    small.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match=rf"lacks {name}.core1"):
        type(model).from_pretrained(tmp_path)
    small.config.quantization_config["version"] = 2
    small.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="version 2"):
        type(model).from_pretrained(tmp_path)


def test_without_mponet_a_compressed_model_is_an_error(tmp_path):
    _, small, _ = compressed("llama")
    small.save_pretrained(tmp_path)
    code = f"import transformers; transformers.AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "mismatch" in done.stderr and "mponet" in done.stderr
    first = "import mponet_torch, importlib.util; importlib.util.find_spec('transformers.quantizers.auto')"
    last = "import transformers.quantizers.auto, mponet_torch"
    for line in (first, last):  # whichever is imported first
        done = subprocess.run([sys.executable, "-c", f"{line}; {code}"], capture_output=True, timeout=300)
        assert done.returncode == 0


def test_a_healed_model_keeps_its_ties_and_its_new_bonds(tmp_path):
    model, small, _ = compressed("t5")
    data = [batch(small)] * 3
    before = small.config.quantization_config["layers"]["shared"]["bonds"]
    heal(small, model, data, HealConfig(steps=4, learning_rate=1e-3, weight_decay=1e-4, retruncate={2: 0.7}))
    assert small.config.quantization_config["layers"]["shared"]["bonds"] < before
    small.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.lm_head.embedding.core1 is loaded.shared.core1 is loaded.encoder.embed_tokens.core1
    assert same(small, loaded)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch(small)).logits, small(**batch(small)).logits, rtol=0, atol=0)
