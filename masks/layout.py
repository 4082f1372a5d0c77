"""How one side of a batch is laid out: which segment each token belongs to, and its position in it."""

from dataclasses import dataclass

import torch

from .expressions import MaskError
from .fast_paths import fast_path_allowed


@dataclass(frozen=True)
class Layout:
    """The positions of all tokens on one side (the queries', or the keys').

    Attributes:
        positions: (B, L) or (1, L) int64, counted from 0 inside each segment.
        segments: (B, L) or (1, L) int64, 0 for padding, or None where nothing is padded or packed.
        passages: (B, L) or (1, L) int64, counted from 0 inside each example, or None where there are none.
        rows: (B,) int64, ascending: which row of the batch each row belongs to, since hypotheses of one example are
            rows of their own in beam search; or the number of rows B where each is its own; or None where unknown.
        packed: whether a row may hold several examples.
        may_grow: whether more tokens may follow, as in a target, so that a rule may name some that are not there.
    """

    positions: torch.Tensor
    segments: torch.Tensor | None = None
    passages: torch.Tensor | None = None
    rows: torch.Tensor | int | None = None
    packed: bool = False
    slice_of: "tuple[Layout, torch.Tensor] | None" = None  # the whole layout, and which of its tokens these are
    may_grow: bool = False

    @property
    def length(self) -> int:
        return self.positions.shape[1]

    @property
    def examples(self) -> torch.Tensor:
        """The number of the example in the batch, counted from 0: (B, L) for packed rows, else (B, 1) int64.

        The highest segment number of a packed row is its number of examples; padding has the row's first one's.
        """
        if self.slice_of is not None:
            full_layout, indices = self.slice_of
            return full_layout.examples.index_select(1, indices)
        rows = self.rows
        if rows is None:
            sides = (self.positions, self.segments, self.passages)
            rows = max(side.shape[0] for side in sides if side is not None)
        if not isinstance(rows, torch.Tensor) or rows.ndim == 0:  # a tracer's number is neither int nor (B,)
            rows = torch.arange(rows, device=self.positions.device)  # type: ignore[arg-type]  # torch takes such a number
        if not self.packed or self.segments is None:
            return rows[:, None]
        counts = self.segments.amax(-1).clamp(min=1).expand(rows.shape[0])
        # Rows of one example are counted once.
        first = (counts * _begins(rows)).cumsum(0) - counts
        return first[:, None] + (self.segments - 1).clamp(min=0)

    def pick(self, indices: torch.Tensor) -> "Layout":
        """The layout of the tokens at `indices`, (T,) int64."""
        segments, passages = (
            None if side is None else side.index_select(1, indices) for side in (self.segments, self.passages)
        )
        # Only whole rows tell how many examples they have.
        slice_of = (self, indices) if self.packed else None
        return Layout(
            self.positions.index_select(1, indices), segments, passages, self.rows, self.packed, slice_of=slice_of
        )


def lay_out(
    length: int,
    device: torch.device,
    *,
    attention_mask: torch.Tensor | None = None,
    segment_ids: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    passage_ids: torch.Tensor | None = None,
    rows: torch.Tensor | int | None = None,
) -> Layout:
    """Lay out a side from what the caller gave.

    Args:
        length: L, the number of tokens.
        attention_mask: (B, L), 1 for tokens and 0 for padding.
        segment_ids: (B, L) integers, 0 for padding, one number from 1 up for each packed example.
        position_ids: (B, L) integers, if positions are not simply counted inside each segment.
        passage_ids: (B, L) integers, one number from 0 up for each passage of an example, below 0 for tokens in none.
            Positions go on through the passages, so that a position names one token of the example.
        rows: as in `Layout`.

    On CPU the values are checked too. On an accelerator the host would have to wait for them, and under a tracer there
    are none, so there they are taken as they are.

    Raises:
        MaskError: a tensor that is not (B, L), of a dtype that cannot be, or with values that cannot be.
    """
    if attention_mask is not None:
        _check_shape("attention mask", attention_mask, length, rows)
        _check_zeros_and_ones(attention_mask)
    if segment_ids is not None:
        _check_ids("segment ids", segment_ids, length, rows)
    segments = _segments(attention_mask, segment_ids)
    if position_ids is not None:
        _check_ids("position ids", position_ids, length, rows, None if segments is None else segments == 0)
    if passage_ids is not None:
        _check_integers("passage ids", passage_ids, length, rows)
    if position_ids is not None:
        positions = position_ids.to(device=device, dtype=torch.long)
    elif segments is None:
        positions = torch.arange(length, device=device)[None]
    elif segment_ids is None:
        positions = (segments.cumsum(-1) - 1).clamp(min=0)
    else:
        positions = count_in_segments(segments)
    passages = None if passage_ids is None else passage_ids.to(device=device, dtype=torch.long)
    return Layout(positions, segments, passages, rows, packed=segment_ids is not None)


