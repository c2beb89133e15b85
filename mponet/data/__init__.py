"""Data sets as read-only NumPy arrays, and the order in which training sees them.

In the order of the flow:

* `load(name)` gives a `Dataset`: ``digits`` needs no network; ``mnist``, ``fashion-mnist`` and
  ``cifar10`` are read in their published formats from ``$MPONET_DATA`` or the cache, downloaded
  when absent, and used only if their SHA-256 is right.
* `fit(dataset, image_shape)` gives the images the shape that a model takes, or refuses.
* `batch_order(count, batch_size, seed=, epoch=)` says which images form which batch.
* `scaled(images)` turns pixels into float32 in [0, 1].

Importing this package imports NumPy and the standard library only; scipy, scikit-learn and pooch
are imported by the function that needs them.
"""

from mponet.data.batches import batch_order as batch_order
from mponet.data.catalogue import available as available
from mponet.data.catalogue import default_name as default_name
from mponet.data.catalogue import load as load
from mponet.data.catalogue import names as names
from mponet.data.dataset import Dataset as Dataset
from mponet.data.dataset import fit as fit
from mponet.data.dataset import resized as resized
from mponet.data.dataset import scaled as scaled
