"""Balanced operators on a language model: how much least squares repairs of what TT-SVD breaks.

Every query and output projection of SmolLM2-135M becomes a balanced operator of two sites with a
quarter of its weights.  Relative errors are of its outputs on the calibration text of
`compress_smollm2`: TT-SVD, alternating least squares in the covariance of the inputs, and whitened
SVD, the nearest matrix of low rank at as many weights.  Run from the root of the repository::

    python benchmarks/compress_balanced.py --sums sums.safetensors
"""

from pathlib import Path
from time import process_time

import compress_smollm2
from cells import Cells, parser

from mponet import MPO, MPOShape
from mponet.compress import Calibration, CompressConfig
from mponet.operators.factors import factorize
from mponet.operators.fit import fit
from mponet_torch.compression import calibrate

KEEP = 0.25
LAYERS = r"model\.layers\.\d+\.self_attn\.[qo]_proj"


def shapes(size):
    """The balanced shape and that of low rank, both at most at `KEEP` of the weights."""
    factors = factorize(size, 2)
    bond = int(KEEP * size * size / sum(i * i for i in factors))
    return MPOShape.from_factors(factors, factors, bond), MPOShape.from_factors(
        (size, 1), (1, size), int(KEEP * size / 2)
    )


def main():
    """Measure every layer."""
    options = parser(__doc__, "compress-balanced")
    options.add_argument("--sums", type=Path, help="file of the calibration; read if it exists, else written")
    options = options.parse_args()
    cells = Cells(options, {"benchmark": "compress-balanced", "keep": KEEP})
    model, tokenizer = compress_smollm2.load()
    if options.sums and options.sums.exists():
        sums = Calibration.load(options.sums)
    else:
        tokens, _ = compress_smollm2.texts(tokenizer)
        config = CompressConfig(keep=KEEP, include=LAYERS, allocation="uniform", metric="covariance")
        batches = [{"input_ids": window[None], "use_cache": False} for window in tokens.split(512)]
        sums = calibrate(model, config, batches)
        if options.sums:
            sums.save(options.sums)
    for kind in ("q_proj", "o_proj"):
        for number in range(model.config.num_hidden_layers):
            name = f"model.layers.{number}.self_attn.{kind}"

            def measured(name=name):
                matrix = model.get_submodule(name).weight.detach().double().numpy().T
                metric = sums.of(name).metric("covariance")
                balanced, low_rank = shapes(len(matrix))
                began = process_time()
                start = MPO.from_matrix(
                    matrix, balanced.input_dims, balanced.output_dims, max_bond=balanced.bond_dims[1]
                )
                fitted = fit(matrix, balanced, metric)
                seconds = process_time() - began
                return {
                    "tt_svd": metric.relative_error(matrix, start.to_matrix()),
                    "least_squares": fitted.error,
                    "whitened_svd": fit(matrix, low_rank, metric).error,
                    "seconds": seconds,
                }

            cells.measure(name, measured)


if __name__ == "__main__":
    main()
