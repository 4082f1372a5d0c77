"""The decoder's mask in passes that read several new tokens: none sees a later one, as with a cache."""

from dataclasses import replace

import torch

from ..masks.expressions import Mask
from ..masks.rules import causal, keep, prefix
from ..masks.tensor_mask import MaskLike, TensorMask, as_mask


def closed_ahead(
    input_ids: torch.LongTensor,
    decoder_mask: MaskLike | None = None,
    decoder_attention_mask: torch.Tensor | None = None,
    example_ids: torch.Tensor | None = None,
    **kwargs,
) -> Mask | TensorMask:
    """The call's decoder mask for passes that read several new tokens: none sees a later one, as with a cache.

    What the decoder starts from is read in one pass, and stays open both ways.

    Args:
        input_ids: (B, P) int64, what the decoder starts from. The others: as in the call.
    """
    call_mask, length = as_mask(decoder_mask, "decoder_mask"), input_ids.shape[1]
    if isinstance(call_mask, TensorMask):
        rows, columns = (torch.arange(call_mask.allowed.shape[-1], device=call_mask.allowed.device) for _ in range(2))
        if call_mask.allowed.ndim > 2:
            rows = torch.arange(call_mask.allowed.shape[-2], device=rows.device)
        seen = (columns <= rows[:, None]) | (columns < length)
        allowed = call_mask.allowed[:, None] if call_mask.allowed.ndim == 2 else call_mask.allowed
        return replace(call_mask, allowed=allowed & seen)
    lengths = [length]
    if decoder_attention_mask is not None:
        of_rows = decoder_attention_mask[:, :length].sum(-1).tolist()
        examples = range(len(of_rows)) if example_ids is None else example_ids.tolist()
        lengths = list(dict(zip(examples, of_rows, strict=True)).values())
    closed: Mask
    if max(lengths) == 1:
        closed = causal()
    elif len(set(lengths)) == 1:
        closed = causal() | prefix(lengths[0])
    else:
        closed = causal() | keep(examples=tuple(((0, int(count)),) for count in lengths))
    return closed if call_mask is None else call_mask & closed
