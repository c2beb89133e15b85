"""EfficientNet-lite0 with its 1x1 convolutions and its head compressed, one shot and healed.

Judged on foolbox's 20 labelled images of ImageNet: labels found, and agreement with the dense
network.  Calibration and healing see crops of other photographs, those of scikit-learn and
CIFAR-10 (in ``MPONET_DATA``).  Needs the packages of `pretrained`; run from the root of the
repository::

    python benchmarks/compress_efficientnet.py --keep 0.7
"""

from copy import deepcopy

import numpy as np
import torch
from cells import Cells, parser
from pretrained import efficientnet, imagenet_images
from torch import nn

from mponet.compress import CompressConfig
from mponet.training.data import load
from mponet_torch.compression import calibrate, compress

CALIBRATION = 384  # crops: 15 rows for each channel of the smallest maps, but few for the head
WAYS = {
    "truncated SVD": (("low-rank",), "none", "uniform"),
    "whitened SVD": (("low-rank",), "covariance", "uniform"),
    "mponet": (("low-rank",), "auto", "loss"),
}


def photographs():
    """Photographs as arrays: two of scikit-learn, and the first thousand of CIFAR-10."""
    from sklearn.datasets import load_sample_images

    return [*load_sample_images().images] * 100 + list(load("cifar10").train_images[:1000])


def crops(count, seed, batch=16):
    """Batches of random crops, flipped, as `efficientnet` takes them."""
    rng, photos = np.random.default_rng(seed), photographs()
    rows = []
    for _ in range(count):
        photo = photos[rng.integers(len(photos))]
        size = int(rng.uniform(0.3, 1.0) * min(photo.shape[:2]))
        top, left = (int(rng.integers(0, edge - size + 1)) for edge in photo.shape[:2])
        crop = torch.from_numpy(photo[top : top + size, left : left + size].astype(np.float32)).permute(2, 0, 1)
        crop = nn.functional.interpolate(crop[None], (224, 224), mode="bilinear", antialias=True)[0]
        rows.append(((crop - 127) / 128).flip(-1) if rng.random() < 0.5 else (crop - 127) / 128)
    return list(torch.stack(rows).split(batch))


def included(name, module):
    """Whether it is a 1x1 convolution or the head."""
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    )


def quality(model, dense):
    """Labels found of 20, classes as the dense network has them, and the error of the logits."""
    images, labels = imagenet_images()
    with torch.inference_mode():
        logits, wanted = model(images), dense(images)
    return {
        "top1": int((logits.argmax(1) == labels).sum()),
        "top5": int((logits.topk(5).indices == labels[:, None]).any(1).sum()),
        "agrees": int((logits.argmax(1) == wanted.argmax(1)).sum()),
        "error": float((logits - wanted).norm() / wanted.norm()),
    }


def main():
    """Measure every way at every budget."""
    options = parser(__doc__, "compress-efficientnet")
    options.add_argument("--keep", type=float, nargs="+", default=[0.7])
    options.add_argument("--heal-steps", type=int, default=300)
    options = options.parse_args()
    model = efficientnet()
    names = [name for name, module in model.named_modules() if included(name, module)]
    cells = Cells(options, {"benchmark": "compress-efficientnet", "heal_steps": options.heal_steps})
    cells.measure("dense", lambda: quality(model, model))
    sums = []

    def calibrated():
        if not sums:
            sums.append(calibrate(model, CompressConfig(keep=0.5, include=names), crops(CALIBRATION, 0)))
        return sums[0]

    def measured(way, keep):
        structures, metric, allocation = WAYS[way]
        config = CompressConfig(keep=keep, include=names, structures=structures, metric=metric, allocation=allocation)
        small, report = compress(model, config, calibrated())
        found = {"keep": report.plan.keep, "one_shot": quality(small, model), "seconds": report.seconds}
        if options.heal_steps and way == "mponet":
            from mponet.compress import HealConfig
            from mponet_torch import heal

            student = deepcopy(small)
            config = HealConfig(steps=options.heal_steps, learning_rate=1e-4, objective="mse")
            healing = heal(student, model, crops(960, 1, batch=8), config)
            found |= {"healed": quality(student, model), "heal_seconds": healing.seconds}
        return found

    for keep in options.keep:
        for way in WAYS:
            cells.measure(f"{way} {keep}", lambda way=way, keep=keep: measured(way, keep))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
