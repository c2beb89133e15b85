"""Four devices: a sharded batch, sharded cores, and what the devices compute and exchange."""

import os
import re
import subprocess
import sys
from math import prod
from pathlib import Path

import numpy as np
import pytest

if "jax" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name jax", allow_module_level=True)

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mponet import MPOShape
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PlanSet
from mponet.contraction.search import candidates
from mponet.group import Group
from mponet.models import build
from mponet.models.init import start
from mponet.models.shapes import parameter_count
from mponet.recipe import Recipe
from mponet_jax import MPOLinear, backend
from mponet_jax.ops.contraction import apply

BOUND = 1e-10  # float64
KINDS = (AxisType.Explicit, AxisType.Auto)
ROWS = 1024  # beside which the merging of cores, of which each device does all, is little work
TILES = (None, 128)
SHAPES = (MPOShape((8, 8), (8, 8), (1, 4, 1)), MPOShape((4, 2, 5), (3, 4, 4), (1, 3, 3, 1)))
COLLECTIVE = re.compile(r"= \(?(.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
MOVES = ("all-gather", "all-to-all", "collective-permute")
CASES = ("plans_share_flops", "odd_tiles_agree", "cores_are_sharded", "shard_map_sums", "training_exchanges")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES)
def test_four_devices(case, tmp_path):
    variables = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=4 --xla_dump_to={tmp_path} "
        "--xla_dump_hlo_module_re=jit_step",
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    # this file as a script, because the number of devices is fixed when JAX starts
    command = [sys.executable, __file__, case, *([str(tmp_path)] if case == "training_exchanges" else [])]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=880)
    assert done.returncode == 0, done.stderr[-3000:]


def exchanges(program, kind):
    """Bytes of each collective of a kind in the text of a compiled program."""
    sizes = {"f64": 8, "f32": 4, "pred": 1, "s32": 4, "u32": 4}
    found = []
    for shapes, name in COLLECTIVE.findall(program):
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        if name == kind:
            found.append(sum(sizes[dtype] * prod(map(int, filter(None, dims.split(",")))) for dtype, dims in arrays))
    return found


