"""`CompressionPlan`: what becomes of every layer, as a value to print, edit, save and carry out."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mponet.compress.edit import edited, follow
from mponet.compress.layer_plan import MAX_COUNT, LayerPlan
from mponet.compress.plan_file import parse, read, serialize, write
from mponet.compress.plan_text import layer_lines, wrapped
from mponet.display import NotebookRepr, page, save_picture
from mponet.errors import CompressionError

#: Endings of files that hold a picture of a plan.
PICTURES = (".svg", ".png", ".html", ".txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionPlan(NotebookRepr):
    """What becomes of a network.

    Attributes:
        layers: every module that holds a weight, in the order of the network.
        other_weights: weights of the network that belong to none of them.
        config: the config's fields, for the record.
        rows: rows of calibration data, at the input that saw the most.
        notes: what a reader should know of how the plan was made.

    Raises:
        CompressionError: two layers have the same name, or a number is out of range.
    """

    layers: tuple[LayerPlan, ...]
    other_weights: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if not 0 <= min(self.other_weights, self.rows) <= max(self.other_weights, self.rows) <= MAX_COUNT:
            raise CompressionError(
                f"other_weights is {self.other_weights} and rows is {self.rows}; expected numbers from 0 to {MAX_COUNT}"
            )
        if twice:
            raise CompressionError(f"the plan names {', '.join(twice)} twice; expected each module once")

    def __iter__(self) -> Iterator[LayerPlan]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> LayerPlan:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise CompressionError(f"the plan has no layer {name!r}; its layers are listed by print(plan)")

    @property
    def replaced(self) -> tuple[LayerPlan, ...]:
        """The layers that operators replace."""
        return tuple(layer for layer in self.layers if layer.replaced)

    @property
    def matched(self) -> tuple[LayerPlan, ...]:
        """The layers that the config lets be replaced, those left dense included.

        Tied ones once.
        """
        return tuple(layer for layer in self.layers if layer.matched and not layer.tied_to)

    @property
    def keep(self) -> float:
        """Share of the weights of the matched layers that is left."""
        dense = sum(layer.dense_weights for layer in self.matched)
        return sum(layer.weights for layer in self.matched) / dense if dense else 1.0

    @property
    def dense_network_weights(self) -> int:
        """Weights of the whole network as it is, tied ones once."""
        return self.other_weights + sum(layer.dense_weights for layer in self.layers if not layer.tied_to)

    @property
    def network_weights(self) -> int:
        """Weights of the whole network afterwards."""
        return self.other_weights + sum(layer.weights for layer in self.layers if not layer.tied_to)

    @property
    def network_keep(self) -> float:
        """Share of the weights of the whole network that is left."""
        dense = self.dense_network_weights
        return self.network_weights / dense if dense else 1.0

    @property
    def multiplications(self) -> tuple[int, int]:
        """Multiplications of the listed layers for one example, before and after."""
        return sum(x.dense_multiplications for x in self.layers), sum(x.multiplications for x in self.layers)

    @property
    def loss(self) -> float | None:
        """Predicted rise of the loss, the sum over the layers.

        None if that of a replaced one is unknown.
        """
        losses = [layer.loss for layer in self.replaced]
        return None if any(loss is None for loss in losses) else float(sum(loss or 0.0 for loss in losses))

    def replace(self, name: str, **changes: Any) -> "CompressionPlan":
        """The plan with one layer changed; what was predicted of it is then unknown.

        Args:
            name: of the layer.
            **changes: ``bond=64`` (one number or one for each inner bond), ``input_dims=`` and
                ``output_dims=`` (factors), or ``dense=True``.

        Raises:
            CompressionError: there is no such layer or change.
        """
        layer = edited(self[name], changes)
        changed = (follow(old, layer) if old.tied_to == name else old for old in self.layers)
        return replace(self, layers=tuple(layer if old.name == name else old for old in changed))

    def to_json(self) -> str:
        """The plan as JSON text; `from_json` reads it."""
        return serialize(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "CompressionPlan":
        """The plan of a JSON text.

        Raises:
            CompressionError: the text is not a plan, or a field is missing, unknown or of another
                type.
        """
        return cls(**parse(text))

    def to_html(self) -> str:
        """The plan as an HTML page in one file: totals, what is left of each layer, every layer."""
        return page(self)

    def save(self, path: str | Path) -> None:
        """Write the plan, atomically: as JSON, which `load` reads, or as a picture.

        Args:
            path: ends in ``.svg``, ``.png``, ``.html`` or ``.txt`` for a picture of that format;
                any other name is that of a JSON file.

        Raises:
            CheckpointError: the file cannot be written.
            BackendError: a PNG is wanted, and its converter is not installed.
        """
        path = Path(path)
        if path.suffix.lower() in PICTURES:
            save_picture(self, path)
        else:
            write(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "CompressionPlan":
        """Read a plan that `save` wrote as JSON.

        Raises:
            CheckpointError: the file cannot be read.
            CompressionError: it is not a plan.
        """
        return cls.from_json(read(Path(path)))

    def __str__(self) -> str:
        lines = [*self._totals(), "", *layer_lines(self.layers)]
        for note in self.notes:
            lines += wrapped(f"note: {note}")
        return "\n".join(lines)

    def _totals(self) -> list[str]:
        before, after = self.multiplications
        dense = sum(layer.dense_weights for layer in self.matched)
        lines = [
            f"{len(self.replaced)} of {len(self.matched)} matched layers become operators",
            f"weights of matched layers:    {dense:,} -> {sum(layer.weights for layer in self.matched):,} "
            f"(keep {self.keep:.4f})",
            f"weights of the network:       {self.dense_network_weights:,} -> {self.network_weights:,} "
            f"(keep {self.network_keep:.4f})",
            f"multiplications per example:  {before:,} -> {after:,}",
        ]
        if self.loss is not None:
            lines.append(f"predicted rise of the loss:   {self.loss:.3g}")
        return [*lines, *([f"calibration rows:             {self.rows:,}"] if self.rows else [])]
