"""State dicts of PyTorch as an input of the file compressor."""

import os
import pickle

import numpy as np
import pytest

from mponet.compress import CompressConfig
from mponet.compress.stream.job import open_job, run_job
from mponet.compress.stream.merge import merge
from mponet.compress.stream.sources import open_source
from mponet.errors import CheckpointError

REQUESTED = "torch" in os.environ.get("MPONET_BACKENDS", "").replace(" ", "").split(",")
pytestmark = pytest.mark.skipif(not REQUESTED, reason="MPONET_BACKENDS does not name torch")

if REQUESTED:  # named but missing is an error, not a skip
    import torch


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(96, 64), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 80).bfloat16())


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_is_read_exactly(tmp_path, model, wrapped, legacy):
    state = model.state_dict()
    torch.save(
        {"state_dict": state} if wrapped else state, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy
    )
    source = open_source(tmp_path / "m.pt")
    assert {name: entry.shape for name, entry in source.entries.items()} == {
        k: tuple(v.shape) for k, v in state.items()
    }
    for name in ("0.weight", "2.weight"):
        np.testing.assert_array_equal(source.read(name), state[name].double().numpy())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_state_dict_is_compressed_to_safetensors(tmp_path, model, processes):
    torch.save(model.state_dict(), tmp_path / "m.pt")
    plan = run_job(open_job(tmp_path / "m.pt", tmp_path / "out", CompressConfig(keep=0.5)), processes=processes)
    assert [row.name for row in plan.replaced] == ["0", "2"]
    written = open_source(tmp_path / "out")
    assert {"0.core1", "0.core2", "0.bias", "1.running_mean", "2.core1"} <= set(written.entries)
    assert written.entries["2.core1"].dtype == "BF16"


def test_code_in_a_file_is_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "run"),))

    (tmp_path / "m.pt").write_bytes(pickle.dumps({"w": Attack()}))
    with pytest.raises(CheckpointError, match="expected a state dict"):
        open_source(tmp_path / "m.pt")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [{}, [1], {"a": 1}], ids=str)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        open_source(tmp_path / "m.pt")


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_of_the_command_loads_by_from_pretrained(tmp_path, shards):
    transformers = pytest.importorskip("transformers")
    import mponet_torch

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 80}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads, tie_word_embeddings=True)).eval()
    model.save_pretrained(tmp_path / "in", max_shard_size="1GB" if shards == 1 else "80KB")
    assert (len(list((tmp_path / "in").glob("*.safetensors"))) > 1) == (shards > 1)
    config = CompressConfig(keep=0.5, structures=("low-rank",), min_weights=1000)
    plan = run_job(open_job(tmp_path / "in", tmp_path / "out", config))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens = torch.randint(0, 80, (2, 9))
    small, _ = mponet_torch.compress(model, plan)
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, small(tokens).logits, rtol=0, atol=1e-4)
        assert (loaded(tokens).logits - model(tokens).logits).abs().max() > 1e-3
    assert isinstance(loaded.model.layers[0].mlp.up_proj, mponet_torch.MPOLinear)
    merge(tmp_path / "out", tmp_path / "dense")
    dense = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval()
    with torch.no_grad():
        torch.testing.assert_close(dense(tokens).logits, loaded(tokens).logits, rtol=0, atol=1e-4)
