"""The steps of a compression that a work folder keeps: options of a layer, and fitted layers."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.fitting import FittedLayer, TiedUse, fit_layer, fit_tied
from mponet.compress.hull import Curve, Option, Options
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.select import Selected
from mponet.compress.structures import Layout
from mponet.compress.target import Target
from mponet.compress.uses import Uses
from mponet.compress.work_folder import Part, WorkFolder, key_of, weights_key
from mponet.operators.mpo import MPO
from mponet.training.schema import convert_exactly

COLUMNS = ("bonds", "weights", "multiplications", "errors", "losses")


def kept_options(
    folder: WorkFolder | None,
    entry: Selected,
    group: Sequence[Target],
    config: CompressConfig,
    calibration: Calibration | None,
    make: Callable[[], tuple[Options, float, float]],
) -> tuple[Options, float, float]:
    """The options of a layer, and its energies at the outputs and for the loss.

    They do not depend on the budget, so that several budgets share them.

    Args:
        folder: where they are kept; None makes them anew.
        entry: the layer.
        group: its target, and those that share its weight.
        config: how layers are fitted.
        calibration: sums over the inputs.
        make: makes them.
    """
    if folder is None:
        return make()
    override = entry.override
    settings = [config.fit_metric, config.bias_correction, config.seed, config.offered(entry.target, override)]
    settings += [override.input_dims, override.output_dims, override.bond]
    key = _layer_key(group, calibration, *settings)
    part = folder.part("options", key, lambda: _options_part(*make()))
    return _options(part), part.details["outputs"], part.details["loss"]


def kept_fit(
    folder: WorkFolder | None,
    group: Sequence[Target],
    row: LayerPlan,
    calibration: Calibration | None,
    *,
    kind: str,
    correct_bias: bool,
) -> FittedLayer:
    """The operator of a row of a plan, fitted now or before.

    Args:
        folder: where it is kept; None fits it anew.
        group: its target, and those that share its weight.
        row: its row in the plan.
        calibration: sums over the inputs; None takes the plain metric.
        kind: as ``CompressConfig.fit_metric``.
        correct_bias: whether biases take up mean errors.
    """

    def make() -> FittedLayer:
        uses = Uses.of(group, calibration, kind=kind, correct_bias=correct_bias)
        found = fit_layer(group[0], row, uses, correct_bias=correct_bias)
        return fit_tied(found, group[1:], uses, correct_bias=correct_bias)

    if folder is None:
        return make()
    key = _layer_key(group, calibration, asdict(row.layout) if row.layout else None, row.bonds, kind, correct_bias)
    return _fitted(row, folder.part("fitted", key, lambda: _fitted_part(make())))


def _layer_key(group: Sequence[Target], calibration: Calibration | None, *settings: object) -> str:
    """A hash of a weight, what is known of its inputs and gradients, and settings."""
    known: list[object] = []
    for target in group:
        known += [target.positions, target.input_dims, target.transposed]
        sums = calibration.of(target.name) if calibration else None
        known += [] if sums is None else [sums.packed.values, sums.total, sums.count]
        if calibration is not None:
            products = calibration.gradient_products.get(target.name)
            known += [calibration.gradients.get(target.name), calibration.gradient_rows.get(target.name)]
            known += [None if products is None else products.values]
    return key_of(weights_key(group), known, settings)


def _options_part(options: Options, outputs: float, loss: float) -> Part:
    values = {f"{k}.{name}": getattr(curve, name) for k, curve in enumerate(options.curves) for name in COLUMNS}
    layouts = [asdict(curve.layout) for curve in options.curves]
    return Part(values, {"dense": asdict(options.dense), "layouts": layouts, "outputs": outputs, "loss": loss})


def _options(part: Part) -> Options:
    curves = tuple(
        Curve(convert_exactly(layout, Layout), *(part.values[f"{k}.{name}"] for name in COLUMNS))
        for k, layout in enumerate(part.details["layouts"])
    )
    return Options(Option(**{**part.details["dense"], "bonds": ()}), curves)


def _fitted_part(fitted: FittedLayer) -> Part:
    values = {f"core{k}": core for k, core in enumerate(fitted.mpo.cores, start=1)}
    biases = {"bias": fitted.bias} | {f"bias of {use.name}": use.bias for use in fitted.tied}
    values |= {name: bias for name, bias in biases.items() if bias is not None}
    tied = [[use.name, use.transposed, use.output_error] for use in fitted.tied]
    return Part(values, {"output_error": fitted.output_error, "loss_error": fitted.loss_error, "tied": tied})


def _fitted(row: LayerPlan, part: Part) -> FittedLayer:
    assert row.shape is not None
    cores = tuple(part.values[f"core{k}"] for k in range(1, row.shape.sites + 1))
    errors = part.details["output_error"], part.details["loss_error"]
    tied = tuple(
        TiedUse(name, transposed, part.values.get(f"bias of {name}"), error)
        for name, transposed, error in part.details["tied"]
    )
    return FittedLayer(row, MPO(row.shape, cores), part.values.get("bias"), *errors, tied)
