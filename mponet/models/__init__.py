"""The networks of the paper as data.

`build` makes a network, `shapes` counts its parameters, `init` gives its initial values.
"""

from mponet.models.registry import TABLE as TABLE
from mponet.models.registry import VARIANTS as VARIANTS
from mponet.models.registry import Family as Family
from mponet.models.registry import build as build
from mponet.models.registry import family as family
from mponet.models.registry import family_name as family_name
from mponet.models.registry import known as known
from mponet.models.registry import named as named
from mponet.models.registry import published as published
from mponet.models.spec import Model as Model
