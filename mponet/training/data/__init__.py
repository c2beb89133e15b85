"""Data sets as read-only NumPy arrays, and the order in which training sees them.

In the order of the flow:

* `load(name)` gives a `Dataset`: ``digits`` needs no network; ``mnist``, ``fashion-mnist`` and
  ``cifar10`` are read in their published formats from ``$MPONET_DATA`` or the cache, downloaded
  when absent, and used only if their SHA-256 is right.
* `fit(dataset, image_shape)` gives the images the shape that a model takes, or refuses.
* `batch_order(count, batch_size, seed=, epoch=)` says which images form which batch.
* `Arrays.of(dataset, image_shape, recipe)` normalises images as a recipe asks; `scaled(images)` is
the plainest way.
* `batches(arrays, model, recipe, seed=)` augments and hands out batches, made ahead of the steps
that use them.

Importing this package imports NumPy and the standard library only; scipy, scikit-learn and pooch
are imported by the function that needs them.
"""

from mponet.training.data.augment import crop_flip as crop_flip
from mponet.training.data.catalogue import available as available
from mponet.training.data.catalogue import default_name as default_name
from mponet.training.data.catalogue import load as load
from mponet.training.data.catalogue import names as names
from mponet.training.data.dataset import Dataset as Dataset
from mponet.training.data.dataset import fit as fit
from mponet.training.data.dataset import resized as resized
from mponet.training.data.dataset import scaled as scaled
from mponet.training.data.normalize import Normalization as Normalization
from mponet.training.data.order import augmentation_rng as augmentation_rng
from mponet.training.data.order import batch_order as batch_order
from mponet.training.data.stream import Arrays as Arrays
from mponet.training.data.stream import Batch as Batch
from mponet.training.data.stream import batches as batches
from mponet.training.data.stream import steps_per_epoch as steps_per_epoch
