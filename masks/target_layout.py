"""How the target is laid out, from the first pass over it to the last step of generation."""

from dataclasses import dataclass, replace

import torch

from .expressions import MaskError
from .fast_paths import fast_path_allowed
from .layout import Layout, lay_out


@dataclass(frozen=True)
class TargetLayout:
    """The new tokens of a target, and all of them, cached ones included.

    Attributes:
        query: the T new tokens.
        key: all tokens, as wide as the cache; what a static cache has not written yet is padding.
        rows: (T,) int64, the indices of the new tokens, counted from the start token.
        seen: how many tokens there have been so far, or None where only the device knows.
        is_last: whether the only new token is the last of the keys themselves, in rows without padding whose positions
            are counted, so that `causal()` forbids it nothing on its own side.
    """

    query: Layout
    key: Layout
    rows: torch.Tensor
    seen: int | None
    is_last: bool


def lay_out_target(
    length: int,
    past: int | torch.Tensor,
    capacity: int,
    device: torch.device,
    *,
    batch: int,
    examples: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    segment_ids: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
) -> TargetLayout:
    """Lay out T new tokens behind P cached ones.

    Args:
        length: T. past: P; a tensor where a static cache counts on the device.
        capacity: how many tokens attention has as keys: P + T, or all that a static cache can hold.
        batch: B.
        examples: (B,) int64, ascending, which row of the encoder's batch each row belongs to; each its own by default.
        attention_mask, segment_ids, position_ids: (B, P + T) or (B, capacity), as in `lay_out`.

    Raises:
        MaskError: tensors of another length, more tokens than a static cache can hold, `examples` of another shape.
    """
    # Asking the device would make the host wait, and break a compiled graph.
    seen = past + length if isinstance(past, int) else None
    if isinstance(past, torch.Tensor) and fast_path_allowed(past) and int(past) + length > capacity:
        raise MaskError(
            f"past_key_values must have places for {int(past) + length} target tokens, got {capacity}; give a cache "
            "with a larger max_cache_len"
        )
    if examples is not None and tuple(examples.shape) != (batch,):
        raise MaskError(f"example_ids must be ({batch},), one for each row, got {tuple(examples.shape)}")
    rows = past + torch.arange(length, device=device)
    of_call = {"attention_mask": attention_mask, "segment_ids": segment_ids, "position_ids": position_ids}
    filled = {name: _fill(name, tensor, seen, capacity) for name, tensor in of_call.items()}
    key = lay_out(capacity, device, rows=batch, **filled)
    if capacity != seen:
        segments = torch.ones_like(key.positions) if key.segments is None else key.segments
        unwritten = torch.arange(capacity, device=device) > rows[-1]
        key = replace(key, segments=segments.masked_fill(unwritten, 0))
    key = replace(key, rows=batch if examples is None else examples, may_grow=True)
    query = key if capacity == length else key.pick(rows)
    # A trace made on one token is run on more.
    is_last = length == 1 and capacity == seen and not torch.jit.is_tracing()
    is_last = is_last and all(tensor is None for tensor in of_call.values())
    return TargetLayout(query, key, rows, seen, is_last)


def _fill(name: str, tensor: torch.Tensor | None, seen: int | None, capacity: int) -> torch.Tensor | None:
    """A tensor of the target, as wide as the cache."""
    if tensor is None:
        return None
    if seen is not None and tensor.shape[-1] not in (seen, capacity):
        raise MaskError(
            f"decoder_{name} must have {seen} columns, one for each target token, cached ones included, got "
            f"{tensor.shape[-1]}; give it for all of them"
        )
    fill = int(name == "attention_mask")
    return torch.nn.functional.pad(tensor, (0, capacity - tensor.shape[-1]), value=fill)
