"""Compress a trained `torch.nn.Module` by ``compress(model, config, data)``, or ``plan`` it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.gather import Progress
from mponet.compress.plan import CompressionPlan
from mponet.compress.report import Report
from mponet.compress.run import calibrate as calibrate_network
from mponet.compress.run import compress as compress_network
from mponet.compress.run import plan as plan_network
from mponet_torch.compression.healing import heal as heal
from mponet_torch.compression.huggingface import check_unpacked as _check_unpacked
from mponet_torch.compression.huggingface import describe as _describe
from mponet_torch.compression.merging import merge as merge
from mponet_torch.compression.network import NativeNetwork
from mponet_torch.compression.saving import load_compressed as load_compressed
from mponet_torch.compression.saving import save_compressed as save_compressed
from mponet_torch.compression.streaming import LossFunction


def compress(
    model: nn.Module,
    config: CompressConfig | CompressionPlan,
    calibration: Iterable[Any] | Calibration | None = None,
    *,
    in_place: bool = False,
    loss: LossFunction | None = None,
    example: Any = None,
    measure: bool = False,
    correct: Sequence[Any] | None = None,
    upstream: bool = False,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[nn.Module, Report]:
    """A smaller model that does nearly the same, and a report.

    Args:
        model: a trained module; it is not changed unless ``in_place`` is set.
        config: what to compress and to what budget, or a plan made before.
        calibration: batches of the model's own inputs: tensors, tuples of arguments, or mappings of
            keyword arguments.  Or a `Calibration` gathered before.  Without it the plain weights
            are all there is to go by.
        in_place: whether to replace the modules of ``model`` itself, which saves the memory of a
            copy.
        loss: the sum of the loss over rows, from outputs and batch; None chooses by the outputs
            (`mponet_torch.compression.streaming.default_loss`).
        example: a batch of inputs, run once to count rows per example (tokens, pixels) for counts
            of multiplications; calibration data tell as much.
        measure: whether to time every layer against its operator, on inputs of the calibration's
            shapes.
        upstream: whether each linear layer is fitted to the inputs that it gets after the blocks
            that are compressed already.  It reads the data once more for every block.
        correct: batches on which the rise of the loss is measured, layer by layer or for groups of
            layers, to correct what the plan predicts (`mponet.compress.correction`).
        folder: keeps finished steps, so that a call that was killed goes on when it is made again
            with the same model, data and loss, to the same bytes.  Several budgets may share it.
            None keeps none.
        progress: called with a step's name, how many are done and how many there are; 0 if that is
            not known.

    Raises:
        CompressionError: patterns or budget do not fit the model, or it is one of Hugging Face
            whose weights are packed by quantisation.  It is unchanged then.

    Example:
        >>> import torch
        >>> from mponet.compress import CompressConfig
        >>> layers = torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 64)
        >>> model = torch.nn.Sequential(*layers)
        >>> small, report = compress(model, CompressConfig(keep=0.5), [torch.randn(500, 64)])
        >>> report.plan.keep <= 0.5, sum(p.numel() for p in small.parameters()) < 0.52 * 12448
        (True, True)
    """
    _check(model)
    network = NativeNetwork.of(model, loss, example, in_place=in_place)
    report = compress_network(
        network,
        config,
        calibration,
        measure=measure,
        correct=correct,
        upstream=upstream,
        folder=folder,
        progress=progress,
    )
    _describe(network.model, report.plan)
    return network.model, report


def plan(
    model: nn.Module,
    config: CompressConfig,
    calibration: Iterable[Any] | Calibration | None = None,
    *,
    loss: LossFunction | None = None,
    example: Any = None,
    measure: bool = False,
    correct: Sequence[Any] | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> CompressionPlan:
    """What `compress` would do, as a value to print, edit and save; nothing is changed.

    Args:
        model: a trained module.
        config: what to compress, and to what budget.
        calibration: as in `compress`.
        loss: as in `compress`.
        example: as in `compress`.
        measure: as in `compress`.
        correct: as in `compress`.
        folder: as in `compress`.
        progress: as in `compress`.

    Raises:
        CompressionError: as `compress` raises it.
    """
    _check(model)
    network = NativeNetwork(model, loss, example)
    return plan_network(
        network, config, calibration, measure=measure, correct=correct, folder=folder, progress=progress
    )[0]


def calibrate(
    model: nn.Module,
    config: CompressConfig,
    data: Iterable[Any],
    *,
    loss: LossFunction | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """The sums over the inputs of the layers that a config matches.

    Gathered once, used for several budgets.

    Args:
        model: a trained module.
        config: what to compress.
        data: batches of the model's own inputs, as in `compress`.
        loss: as in `compress`.
        folder: as in `compress`.
        progress: as in `compress`.

    Raises:
        CompressionError: a pattern does not fit the model, its weights are packed by quantisation,
            or values are not finite.
    """
    _check(model)
    return calibrate_network(NativeNetwork(model, loss), config, data, folder=folder, progress=progress)


def _check(model: nn.Module) -> None:
    NativeNetwork.check(model)
    _check_unpacked(model)
