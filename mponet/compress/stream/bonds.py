"""A job whose operators all have one bond."""

import re
from dataclasses import replace

from mponet.compress.config import Override
from mponet.compress.select import select
from mponet.compress.stream.job import Job
from mponet.compress.structures import layouts
from mponet.errors import CompressionError

#: Family of the factors where none is named.
DEFAULT = ("balanced",)


def with_bond(job: Job, bond: int, structures: tuple[str, ...] = ()) -> Job:
    """The job with an override for every matrix that may be replaced.

    A matrix that would have more weights as an operator is left dense.

    Args:
        job: its config says which matrices may be replaced.
        bond: inner bond of every operator; of a product of two matrices, its rank.
        structures: families of factors; the first layout that one of them offers is taken.

    Raises:
        CompressionError: the config has another budget, or no matrix would become smaller.
    """
    if job.config.budget != ("keep", 1.0):
        raise CompressionError("bond is given with keep or error; expected one of them, since a bond decides both")
    overrides = {}
    for entry in select(job.targets, job.config):
        offered = layouts(entry.target, structures or DEFAULT) if not entry.reason else []
        if not offered:
            continue
        layout = offered[0]
        shape = layout.shape((bond,) * (len(layout.input_dims) - 1))
        if shape.parameters < entry.target.weights:
            bonds = tuple(shape.bond_dims[1:-1])
            given = Override(input_dims=layout.input_dims, output_dims=layout.output_dims, bond=bonds)
            overrides[re.escape(entry.target.name)] = given
    if not overrides:
        raise CompressionError(f"with bond {bond} no matrix has fewer weights than before; expected a smaller bond")
    return replace(job, config=replace(job.config, overrides={**overrides, **job.config.overrides}))
