"""Operators against quantised weights on SmolLM2-135M, at equal bytes, and both together.

Weights of the 210 linear layers are rounded to nearest, symmetric, in groups of 32 with a scale of
16 bits: the dense ones, and those of a compressed model.  No calibration corrects the rounding, so
better quantisers exist; the compressed models have the best fit that mponet has.  Run from the root
of the repository::

    python benchmarks/compress_quantized.py --sums sums.safetensors
"""

from copy import deepcopy
from pathlib import Path

import compress_smollm2
import torch
from cells import Cells, parser

from mponet.compress import Calibration, CompressConfig
from mponet_torch import MPOLinear, calibrate, compress

GROUP, SCALE_BITS = 32, 16


def rounded(tensor, bits):
    """Round to nearest in groups of `GROUP` numbers, symmetric."""
    flat = tensor.detach().reshape(-1)
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % GROUP)).view(-1, GROUP)
    largest = 2 ** (bits - 1) - 1
    scale = (padded.abs().amax(1, keepdim=True) / largest).half().float().clamp_min(1e-12)
    return ((padded / scale).round().clamp(-largest, largest) * scale).reshape(-1)[: len(flat)].view_as(tensor)


def quantised(model, names, bits):
    """A copy with the weights of some layers rounded, and their bytes."""
    copy, stored = deepcopy(model), 0.0
    with torch.no_grad():
        for name in names:
            module = copy.get_submodule(name)
            tensors = module.tensors if isinstance(module, MPOLinear) else [module.weight]
            for tensor in tensors:
                tensor.copy_(rounded(tensor, bits) if bits < 16 else tensor)
                stored += tensor.numel() * (bits + (SCALE_BITS / GROUP if bits < 16 else 0)) / 8
    return copy, stored


def main():
    """Measure every number of bits for dense and compressed weights."""
    options = parser(__doc__, "compress-quantized")
    options.add_argument("--sums", type=Path, help="file of the calibration; read if it exists, else written")
    options.add_argument("--keep", type=float, nargs="+", default=[0.8, 0.6])
    options.add_argument("--bits", type=int, nargs="+", default=[16, 8, 4, 3])
    options = options.parse_args()
    cells = Cells(options, {"benchmark": "compress-quantized", "group": GROUP})
    model, tokenizer = compress_smollm2.load()
    tokens, held_out = compress_smollm2.texts(tokenizer)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    names.remove("lm_head")

    def measured(network, bits):
        copy, stored = quantised(network, names, bits)
        values = {name: compress_smollm2.perplexity(copy, text) for name, text in held_out.items()}
        return {"bits": bits, "bytes": stored, **values}

    for bits in options.bits:
        cells.measure(f"dense {bits}", lambda bits=bits: measured(model, bits))
    for keep in options.keep:
        wanted = [f"{keep} {bits}" for bits in options.bits]
        if not cells.wants(*wanted):
            continue
        config = CompressConfig(keep=keep, structures=("low-rank",))
        batches = [{"input_ids": window[None], "use_cache": False} for window in tokens.split(512)]
        if options.sums and options.sums.exists():
            sums = Calibration.load(options.sums)
        else:
            sums = calibrate(model, config, batches, loss=compress_smollm2.next_token_loss)
            if options.sums:
                sums.save(options.sums)
        small, report = compress(model, config, sums)
        del sums
        for bits in options.bits:

            def compressed(bits=bits, small=small, kept=report.plan.keep):
                return measured(small, bits) | {"keep": kept}

            cells.measure(f"{keep} {bits}", compressed)


if __name__ == "__main__":
    main()