def _check_shape(name: str, tensor: torch.Tensor, length: int, rows: torch.Tensor | int | None) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise MaskError(f"the {name} must be a torch tensor, got {type(tensor).__name__}; write torch.as_tensor(...)")
    if tensor.ndim != 2 or tensor.shape[1] != length:
        remedy = "pass masks with more dimensions as encoder_mask, decoder_mask or cross_mask"
        raise MaskError(f"the {name} must be (batch, {length}), got {tuple(tensor.shape)}; {remedy}")
    if rows is not None and not isinstance(rows, torch.Tensor) and tensor.shape[0] not in (1, rows):
        raise MaskError(f"the {name} must be ({rows}, {length}), the batch's, got {tuple(tensor.shape)}")


def _check_zeros_and_ones(mask: torch.Tensor) -> None:
    if mask.is_complex():
        raise MaskError(f"the attention mask must be bool or hold 1 for tokens and 0 for padding, got {mask.dtype}")
    if mask.dtype == torch.bool or not fast_path_allowed(mask):
        return
    wrong = mask.masked_select((mask != 0) & (mask != 1))
    if wrong.shape[0]:
        raise MaskError(
            f"the attention mask must hold 1 for tokens and 0 for padding, got {wrong[0].item()}; compare it to get "
            "booleans, `mask == 0` for an additive mask"
        )


def _check_integers(name: str, ids: torch.Tensor, length: int, rows: torch.Tensor | int | None) -> None:
    _check_shape(name, ids, length, rows)
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
        raise MaskError(f"the {name} must be integers, got {ids.dtype}; write ids.long() if the numbers are whole")


def _check_ids(
    name: str,
    ids: torch.Tensor,
    length: int,
    rows: torch.Tensor | int | None,
    padding: torch.Tensor | None = None,
) -> None:
    """Check numbers that count from 0; padding, bool, may have any, -1 for instance, since nothing reads it."""
    _check_integers(name, ids, length, rows)
    if not fast_path_allowed(ids, padding):
        return
    wrong = ids < 0 if padding is None else (ids < 0) & ~padding
    if bool(wrong.any()):
        lowest = ids.expand_as(wrong)[wrong].min().item()
        raise MaskError(f"the {name} must be integers from 0 up, got {lowest}; count them from 0")


def _segments(attention_mask: torch.Tensor | None, segment_ids: torch.Tensor | None) -> torch.Tensor | None:
    if segment_ids is not None:
        segments = segment_ids.long()
        return segments if attention_mask is None else segments * (attention_mask != 0)
    if attention_mask is None or _all_ones(attention_mask):
        return None
    return (attention_mask != 0).long()


def _all_ones(attention_mask: torch.Tensor) -> bool:
    return fast_path_allowed(attention_mask) and bool(attention_mask.all())


def count_in_segments(segments: torch.Tensor) -> torch.Tensor:
    """How many earlier tokens of its row have the same segment: (B, L) int64 to (B, L) int64.

    Segments need not be contiguous.
    """
    order = segments.argsort(dim=-1, stable=True)
    grouped = segments.gather(-1, order)
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    first = torch.where(_begins(grouped), index, 0).cummax(dim=-1).values
    return torch.empty_like(segments).scatter_(-1, order, index - first)


def _begins(numbers: torch.Tensor) -> torch.Tensor:
    """Where a run of equal numbers, from 0 up, begins: (..., L) to the same, bool.

    Padded rather than cut: a slice of L - 1 would make exported programs refuse an L of 2.
    """
    before = torch.nn.functional.pad(numbers, (1, 0), value=-1)[..., :-1]
    return numbers != before
