"""The same structure at the same share of the weights for every layer, without a search."""

import re

from mponet.compress import CompressConfig, Override
from mponet.operators.factors import factorize
from mponet.operators.shape import MPOShape
from mponet_torch.compression.network import NativeNetwork

MIN_WEIGHTS = 4096  # smaller layers stay dense


def uniform_config(model, keep, sites, *, include=None, metric="covariance"):
    """Every layer to the same share, as low rank (``sites`` is None) or over so many sites."""
    overrides = {}
    for target in NativeNetwork(model).targets():
        dims = factors(target, sites)
        bond = bond_of(dims, keep * target.weights)
        if target.weights >= MIN_WEIGHTS and (include is None or re.fullmatch(include, target.name)):
            overrides[re.escape(target.name)] = Override(input_dims=dims[0], output_dims=dims[1], bond=bond)
    return CompressConfig(
        keep=1.0,
        include=include,
        min_weights=MIN_WEIGHTS,
        overrides=overrides,
        metric=metric,
        allocation="uniform",
    )


def factors(target, sites):
    """Factors of inputs and outputs: those of low rank, or balanced ones."""
    n, m = target.in_features, target.out_features
    return ((n, 1), (1, m)) if sites is None else (factorize(n, sites), factorize(m, sites))


def bond_of(dims, weights):
    """The largest bond with at most so many weights, at least 1."""
    bond = 1
    while MPOShape.from_factors(*dims, bond + 1).parameters <= weights and bond < weights:
        bond += 1
    return bond
