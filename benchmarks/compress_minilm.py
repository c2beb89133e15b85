"""all-MiniLM-L6-v2 with its 36 encoder linears compressed, one shot and healed.

It compares ways to compress at one budget by Pearson's correlation with the human similarities of
Lee's 50 documents and Spearman's with WordSim-353.  Calibration and healing see 300 other news
documents.  Needs the packages of `pretrained`; run from the root of the repository::

    python benchmarks/compress_minilm.py --keep 0.5 --heal-steps 300
"""

import random
from copy import deepcopy

import numpy as np
import torch
from cells import Cells, parser
from pretrained import embeddings, lee_background, lee_documents, minilm, wordsim
from scipy.stats import spearmanr
from uniform import uniform_config

from mponet.compress import CompressConfig
from mponet_torch.compression import calibrate, compress

#: Uniform ways by what the table calls them: number of sites, None for low rank, and the metric.
UNIFORM = {
    "truncated SVD": (None, "none"),
    "whitened SVD": (None, "covariance"),
    "balanced, plain weights": (2, "none"),
    "balanced, least squares": (2, "covariance"),
}
WAYS = (*UNIFORM, "mponet")
LENGTH, BATCH = 64, 16  # tokens of a sentence, sentences of a batch
ENCODER = r"encoder\..*"


def texts(seed):
    """The background documents and their halves in a random order."""
    documents = lee_background()
    found = documents + [half for text in documents for half in (text[: len(text) // 2], text[len(text) // 2 :])]
    random.Random(seed).shuffle(found)
    return found


def batches(tokenizer, seed):
    """These texts tokenised."""
    found = texts(seed)
    for begin in range(0, len(found) - BATCH + 1, BATCH):
        chosen = found[begin : begin + BATCH]
        yield dict(tokenizer(chosen, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"))


def quality(model, tokenizer):
    """Correlations with people, both sets."""
    documents, similarities = lee_documents()
    vectors = embeddings(model, tokenizer, documents, length=256)
    pairs = np.triu_indices(len(documents), 1)
    cosines = (vectors @ vectors.T).numpy()
    words, human = wordsim()
    first, second = (embeddings(model, tokenizer, [pair[k] for pair in words]) for k in (0, 1))
    return {
        "lee": float(np.corrcoef(cosines[pairs], similarities[pairs])[0, 1]),
        "wordsim": float(spearmanr((first * second).sum(1), human)[0]),
    }


def healed(student, teacher, tokenizer, steps):
    """Distil all hidden states of the teacher for so many steps."""
    from mponet.compress import HealConfig
    from mponet_torch import heal

    layers = tuple(f"encoder.layer.{k}" for k in range(5))
    config = HealConfig(steps=steps, learning_rate=5e-4, objective="mse", hidden=layers, log_every=50)
    return heal(student, teacher, list(batches(tokenizer, 1)), config)


def main():
    """Measure every way at every budget."""
    options = parser(__doc__, "compress-minilm")
    options.add_argument("--keep", type=float, nargs="+", default=[0.5])
    options.add_argument("--heal-steps", type=int, default=300)
    options = options.parse_args()
    model, tokenizer = minilm()
    cells = Cells(options, {"benchmark": "compress-minilm", "heal_steps": options.heal_steps})
    cells.measure("dense", lambda: quality(model, tokenizer))
    sums = []

    def calibrated():
        if not sums:
            data = list(batches(tokenizer, 0))[:12]
            sums.append(calibrate(model, CompressConfig(keep=0.5, include=ENCODER), data))
        return sums[0]

    def measured(way, keep):
        if way in UNIFORM:
            sites, metric = UNIFORM[way]
            config = uniform_config(model, keep, sites, include=ENCODER, metric=metric)
        else:
            config = CompressConfig(keep=keep, include=ENCODER, structures=("low-rank",))
        small, report = compress(model, config, calibrated())
        found = {"keep": report.plan.keep, "one_shot": quality(small, tokenizer), "seconds": report.seconds}
        if options.heal_steps and way == "mponet":
            student = deepcopy(small)
            healing = healed(student, model, tokenizer, options.heal_steps)
            found |= {"healed": quality(student, tokenizer), "heal_seconds": healing.seconds}
            found["heal_loss"] = [healing.before, healing.after]
        return found

    for keep in options.keep:
        for way in WAYS:
            cells.measure(f"{way} {keep}", lambda way=way, keep=keep: measured(way, keep))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
