"""Every error that mponet raises on purpose.

The tree (each class also inherits the builtin that callers would expect to catch)::

    MPONetError
    ├── ShapeError       (ValueError)    factors, bonds and array shapes that do not fit together
    ├── InputError       (ValueError)    an unusable value: non-finite, complex, out of range
    ├── GraphError       (ValueError)    a tensor network that is not a legal layer
    ├── PlanError        (ValueError)    a contraction plan that cannot be made, or of another layer
    ├── ModelError       (ValueError)    an unknown model, or layers that do not follow one another
    ├── RecipeError      (ValueError)    a training recipe or run setting that makes no sense
    │   └── InUseError                   a folder that another process works in
    ├── BackendError     (ImportError)   a framework that is unknown, missing or lacks a feature
    ├── DataError        (ValueError)    a data set that is unknown, absent, truncated or altered
    ├── CompressionError (ValueError)    a network that cannot be compressed, or a plan for another
    ├── ExportError      (ValueError)    a network that cannot be exported, or whose file deviates
    ├── CheckpointError  (ValueError)    a file that is damaged, foreign, or of another model
    └── DivergedError    (ArithmeticError)  training reached a loss that is not finite

A message says four things, in this order: what was wrong, the value, what was expected, what to do.
"""


class MPONetError(Exception):
    """Base of every error raised on purpose by mponet."""


class ShapeError(MPONetError, ValueError):
    """Factors, bond dimensions and array shapes do not fit together."""


class InputError(MPONetError, ValueError):
    """A value cannot be used: not finite, complex, or out of range."""


class GraphError(MPONetError, ValueError):
    """A tensor network is not a legal layer."""


class PlanError(MPONetError, ValueError):
    """A contraction plan cannot be made, or does not belong to its layer."""


class ModelError(MPONetError, ValueError):
    """A model is unknown, or its layers do not follow one another."""


class RecipeError(MPONetError, ValueError):
    """A training recipe or a run setting makes no sense."""


class InUseError(RecipeError):
    """Another process works in a folder."""


class BackendError(MPONetError, ImportError):
    """A framework is unknown, missing, or cannot do what was asked."""


class DataError(MPONetError, ValueError):
    """A data set is unknown, absent, truncated or altered."""


class CompressionError(MPONetError, ValueError):
    """A network cannot be compressed as asked, or a plan does not belong to it."""


class ExportError(MPONetError, ValueError):
    """A network cannot be exported, or what was written gives other outputs."""


class CheckpointError(MPONetError, ValueError):
    """A file is not a checkpoint of ours, or belongs to another model."""


class DivergedError(MPONetError, ArithmeticError):
    """Training reached a loss that is not finite."""


class SizeWarning(UserWarning):
    """An operator has more weights than the dense matrix that it replaces."""
