"""FlashAttention (Dao 2023, https://arxiv.org/abs/2307.08691), over sequences of various lengths without padding."""

from inspect import signature
from typing import Any

import torch
from torch import nn
from transformers.modeling_flash_attention_utils import lazy_import_flash_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import is_flash_attention_requested

from .base import AttentionBackend, AttentionResult, MaskRequest
from .dense import eager_attention
from .varlen import Varlen, compile_varlen


class FlashBackend(AttentionBackend):
    """FlashAttention from its own package; `flash_attention_3`, `_4` and kernels of the Hub work alike.

    When to use: on a GPU, in half precision, for masks that it knows. Any other mask is an error and does not go to
    another backend, since long rows may leave no memory for a mask of all pairs.
    """

    mask_types = (Varlen,)

    def __init__(self, name: str):
        self.name = name

    def variant(self, name: str) -> "FlashBackend | None":
        return FlashBackend(name) if is_flash_attention_requested(requested_attention_implementation=name) else None

    def compile(self, request: MaskRequest) -> Varlen:
        sides = (request.rule, request.query, request.key, request.tensor_mask)
        return compile_varlen(*sides, request.heads, request.batch)

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        compiled_mask: Varlen | None,
        *,
        additive: bool = False,
        **kwargs: Any,
    ) -> AttentionResult:
        if compiled_mask is not None:
            return varlen_attention(module, query, key, value, compiled_mask, implementation=self.name, **kwargs)
        function = ALL_ATTENTION_FUNCTIONS.get_interface(self.name, eager_attention)
        result: AttentionResult = function(module, query, key, value, None, **kwargs)
        return result


def varlen_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Varlen,
    scaling: float,
    dropout: float = 0.0,
    implementation: str = "flash_attention_2",
    **kwargs: Any,
) -> AttentionResult:
    """Scaled dot-product attention inside of each sequence of `attention_mask`; padding gets zero.

    Args:
        query: (B, H, T, D). key, value: (B, H / groups, S, D). All in half precision.
        scaling: of the dot product.
        dropout: of the weights.
        implementation: the name that Transformers has for the version to use.

    Returns:
        (B, T, H, D), and None instead of the weights.

    Raises:
        ValueError: the version has no dropout, as versions 3 and 4, and `dropout` is not 0.
    """
    (_, function, *_), _ = lazy_import_flash_attention(implementation)
    options = {
        "cu_seqlens_q": attention_mask.cu_queries,
        "cu_seqlens_k": attention_mask.cu_keys,
        "max_seqlen_q": attention_mask.longest_query,
        "max_seqlen_k": attention_mask.longest_key,
        "softmax_scale": scaling,
        "window_size": attention_mask.window,
        "causal": False,
    }
    if "dropout_p" in signature(function).parameters:
        options["dropout_p"] = dropout
    elif dropout:
        raise ValueError(
            f"attention_dropout must be 0 under {implementation}, which has no dropout, got {dropout}; use "
            '"flash_attention_2"'
        )
    tokens = [
        states.transpose(1, 2).flatten(0, 1).index_select(0, indices)
        for states, indices in (
            (query, attention_mask.queries),
            (key, attention_mask.keys),
            (value, attention_mask.keys),
        )
    ]
    result = function(*tokens, **options)
    attended = result[0] if isinstance(result, tuple) else result
    batch, heads, length, width = query.shape
    output = attended.new_zeros(batch * length, heads, width).index_copy(0, attention_mask.queries, attended)
    return output.view(batch, length, heads, width), None
