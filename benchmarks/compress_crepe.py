"""CREPE with its convolutions and its classifier compressed, judged by the pitch of 500 tones.

The right pitch of a synthetic tone is known; a pitch counts as found within 50 cents.  The second
convolution has 65,536 inputs, too many for a covariance: layers are compressed by their plain
weights.  Needs the packages of `pretrained`; run from the root of the repository::

    python benchmarks/compress_crepe.py --keep 0.5
"""

from copy import deepcopy

import torch
from cells import Cells, parser
from pretrained import cents_off, crepe, tones

from mponet.compress import CompressConfig
from mponet_torch.compression import compress

#: What is compared: how the budget is shared among the layers.
WAYS = {"truncated SVD": "uniform", "truncated SVD, joint budget": "normalized"}


def quality(model, count):
    """Share of tones within 50 cents, and the median distance in cents."""
    frames, pitch = tones(count, seed=1)
    with torch.inference_mode():
        off = torch.cat(
            [cents_off(model(part), tone) for part, tone in zip(frames.split(50), pitch.split(50), strict=True)]
        )
    return {"within_50_cents": float((off < 50).double().mean()), "median_cents": float(off.median())}


def main():
    """Measure every way at every budget."""
    options = parser(__doc__, "compress-crepe")
    options.add_argument("--keep", type=float, nargs="+", default=[0.5])
    options.add_argument("--tones", type=int, default=500)
    options.add_argument("--heal-steps", type=int, default=0)
    options = options.parse_args()
    model = crepe()
    cells = Cells(options, {"benchmark": "compress-crepe", "heal_steps": options.heal_steps, "tones": options.tones})
    cells.measure("dense", lambda: quality(model, options.tones))

    def measured(way, keep):
        config = CompressConfig(
            keep=keep, structures=("low-rank",), metric="none", allocation=WAYS[way], exclude=["conv1"]
        )
        small, report = compress(model, config)
        found = {"keep": report.plan.keep, "one_shot": quality(small, options.tones), "seconds": report.seconds}
        if options.heal_steps:
            from mponet.compress import HealConfig
            from mponet_torch import heal

            student = deepcopy(small)
            config = HealConfig(steps=options.heal_steps, learning_rate=2e-4, objective="mse")
            healing = heal(student, model, list(tones(512, seed=0)[0].split(16)), config)
            found |= {"healed": quality(student, options.tones), "heal_seconds": healing.seconds}
        return found

    for keep in options.keep:
        for way in WAYS:
            cells.measure(f"{way} {keep}", lambda way=way, keep=keep: measured(way, keep))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
