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
    given, length = as_mask(decoder_mask, "decoder_mask"), input_ids.shape[1]
    if isinstance(given, TensorMask):
        rows, columns = (torch.arange(given.allowed.shape[-1], device=given.allowed.device) for _ in range(2))
        if given.allowed.ndim > 2:
            rows = torch.arange(given.allowed.shape[-2], device=rows.device)
        seen = (columns <= rows[:, None]) | (columns < length)
        allowed = given.allowed[:, None] if given.allowed.ndim == 2 else given.allowed
        return replace(given, allowed=allowed & seen)
    lengths = [length]
    if decoder_attention_mask is not None:
        of_rows = decoder_attention_mask[:, :length].sum(-1).tolist()
        examples = range(len(of_rows)) if example_ids is None else example_ids.tolist()
        lengths = list(dict(zip(examples, of_rows, strict=True)).values())
    if max(lengths) == 1:
        closed = causal()
    elif len(set(lengths)) == 1:
        closed = causal() | prefix(lengths[0])
    else:
        closed = causal() | keep(examples=tuple(((0, int(count)),) for count in lengths))
    return closed if given is None else given & closed
