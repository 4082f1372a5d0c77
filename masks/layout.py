"""How one side of a batch is laid out: which segment each token belongs to, and its position in it."""

from dataclasses import dataclass

import torch

from .base import MaskError


@dataclass(frozen=True)
class Layout:
    """The places of all tokens on one side (the queries', or the keys').

    Attributes:
        positions: (B, L) or (1, L) int64, counted from 0 inside each segment.
        segments: (B, L) or (1, L) int64, 0 for padding, or None where nothing is padded or packed.
    """

    positions: torch.Tensor
    segments: torch.Tensor | None = None

    @property
    def length(self) -> int:
        return self.positions.shape[1]

    def pick(self, indices: torch.Tensor) -> "Layout":
        """The layout of the tokens at `indices`, (T,) int64."""
        segments = None if self.segments is None else self.segments.index_select(1, indices)
        return Layout(self.positions.index_select(1, indices), segments)


def lay_out(
    length: int,
    device: torch.device,
    *,
    attention_mask: torch.Tensor | None = None,
    segment_ids: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
) -> Layout:
    """Lay out a side from what the caller gave.

    Args:
        length: L, the number of tokens.
        attention_mask: (B, L), 1 for tokens and 0 for padding.
        segment_ids: (B, L) integers, 0 for padding, one number from 1 up for each packed example.
        position_ids: (B, L) integers, if positions are not simply counted inside each segment.

    Raises:
        MaskError: a tensor that is not (B, L).
    """
    for name, tensor in (
        ("attention mask", attention_mask),
        ("segment ids", segment_ids),
        ("position ids", position_ids),
    ):
        if tensor is not None and (tensor.ndim != 2 or tensor.shape[1] != length):
            mend = "pass masks with more dimensions as encoder_mask, decoder_mask or cross_mask"
            raise MaskError(f"the {name} must be (batch, {length}), got {tuple(tensor.shape)}; {mend}")
    segments = _segments(attention_mask, segment_ids)
    if position_ids is not None:
        positions = position_ids.to(device=device, dtype=torch.long)
    elif segments is None:
        positions = torch.arange(length, device=device)[None]
    elif segment_ids is None:
        positions = (segments.cumsum(-1) - 1).clamp(min=0)
    else:
        positions = count_in_segments(segments)
    return Layout(positions, segments)


def _segments(attention_mask: torch.Tensor | None, segment_ids: torch.Tensor | None) -> torch.Tensor | None:
    if segment_ids is not None:
        segments = segment_ids.long()
        return segments if attention_mask is None else segments * (attention_mask != 0)
    if attention_mask is None or _all_ones(attention_mask):
        return None
    return (attention_mask != 0).long()


def _all_ones(attention_mask: torch.Tensor) -> bool:
    # Looking at the values is free on CPU; elsewhere the host would wait, and under a tracer it cannot be done.
    return attention_mask.device.type == "cpu" and not torch.compiler.is_compiling() and bool(attention_mask.all())


def count_in_segments(segments: torch.Tensor) -> torch.Tensor:
    """How many earlier tokens of its row have the same segment: (B, L) int64 to (B, L) int64.

    Segments need not be contiguous.
    """
    order = segments.argsort(dim=-1, stable=True)
    grouped = segments.gather(-1, order)
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts = torch.ones_like(grouped, dtype=torch.bool)
    starts[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    first = torch.where(starts, index, 0).cummax(dim=-1).values
    return torch.empty_like(segments).scatter_(-1, order, index - first)
