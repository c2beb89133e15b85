"""Compiles the kernels to GPU machine code; no GPU is needed.  A test runs it in a process."""

from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mponet.contraction.kernels import Sizes
from mponet_triton import kernels, launch

HOPPER = GPUTarget("cuda", 90, 32)
TWO, THREE = Sizes((64, 64), (64, 64), (4,)), Sizes((16, 16, 16), (16, 16, 16), (4, 4))


def compiled(kernel, sizes, dtype, warps, stages, **constants):
    """Bytes of machine code."""
    names = kernel.arg_names
    fixed = [name for name in names if name[0] in "IJ"]
    constants |= dict(zip(fixed, launch._constants(sizes)[len(sizes.bonds) :], strict=True))
    pointers = dict.fromkeys(("x", "g", "a", "b", "c", "bias", "y"), f"*{dtype}") | {"sums": "*fp32"}
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    places = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    return len(compile(source, target=HOPPER, options={"num_warps": warps, "num_stages": stages}).asm["cubin"])


for dtype in ("bf16", "fp16"):
    rows, *means = launch.tile(TWO)
    print("sweep_two", dtype, compiled(kernels.sweep_two, TWO, dtype, *means, TILE=rows, BIASED=True, PRECISION="tf32"))
    print(
        "weight_gradients_two",
        dtype,
        compiled(kernels.weight_gradients_two, TWO, dtype, *launch.SLOPES, PRECISION="tf32"),
    )
    bonds, *means = launch.block(THREE)
    options = {"BONDS": bonds, "BIASED": True, "PRECISION": "tf32"}
    print("sweep_three", dtype, compiled(kernels.sweep_three, THREE, dtype, *means, **options))
