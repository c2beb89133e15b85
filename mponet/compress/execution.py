"""From a plan to the fitted operators that it names."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from mponet.compress.calibrate import Calibration
from mponet.compress.fitting import FittedLayer, unfitted
from mponet.compress.gather import Progress
from mponet.compress.parts import kept_fit
from mponet.compress.plan import CompressionPlan
from mponet.compress.target import Target, tied_groups
from mponet.compress.upstream import CrossSums, fit_upstream, stages
from mponet.compress.work_folder import WorkFolder
from mponet.errors import CompressionError


def fitted(
    targets: Sequence[Target],
    plan: CompressionPlan,
    calibration: Calibration | None = None,
    *,
    cross_sums: Callable[[Sequence[str]], Mapping[str, CrossSums]] | None = None,
    folder: WorkFolder | None = None,
    progress: Progress | None = None,
) -> Iterator[FittedLayer]:
    """The operators of a plan, layer by layer, in the order of the network.

    Everything is checked before the first one is fitted.

    Args:
        targets: all modules that hold a weight.
        plan: what becomes of them.
        calibration: sums over the inputs; None takes the plain metric.
        cross_sums: gives sums over the inputs of some layers in the network as it is now, and in
            the dense one; layers are then fitted block by block, to what they get from the blocks
            before.  None fits every layer to the inputs that it has in the dense network.
        folder: keeps fitted layers; None keeps none.
        progress: called with ``fit``, how many layers are done and how many there are.

    Raises:
        CompressionError: the plan names a module that the network does not have, or one of another
            size.
    """
    groups = _planned(targets, plan)
    kind = str(plan.config.get("metric", "covariance"))
    correct_bias = bool(plan.config.get("bias_correction", True))
    done = 0
    for stage in [plan.replaced] if cross_sums is None else stages(plan.replaced):
        alone = [layer.name for layer in stage if layer.kind == "linear" and len(groups[layer.name]) == 1]
        crossed = cross_sums(alone) if cross_sums is not None and alone else {}
        for layer in stage:
            if progress is not None:
                progress("fit", done, len(plan.replaced))
            done += 1
            group = groups[layer.name]
            if layer.name in crossed:
                sums = crossed[layer.name]
                yield fit_upstream(group[0], layer, sums, calibration, kind=kind, correct_bias=correct_bias)
            else:
                yield kept_fit(folder, group, layer, calibration, kind=kind, correct_bias=correct_bias)


def unfitted_layers(targets: Sequence[Target], plan: CompressionPlan) -> list[FittedLayer]:
    """The operators of a plan with all entries zero, to be overwritten by saved ones.

    Raises:
        CompressionError: as `fitted` does.
    """
    groups = _planned(targets, plan)
    return [unfitted(groups[layer.name][0], layer, groups[layer.name][1:]) for layer in plan.replaced]


def _planned(targets: Sequence[Target], plan: CompressionPlan) -> dict[str, list[Target]]:
    """The groups of `tied_groups`, after a check that the plan is one of the network."""
    known: Mapping[str, Target] = {target.name: target for target in targets}
    for layer in plan.replaced:
        if layer.name not in known or known[layer.name].weights != layer.dense_weights:
            raise CompressionError(f"the plan's {layer.name} is not in this network, or of another size")
        if owner := known[layer.name].tied_to:
            raise CompressionError(
                f"the plan replaces {layer.name}, whose weight is that of {owner} in this network; expected a plan of "
                "a network that shares the same weights"
            )
    return tied_groups(targets)
