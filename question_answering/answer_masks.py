"""Where an answer may be: the context, less what the cross masks of config and call forbid.

Letters: B batch, S source length. The pointer's two queries stand at position 0, the start, and 1, the end.
"""

import torch

from ..masks.expressions import Mask, MaskError
from ..masks.layout import Layout, lay_out
from ..masks.materialize import compile_mask
from ..masks.tensor_mask import TensorMask

QUERIES = 2


def passages_of(
    passage_ids: torch.Tensor | None, token_type_ids: torch.Tensor | None, attention_mask: torch.Tensor | None
) -> torch.Tensor:
    """The passage of each token, (B, S) int64, below 0 for those of the question and for special tokens.

    Without `passage_ids`, tokens of type 1 are passage 0, but for the last of each row, the separator.

    Raises:
        ValueError: neither is given, or token types tell no context.
    """
    if passage_ids is not None:
        return passage_ids
    if token_type_ids is None:
        raise ValueError(
            "passage_ids must say which tokens are the context: 0 and up for those of its passages, -1 for all "
            "others; `question_answering.windows.encode_windows` makes them, and a tokenizer with token types needs "
            "none"
        )
    inside = token_type_ids == 1
    if attention_mask is not None:
        inside = inside & (attention_mask != 0)
    after = inside.flip(-1).cumsum(-1).flip(-1)
    return torch.where(inside & (after > 1), 0, -1)


def answerable(
    config_mask: Mask,
    cross_mask: Mask | TensorMask | None,
    source: Layout,
    context: torch.Tensor,
    training: bool,
) -> torch.Tensor:
    """Where an answer may start and where it may end: (B, 2, S) bool.

    Args:
        config_mask: the config's cross mask. cross_mask: the call's.
        source: the layout of the tokens.
        context: (B, S) bool, tokens of the context.

    Raises:
        MaskError: a mask that does not fit.
    """
    rule, tensor_mask = config_mask, None
    if isinstance(cross_mask, TensorMask):
        tensor_mask = cross_mask.as_4d.to(context.device)
        sizes = zip(tensor_mask.shape, (context.shape[0], 1, QUERIES), strict=False)
        if any(size not in (1, limit) for size, limit in sizes) or tensor_mask.shape[-1] != context.shape[1]:
            batch, length = context.shape
            raise MaskError(
                f"cross_mask must be ({batch}, {length}), or ({batch}, 2, {length}) with a row for the start and one "
                f"for the end, got {tuple(cross_mask.allowed.shape)}"
            )
    elif cross_mask is not None:
        rule = rule & cross_mask
    rule = rule.for_layer(0, 1, training)
    try:
        allowed = compile_mask(rule, lay_out(QUERIES, context.device), source, tensor_mask)
    except MaskError as error:
        raise MaskError(f"cross_mask: {error}") from error
    context = context[:, None].expand(-1, QUERIES, -1)
    return context if allowed is None else context & allowed[:, 0]
