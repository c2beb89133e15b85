"""The networks of the paper as data.

`build` makes a network from its name; `mponet.models.shapes` gives shapes and counts of its layers,
`mponet.models.init` initial parameters, `mponet.models.spec` the layers that networks are made of.
"""

from mponet.models.registry import FAMILIES as FAMILIES
from mponet.models.registry import PAPER_VARIANTS as PAPER_VARIANTS
from mponet.models.registry import VARIANTS as VARIANTS
from mponet.models.registry import Family as Family
from mponet.models.registry import build as build
from mponet.models.registry import family as family
from mponet.models.registry import full_name as full_name
from mponet.models.registry import published as published
from mponet.models.registry import spellings as spellings
from mponet.models.spec import Model as Model
