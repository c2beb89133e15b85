"""Small models of Hugging Face with every linear layer replaced.

Trained, saved, loaded, generated from.
"""

import os

import pytest

if "torch" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name torch", allow_module_level=True)
os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers", reason="transformers is optional")

import torch  # noqa: E402
from torch import nn  # noqa: E402

from mponet_torch import MPOLinear  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers itself
TOKENS = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {"intermediate_size": 64}
MODELS = {
    "gpt2": (
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=2, n_positions=32),
    ),
    "bert": (transformers.BertForMaskedLM, transformers.BertConfig(**TOKENS, **WIDE, max_position_embeddings=32)),
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(**TOKENS, **WIDE)),
    "t5": (
        transformers.T5ForConditionalGeneration,
        transformers.T5Config(
            vocab_size=60, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
        ),
    ),
    "vit": (
        transformers.ViTForImageClassification,
        transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, **WIDE, image_size=16, patch_size=4
        ),
    ),
}


def replaceable(model):
    """(parent, name, layer, inputs, outputs) of every layer that is a matrix; tied heads stay."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and name != "lm_head" and "decoder" not in name:
                yield parent, name, layer, layer.in_features, layer.out_features
            elif type(layer).__name__ == "Conv1D":
                yield parent, name, layer, *layer.weight.shape


def with_operators(base):
    """The model class whose linear layers are operators from the start."""

    class Replaced(base):
        def __init__(self, config):
            super().__init__(config)
            for parent, name, layer, inputs, outputs in replaceable(self):
                setattr(parent, name, MPOLinear(inputs, outputs, 4, layer.bias is not None))

    Replaced.__name__ = base.__name__  # by which transformers choose the loss
    return Replaced


def batch(model):
    """A batch and its labels."""
    torch.manual_seed(0)
    if isinstance(model, transformers.ViTForImageClassification):
        return {"pixel_values": torch.randn(3, 3, 16, 16), "labels": torch.tensor([0, 1, 0])}
    ids = torch.randint(2, 60, (3, 8))
    return {"input_ids": ids, "labels": ids}


@pytest.mark.parametrize("name", MODELS)
def test_trained_saved_and_loaded(name, tmp_path):
    torch.manual_seed(1)
    base, config = MODELS[name]
    kind = with_operators(base)
    model = kind(config)
    assert sum(isinstance(module, MPOLinear) for module in model.modules()) >= 8
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(20):
        loss = model(**batch(model)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    model.eval()
    with torch.no_grad():
        expected = model(**batch(model)).logits
        model.save_pretrained(tmp_path)
        again = kind.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again(**batch(model)).logits, expected, rtol=0, atol=0)
        if hasattr(model, "generate") and name != "bert":
            ids = batch(model)["input_ids"][:, :3]
            options = {"max_new_tokens": 5, "do_sample": False}
            assert torch.equal(again.generate(ids, **options), model.generate(ids, **options))
        with pytest.raises(RuntimeError, match="mismatch"):  # a dense model must not start at random
            base.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_converted_exactly(name):
    torch.manual_seed(2)
    base, config = MODELS[name]
    model = base(config).eval()
    with torch.no_grad():
        expected = model(**batch(model)).logits
        for parent, attribute, layer, *_ in replaceable(model):
            setattr(parent, attribute, MPOLinear.from_dense(layer))
        torch.testing.assert_close(model(**batch(model)).logits, expected, rtol=1e-4, atol=1e-4)


def test_what_a_checkpoint_lacks_gets_starting_values(tmp_path):
    base, config = MODELS["llama"]
    kind = with_operators(base)
    model = kind(config)
    state = {key: value for key, value in model.state_dict().items() if "layers.1.mlp.up_proj" not in key}
    model.save_pretrained(tmp_path, state_dict=state)
    layer = kind.from_pretrained(tmp_path).model.layers[1].mlp.up_proj
    matrix = torch.from_numpy(layer.to_matrix())
    assert 0.25 < (matrix.std() / (2 / (32 + 64)) ** 0.5).item() < 4.0  # the variance of Glorot's rule
    kept = kind.from_pretrained(tmp_path).model.layers[0].mlp.up_proj
    torch.testing.assert_close(kept.core1, model.model.layers[0].mlp.up_proj.core1)
