"""A mask laid out over certain tokens, ready to be drawn.

`ascii_plot.py` writes it as text, `plotting/masks.py` draws it with matplotlib.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from .expressions import Mask, MaskError
from .layout import Layout, lay_out
from .limits import CELLS_LIMIT, brief
from .materialize import compile_mask
from .reference import depends_on_head
from .rules import full, heads, layers
from .scope import Scope
from .tensor_mask import MaskLike, TensorMask, as_mask

DEFAULT_LENGTH = 12
_AXES: dict[Scope, tuple[str, str]] = {
    "cross": ("target", "source"),
    "encoder": ("source", "source"),
    "decoder": ("target", "target"),
}
_LONGEST_LABEL = 16


@dataclass(frozen=True)
class Side:
    """An axis: its name, its number of tokens, and their texts, segments and passages, if known."""

    name: str
    length: int
    tokens: tuple[str, ...] | None = None
    segments: tuple[int, ...] | None = None
    passages: tuple[int, ...] | None = None

    def layout(self) -> Layout:
        segments, passages = (None if ids is None else torch.tensor([ids]) for ids in (self.segments, self.passages))
        return lay_out(self.length, torch.device("cpu"), segment_ids=segments, passage_ids=passages)


@dataclass(frozen=True, eq=False)
class View:
    """A mask laid out over certain tokens: `allowed` is (T, S) bool; rows are queries, columns are keys."""

    title: str
    allowed: torch.Tensor
    rows: Side
    columns: Side

    @property
    def padding(self) -> torch.Tensor:
        """Whether the row or the column is padding: (T, S) bool."""
        row, column = (
            torch.zeros(side.length, dtype=torch.bool) if side.segments is None else torch.tensor(side.segments) == 0
            for side in (self.rows, self.columns)
        )
        return row[:, None] | column[None, :]


def lay_view(
    mask: MaskLike,
    source: int | None = None,
    target: int | None = None,
    *,
    source_tokens: Sequence[str] | None = None,
    target_tokens: Sequence[str] | None = None,
    source_segments: Sequence[int] | None = None,
    target_segments: Sequence[int] | None = None,
    source_passages: Sequence[int] | None = None,
    scope: Scope = "cross",
    head: int = 0,
    layer: int = 0,
) -> View:
    """Lay a mask out over tokens, for `picture` and `plotting.masks.plot`.

    Args:
        mask: a mask, its text, or a boolean tensor (T, S), which may have dimensions of size 1 before these.
        source: S, the number of columns (keys); by default the number of tokens or segments, or else 12.
        target: T, the number of rows (queries); by default likewise, or else the number of columns.
        source_tokens, target_tokens: what to write on the axes instead of positions.
        source_segments, target_segments: S and T integers, 0 for padding and a number from 1 up for each packed
            example; positions start again in each.
        source_passages: S integers, a number from 0 up for each passage.
        scope: `"cross"`, `"encoder"` or `"decoder"`: names the axes. In the latter two both sides are the same
            sequence, and tokens and segments of the columns are those of the rows too.
        head, layer: which head and layer to show, if the mask differs between them.

    Raises:
        MaskError: the mask cannot be read, or lengths do not fit together.
    """
    if scope not in _AXES:
        raise MaskError(f"scope must be one of {', '.join(map(repr, _AXES))}, got {scope!r}")
    checked = as_mask(mask)
    if checked is None:
        raise MaskError("mask must be a mask, its text or a boolean tensor, got None")
    tensor_mask = _flat(checked) if isinstance(checked, TensorMask) else None
    shape = (None, None) if tensor_mask is None else tuple(tensor_mask.shape[-2:])
    if scope != "cross" and target is None:
        target_tokens = source_tokens if target_tokens is None else target_tokens
        target_segments = source_segments if target_segments is None else target_segments
    columns = _side("source", _AXES[scope][1], source, source_tokens, source_segments, shape[1], DEFAULT_LENGTH)
    rows = _side("target", _AXES[scope][0], target, target_tokens, target_segments, shape[0], columns.length)
    if source_passages is not None:
        if len(source_passages) != columns.length:
            raise MaskError(
                f"source_passages must have a number for each of {columns.length} source tokens, got "
                f"{len(source_passages)}"
            )
        columns = replace(columns, passages=tuple(map(int, source_passages)))
        rows = rows if scope == "cross" else replace(rows, passages=columns.passages)
    for name, number in (("head", head), ("layer", layer)):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
            raise MaskError(f"{name} must be a number from 0, got {brief(number)}")
    rule, title = (full(), "tensor") if isinstance(checked, TensorMask) else _choose(checked, head, layer)
    count = _count(rule, heads, head)
    if rows.length * columns.length * count > CELLS_LIMIT:
        raise MaskError(
            f"a picture must have at most {CELLS_LIMIT:,} cells, got {brief(rows.length)} rows, "
            f"{brief(columns.length)} columns and {count} head{'s' * (count > 1)}; choose fewer, or a lower head"
        )
    allowed = compile_mask(rule, rows.layout(), columns.layout(), tensor_mask, heads=count)
    if allowed is None:
        allowed = torch.ones(1, 1, rows.length, columns.length, dtype=torch.bool)
    allowed = allowed[0, head if allowed.shape[1] > 1 else 0]
    return View(title, allowed.expand(rows.length, columns.length), rows, columns)


def _choose(mask: Mask, head: int, layer: int) -> tuple[Mask, str]:
    """The mask of one layer, and a title that names the layer and the head, if the mask differs between them."""
    chosen = mask.for_layer(layer, _count(mask, layers, layer))
    shown = {"layer": layer} if any(isinstance(rule, layers) for rule in mask.rules()) else {}
    if depends_on_head(chosen):
        shown["head"] = head
    return chosen, "; ".join([_title(mask), *(f"{name} {number}" for name, number in shown.items())])


def _count(mask: Mask, kind: type[heads | layers], least: int) -> int:
    """The smallest number of heads or layers that includes `least` and all that the mask names."""
    highest = [rule.runs[-1][1] for rule in mask.rules() if isinstance(rule, kind) and rule.runs]
    return max([least, *highest]) + 1


def _title(mask: Mask) -> str:
    """The text of the mask, shortened if it is too long to read."""
    return mask.text() if mask.extent.characters <= 2000 else mask.brief_text()


def _side(
    argument: str,
    name: str,
    length: int | None,
    tokens: Sequence[str] | None,
    segments: Sequence[int] | None,
    width: int | None,
    default: int,
) -> Side:
    if isinstance(length, list | tuple | str):
        raise MaskError(
            f"{argument} must be a number of tokens, got {brief(length)}; write {argument}_tokens=[...] for tokens"
        )
    sizes = {
        argument: length,
        f"{argument}_tokens": None if tokens is None else len(tokens),
        f"{argument}_segments": None if segments is None else len(segments),
        "the tensor": width,
    }
    lengths = {owner: size for owner, size in sizes.items() if size is not None}
    if len(set(lengths.values())) > 1:
        different = " and ".join(f"{size} for {owner}" for owner, size in lengths.items())
        raise MaskError(f"the numbers of {argument} tokens must be equal, got {different}")
    length = next(iter(lengths.values()), default)
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise MaskError(f"{argument} must be at least 1 token, got {brief(length)}")
    return Side(
        name,
        length,
        None if tokens is None else tuple(tokens),
        None if segments is None else tuple(int(segment) for segment in segments),
    )


def _flat(mask: TensorMask) -> torch.Tensor:
    """A tensor mask of one example and one head: (1, 1, T, S) bool."""
    allowed = mask.allowed.cpu()
    if any(size != 1 for size in allowed.shape[:-2]):
        raise MaskError(f"a picture must be of (T, S), got {tuple(allowed.shape)}; choose one example and head")
    return allowed.reshape(1, 1, *allowed.shape[-2:])


def labels(side: Side) -> list[str]:
    """What to write on an axis: printable tokens, shortened if they are long, or positions, but none for padding."""
    if side.tokens is None:
        segments = side.segments or (1,) * side.length
        positions = side.layout().positions[0].tolist()
        return [str(position) if segment else "" for position, segment in zip(positions, segments, strict=True)]
    return [printable(token) for token in side.tokens]


def printable(token: str) -> str:
    """A token without control characters, at most 16 characters long, with signs for spaces and for nothing."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in token)
    text = text if text.strip() else "␣" * len(text) or "∅"
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
