"""FlashAttention (Dao 2023, https://arxiv.org/abs/2307.08691) over examples of various lengths, without padding."""

from inspect import signature

import torch
from torch import nn
from transformers.modeling_flash_attention_utils import lazy_import_flash_attention

from ..masks.varlen import Varlen
from .dense import AttentionResult


def varlen_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Varlen,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> AttentionResult:
    """Scaled dot-product attention inside each sequence of `attention_mask`; padding gets zero.

    Args:
        query: (B, H, T, D). key, value: (B, H / groups, S, D). All in half precision.

    Returns:
        (B, T, H, D), and None instead of the weights.
    """
    (_, run, *_), _ = lazy_import_flash_attention(module.config._attn_implementation)
    options = {
        "cu_seqlens_q": attention_mask.cu_queries,
        "cu_seqlens_k": attention_mask.cu_keys,
        "max_seqlen_q": attention_mask.longest_query,
        "max_seqlen_k": attention_mask.longest_key,
        "softmax_scale": scaling,
        "window_size": attention_mask.window,
        "causal": False,
    }
    if "dropout_p" in signature(run).parameters:  # versions 3 and 4 have none
        options["dropout_p"] = dropout
    tokens = [
        states.transpose(1, 2).flatten(0, 1).index_select(0, indices)
        for states, indices in (
            (query, attention_mask.queries),
            (key, attention_mask.keys),
            (value, attention_mask.keys),
        )
    ]
    found = run(*tokens, **options)
    found = found[0] if isinstance(found, tuple) else found
    batch, heads, length, width = query.shape
    output = found.new_zeros(batch * length, heads, width).index_copy(0, attention_mask.queries, found)
    return output.view(batch, length, heads, width), None
