"""What a framework has to offer so that its compressed networks can be healed.

The core decides which parameters move, at which rates, for how long, and what becomes of the
operators' bonds; an adapter runs one step.  Conventions that every adapter keeps:

- Names of parameters and modules are those of the framework, ``layers.0.attention.core1``.  A tied
  parameter has one name.
- `HealAdapter.state` gives the whole student, and the optimiser's moments of what moves.
- The teacher runs in inference mode, without gradients.
- A step's loss is ``logits * D(outputs) + hidden_weight * D(hidden) + labels * L``, as `HealConfig`
  says.  Where the batch has an ``attention_mask``, rows that it hides do not count.
- Adam is that of Kingma and Ba with bias correction and ``eps = 1e-8``; SGD is ``v <- momentum v +
  g``, ``w <- w - lr v``.  Gradients are clipped by their norm over all parameters, after weight
  decay was added.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: Beginnings of the names in `HealAdapter.state`; the name of a parameter or statistic follows.
PARAMETERS, STATISTICS, FIRST, SECOND = "parameters/", "statistics/", "first/", "second/"
State = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class OperatorParameters:
    """The parameters of a layer whose weight is an operator.

    Attributes:
        cores: their names, in order.
        others: names of those that are not cores: the bias.
        is_chain: whether the operator is a chain of cores, ``(left, input, output, right)``.
    """

    cores: tuple[str, ...]
    others: tuple[str, ...]
    is_chain: bool = True


class HealAdapter(Protocol):
    """A student and its teacher in one framework."""

    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of all parameters of the student."""
        ...

    def operators(self) -> Mapping[str, OperatorParameters]:
        """The operators of the student, by name of their module."""
        ...

    def start(self, factors: Mapping[str, float]) -> None:
        """Prepare training: the parameters that move, and the factors of their learning rates."""
        ...

    def step(self, batch: Any, rate: float, step: int) -> Any:
        """One optimiser step on a batch; the loss before it, as something ``float()`` reads.

        Args:
            batch: the student's own inputs.
            rate: learning rate, to be multiplied with the factors.
            step: number of the step, from 0, which seeds dropout.
        """
        ...

    def loss(self, batches: Iterable[Any]) -> float:
        """The mean loss on some batches, the student in inference mode."""
        ...

    def state(self) -> State:
        """Arrays of the student and of the optimiser.

        Parameters, running statistics, first moments (of SGD the velocity) and second moments
        (Adam), by `PARAMETERS` and so on with a name after it.
        """
        ...

    def restore(self, state: State, step: int) -> None:
        """Take over what `state` gave after so many steps."""
        ...

    def resize(self, operator: str, cores: Sequence[NDArray[np.float64]]) -> None:
        """Give an operator other bonds and cores; `restore` follows."""
        ...

    def close(self) -> None:
        """Give student and teacher back as they were: modes, what requires gradients, hooks."""
        ...
