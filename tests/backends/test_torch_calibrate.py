"""``mponet calibrate`` with PyTorch, and what ``mponet compress`` and ``export`` make of it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mponet.compress import Calibration

REQUESTED = "torch" in os.environ.get("MPONET_BACKENDS", "").replace(" ", "").split(",")
pytestmark = pytest.mark.skipif(not REQUESTED, reason="MPONET_BACKENDS does not name torch")

if REQUESTED:  # named but missing is an error, not a skip
    import torch
    from safetensors.torch import save_file

NETWORK = """
import torch

def make():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 64))
    rows = torch.randn(300, 8) @ torch.randn(8, 64) + 0.01 * torch.randn(300, 64)
    return model, [rows[:200], rows[200:]]
"""


def command(*arguments, cwd):
    code = f"import sys; sys.path[:0] = {sys.path!r}; from mponet.cli import main; main()"
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=cwd)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "network.py").write_text(NETWORK)
    return tmp_path


def test_sums_of_a_function_make_the_compression_of_files_follow_the_data(folder):
    done = command("calibrate", "network:make", "-o", "sums.safetensors", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["modules"] == ["0", "2"] and told["rows"] == 300 and told["gradients"]
    sums = Calibration.load(folder / "sums.safetensors")
    namespace = {}
    exec(NETWORK, namespace)
    model, batches = namespace["make"]()
    inputs = torch.cat(batches).double().numpy()
    np.testing.assert_allclose(sums.of("0").total, inputs.sum(0), rtol=1e-6, atol=1e-6)
    save_file(model.state_dict(), folder / "m.safetensors")
    errors = {}
    for name, options in (("plain", []), ("calibrated", ["--calibration", "sums.safetensors"])):
        options = [*options, "--keep", "0.25", "--structure", "low-rank"]
        assert command("compress", "m.safetensors", name, *options, cwd=folder).returncode == 0
        assert command("merge", name, f"{name}-dense", cwd=folder).returncode == 0
        from safetensors.torch import load_file

        again = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 64))
        again.load_state_dict(load_file(folder / f"{name}-dense" / "m.safetensors"))
        with torch.no_grad():
            errors[name] = float((again(torch.cat(batches)) - model(torch.cat(batches))).norm())
    assert errors["calibrated"] < 0.5 * errors["plain"]


def test_sums_over_shares_of_the_data_add_up(folder):
    for name, options in (("all", ()), ("a", ("--share", "1/2")), ("b", ("--share", "2/2"))):
        assert command("calibrate", "network:make", "-o", f"{name}.safetensors", *options, cwd=folder).returncode == 0
    total, first, second = (Calibration.load(folder / f"{name}.safetensors") for name in ("all", "a", "b"))
    assert (first.of("0").count, second.of("0").count) == (200, 100)
    first.merge(second)
    for name in ("0", "2"):
        np.testing.assert_allclose(first.of(name).total, total.of(name).total, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(first.of(name).products, total.of(name).products, rtol=1e-12, atol=1e-9)
    assert first.gradients == pytest.approx(total.gradients, rel=1e-9)
    save_file(torch.nn.Linear(64, 96).state_dict(), folder / "m.safetensors")
    done = command("calibrate", "network:make", "-o", "c.safetensors", "--share", "3/2", cwd=folder)
    assert done.returncode == 2 and "expected K/N" in done.stderr


def test_a_text_is_the_data_of_a_hugging_face_folder_and_the_result_is_exported(folder):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")

    words = {word: number for number, word in enumerate(["[UNK]", *(f"w{k}" for k in range(79))])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]").save_pretrained(folder / "model")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "vocab_size": 80}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads)).save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    (folder / "text.txt").write_text(" ".join(f"w{k}" for k in rng.integers(0, 79, 400)))
    options = ("--min-weights", "1000", "--tokens", "256", "--window", "64", "--exclude", ".*(embed_tokens|lm_head)")
    done = command("calibrate", "model", "text.txt", "-o", "s.safetensors", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "7 modules over 256 rows" in done.stdout
    options = ("--bond", "8", "--calibration", "s.safetensors", "--min-weights", "1000", "--exclude", ".*lm_head")
    done = command("compress", "model", "small", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    layers = json.loads((folder / "small" / "config.json").read_text())["quantization_config"]["layers"]
    assert len(layers) == 7 and all(row["bonds"] == [8] for row in layers.values())
    done = command("export", "small", "--to", "torch-export", "-o", "small.pt2", "--dynamic", "0", cwd=folder)
    assert done.returncode == 0, done.stderr
    program = torch.export.load(folder / "small.pt2").module()
    import mponet_torch  # noqa: F401

    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder / "small").eval()
    tokens = torch.randint(0, 79, (3, 16))
    with torch.no_grad():
        torch.testing.assert_close(program(tokens)[0], loaded(tokens).logits, rtol=0, atol=1e-4)


def test_what_cannot_be_calibrated_is_one_error(folder):
    (folder / "dense").mkdir()
    (folder / "dense" / "config.json").write_text('{"architectures": ["Nothing"]}')
    for arguments in (["dense", "text.txt"], ["dense"], ["nowhere:make"], ["network"], ["network:absent"]):
        done = command("calibrate", *arguments, "-o", "s.safetensors", cwd=folder)
        assert done.returncode == 2 and done.stderr.count("\n") <= 4 and "Traceback" not in done.stderr, done.stderr
        assert not (folder / "s.safetensors").exists()