def close(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(np.allclose(a, b, rtol=0, atol=BOUND * max(np.abs(b).max(), 1.0)) for a, b in pairs)


def loss_of(plan):
    return jax.jit(jax.value_and_grad(lambda cores, x: (apply(PlanSet.alike(plan), x, cores) ** 2).mean(), (0, 1)))


def spread(mesh, *arrays, spec):
    return tuple(jax.device_put(array, NamedSharding(mesh, spec)) for array in arrays)


def plans_share_flops():
    """Every plan gives each of four devices a quarter of the work, and no row leaves its device."""
    # XLA counts the body of a loop once, so the loop is written out
    jax.lax.map = lambda body, blocks: jnp.stack([body(block) for block in blocks])
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    for shape in SHAPES:
        plans = [plan for plan in candidates(shape, ROWS, transposed=True) if plan.tile in TILES]
        assert {plan.tile for plan in plans} == set(TILES)
        cores = tuple(jnp.ones(size) for size in plans[0].program.tensor_shapes)
        x = jnp.ones((ROWS, shape.in_features))
        shared = spread(mesh, *cores, spec=P()), *spread(mesh, x, spec=P("data"))
        for plan in plans:
            alone, together = (loss_of(plan).lower(*given).compile() for given in ((cores, x), shared))
            part = together.cost_analysis()["flops"] / alone.cost_analysis()["flops"]
            assert part < 1.1 / 4, (plan, part)
            for kind in MOVES:
                assert not exchanges(together.as_text(), kind), (plan, kind)


def odd_tiles_agree():
    """Tiles that do not divide the rows of a device, on both kinds of mesh."""
    rng = np.random.default_rng(0)
    shape = SHAPES[0]
    for groups, order, transposed in (((2,), (0,), False), ((1, 1), (1, 0), False), ((1, 1), (0, 1), True)):
        for rows, tile in ((64, None), (64, 8), (64, 24), (148, 16), (4, 2)):
            plan = Plan(shape, groups, order, tile, transposed=transposed)
            cores = tuple(rng.normal(size=size) for size in plan.program.tensor_shapes)
            x = rng.normal(size=(rows, 64))
            expected = loss_of(Plan(shape, groups, order, None, transposed=transposed))(cores, x)
            for kind in KINDS:
                mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
                with jax.sharding.set_mesh(mesh):
                    shared = spread(mesh, *cores, spec=P()), *spread(mesh, x, spec=P("data"))
                    assert close(loss_of(plan)(*shared), expected), (plan, rows, kind)
                    compiled = loss_of(plan).lower(*shared).compile()
                assert not exchanges(compiled.as_text(), "all-gather"), (plan, rows, kind)


#: Axes of two cores ``(left, input, output, right)`` that lie on two devices each.
PLACES = {
    "output": (P(None, None, "model", None), P()),
    "input": (P(), P(None, "model", None, None)),
    "bond": (P(None, None, None, "model"), P("model", None, None, None)),
}


def cores_are_sharded():
    """Cores over a leg or the bond, the batch over the other axis of a 2 x 2 mesh."""
    layer = MPOLinear((4, 6), (6, 8), 4, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    for rows in (16, 512):  # plans of few rows and of many
        x = np.random.default_rng(0).normal(size=(rows, 24))

        @jax.jit
        def step(state, x):
            def loss(state, x):
                outputs = nnx.merge(graph, state)(x)
                return jnp.sin(outputs).sum(), outputs

            return jax.value_and_grad(loss, (0, 1), has_aux=True)(state, x)

        expected = step(state, x)
        for kind in KINDS:
            mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2)
            for name, specs in PLACES.items():
                with jax.sharding.set_mesh(mesh):
                    placed = jax.device_put(state, NamedSharding(mesh, P()))
                    for core, spec in zip(("core1", "core2"), specs, strict=True):
                        raw = placed[core].get_raw_value()
                        placed[core].set_raw_value(jax.device_put(raw, NamedSharding(mesh, spec)))
                    (batch,) = spread(mesh, x, spec=P("data", None))
                    found = step(placed, batch)
                    compiled = step.lower(placed, batch).compile()
                assert close(found, expected), (name, kind, rows)
                moving = [
                    line
                    for line in compiled.as_text().splitlines()
                    if sum(sum(exchanges(line, name)) for name in MOVES) >= x.nbytes / 2 and crosses(line)
                ]
                assert not moving, (name, kind, rows, moving)


def crosses(line):
    """Whether a collective joins devices with other rows: 0 and 1 hold the same ones."""
    axes = re.search(r"mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{(.*?)\}", line)
    if axes is None:
        groups = re.search(r"(?:replica_groups|source_target_pairs)=(\S+)", line)
        return groups is None or not groups[1].startswith(("{{0,1},{2,3}}", "[2,2]<=[4],", "{{0,1},{1,0}"))
    devices = np.arange(4)
    if axes[2]:
        devices = devices.reshape([int(size) for size in axes[2].split(",")])
        devices = devices.transpose([int(axis) for axis in axes[3].split(",")] if axes[3] else None)
    grid = devices.reshape([int(size) for size in re.findall(r"=(\d+)", axes[1])])
    joined = [int(axis) for axis in re.findall(r"axis_(\d+)", axes[4])]
    groups = np.moveaxis(grid, joined, range(len(joined))).reshape(prod(grid.shape[axis] for axis in joined), -1)
    return bool((groups // 2 != groups[0] // 2).any())


def shard_map_sums():
    """Gradients of replicated cores under `jax.shard_map` are those of the whole batch."""
    layer = MPOLinear((8, 8), (8, 8), 4, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    x = np.random.default_rng(0).normal(size=(64, 64))
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))

    def whole(state, x):
        return (nnx.merge(graph, state)(x) ** 2).sum()

    parts = jax.shard_map(
        lambda state, x: jax.lax.psum(whole(state, x), "d"), mesh=mesh, in_specs=(P(), P("d")), out_specs=P()
    )
    assert close(jax.grad(parts)(state, x), jax.grad(whole)(state, x))


def training_exchanges(folder):
    """A step sums the gradients of the parameters, and no more; shares are gathered once."""
    rng = np.random.default_rng(0)
    recipe = Recipe("test", 50, 16, 0.05, momentum=0.9)
    for variant in ("dense", "mpo"):
        model = build("fc2", variant)
        images, labels = rng.normal(size=(16, *model.input_shape)), rng.integers(0, 10, 16)
        for sharded in (False, True):
            native = backend.build(model, start(model, 0), dtype="float64")
            backend.trainer(native, recipe, Group(0, 4, sharded=sharded)).step(images, labels, 0.05)
            (file,) = Path(folder).glob("*after_optimizations.txt")
            program, parameters = file.read_text(), 8 * parameter_count(model)
            file.unlink()
            summed = sum(exchanges(program, "all-reduce"))
            if not sharded:  # with the loss; a product of cores is summed where it has fewer numbers
                assert summed == parameters + 8 if variant == "dense" else 0.9 * parameters < summed <= parameters + 8
                assert not exchanges(program, "all-gather")
            elif variant == "dense":
                assert sum(exchanges(program, "all-gather")) == parameters and summed == parameters + 8


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
