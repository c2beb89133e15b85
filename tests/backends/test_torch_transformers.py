"""Small models of Hugging Face with every linear layer replaced.

Trained, saved, loaded, generated from, compiled, exported, and trained by two processes.
"""

import os
import subprocess
import sys

import pytest

if "torch" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name torch", allow_module_level=True)
os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers", reason="transformers is optional")

import torch  # noqa: E402
from torch import distributed, nn  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402

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


def batch(model, rows=3):
    """A batch and its labels."""
    torch.manual_seed(0)
    if isinstance(model, transformers.ViTForImageClassification):
        maps = torch.randn(rows, 3, 16, 16, dtype=model.dtype)
        return {"pixel_values": maps, "labels": torch.arange(rows) % 2}
    ids = torch.randint(2, 60, (rows, 8))
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


class _Logits(nn.Module):
    """A model as a function of a batch that gives its logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model(**batch).logits


def inferred(name):
    """A model in inference, and a batch."""
    torch.manual_seed(3)
    base, config = MODELS[name]
    model = with_operators(base)(config).eval()
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    inputs = batch(model)
    if name == "gpt2":  # transformers warn of its loss, which breaks a graph
        del inputs["labels"]
    return model, inputs


@pytest.mark.parametrize("name", MODELS)
def test_compiled(name):
    torch._dynamo.reset()
    model, inputs = inferred(name)
    compiled = torch.compile(_Logits(model), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(inputs), model(**inputs).logits)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(compiled(inputs).square().sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(model(**inputs).logits.square().sum(), parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * max(1.0, other.abs().max().item()))


@pytest.mark.parametrize("name", MODELS)
def test_exported(name):
    model, inputs = inferred(name)
    with torch.no_grad():
        program = torch.export.export(_Logits(model), (inputs,), strict=False)
        torch.testing.assert_close(program.module()(inputs), model(**inputs).logits)


# ---------------------------------------------------------------- two processes


def trained(name, way, rank=0, size=1):
    """The matrices of a model after a few steps on a share of each batch, in float64."""
    torch.manual_seed(4)
    base, config = MODELS[name]
    whole = with_operators(base)(config).double().eval()  # no dropout
    whole.requires_grad_(True)
    inputs = {key: value.chunk(size)[rank] for key, value in batch(whole, 4).items()}
    layers = [module for module in whole.modules() if isinstance(module, MPOLinear)]
    model = whole
    if way == "ddp":
        model = nn.parallel.DistributedDataParallel(whole)
    elif way == "fsdp2":
        mesh = distributed.device_mesh.init_device_mesh("cpu", (size,))
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(whole, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    return [torch.from_numpy(layer.to_matrix()) for layer in layers]


WAYS = ("ddp", "fsdp2")


def work(rank, store, results):
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = {(name, way): trained(name, way, rank, 2) for name in MODELS for way in WAYS}
    if rank == 0:
        torch.save(found, results)
    distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    # this file as a script, because a process that is spawned cannot import the tests by name
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    arguments = str(tmp_path / "store"), str(tmp_path / "found.pt")
    commands = [[sys.executable, __file__, str(rank), *arguments] for rank in range(2)]
    workers = [subprocess.Popen(command, env=environment) for command in commands]
    assert [worker.wait(400) for worker in workers] == [0, 0]
    found = torch.load(tmp_path / "found.pt")
    for name in MODELS:
        expected = trained(name, "alone")
        for way in WAYS:
            for ours, one in zip(found[name, way], expected, strict=True):
                torch.testing.assert_close(ours, one, rtol=0, atol=1e-9, msg=f"{name} {way}")


if __name__ == "__main__":
    work(int(sys.argv[1]), *sys.argv[2:])
