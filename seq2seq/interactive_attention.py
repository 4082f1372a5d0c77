"""The interactive attention from target to source, and what it shares with self-attention.

Letters: B batch, S source length, T target length, H query heads, D head width.
Masks are boolean, True = allowed, and a query with nothing to see gets zero, forward and backward.
"""

from typing import Protocol

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache

from ..attention.backends import CompiledMask, attend
from ..attention.base import AttentionResult
from ..masks.expressions import Mask, MaskError
from ..masks.foreign import is_foreign
from ..masks.layout import lay_out
from ..masks.materialize import compile_mask
from ..masks.tensor_mask import MaskLike, TensorMask, as_mask
from .beam_sharing import fold_rows, unfold_rows
from .cache import keys_and_values


class AttentionConfig(Protocol):
    """The fields of a config that attention reads; `CrossMaskConfig` says what they mean."""

    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    attention_dropout: float | int
    cross_attention_score: str
    _attn_implementation: str | None


class MaskedAttention(nn.Module):
    """Projections and backend, shared by self-attention and interactive attention."""

    is_causal = False  # the mask says so, never the backend
    additive = False

    def __init__(self, config: AttentionConfig, layer_idx: int = 0, source_size: int | None = None):
        super().__init__()
        source_size = config.hidden_size if source_size is None else source_size
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        inner, inner_kv = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(source_size, inner_kv, bias=False)
        self.v_proj = nn.Linear(source_size, inner_kv, bias=False)
        self.o_proj = nn.Linear(inner, config.hidden_size, bias=False)

    def split(self, projected: torch.Tensor) -> torch.Tensor:
        """(B, L, heads * D) to (B, heads, L, D)."""
        heads = projected.shape[-1] // self.head_dim  # not -1, which cannot be computed where L is 0
        return projected.view(*projected.shape[:2], heads, self.head_dim).transpose(1, 2)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, compiled_mask: CompiledMask
    ) -> AttentionResult:
        output, weights = attend(
            self.config._attn_implementation,
            self,
            query,
            key,
            value,
            compiled_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            additive=self.additive,
        )
        return self.o_proj(output.flatten(2)), weights


class InteractiveAttention(MaskedAttention):
    """Cross-attention: target positions attend to source positions.

    Usable by itself:

    ```python
    >>> attention = InteractiveAttention(CrossMaskConfig(hidden_size=64, num_attention_heads=4))
    >>> target, source = torch.randn(2, 5, 64), torch.randn(2, 7, 64)
    >>> output, weights = attention(target, source, torch.ones(2, 5, 7, dtype=torch.bool))
    >>> output.shape, weights.shape
    (torch.Size([2, 5, 64]), torch.Size([2, 4, 5, 7]))
    ```

    Args:
        config: the sizes, see `AttentionConfig`.
        layer_idx: under which number keys and values are kept in a cache.
        source_size: the width of the source's states; that of the target, `config.hidden_size`, by default.
    """

    def __init__(self, config: AttentionConfig, layer_idx: int = 0, source_size: int | None = None):
        super().__init__(config, layer_idx, source_size)
        self.additive = config.cross_attention_score == "additive"
        if self.additive:
            self.score_vector = nn.Parameter(torch.empty(config.num_attention_heads, self.head_dim))
            nn.init.normal_(self.score_vector, std=self.head_dim**-0.5)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        attention_mask: CompiledMask | MaskLike | None = None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> AttentionResult:
        """(B, T, hidden) and (B, S, hidden) to (B, T, hidden) and weights (B, H, T, S).

        The weights are None where the backend keeps them to itself.

        Args:
            encoder_hidden_states: (B / G, S, hidden) where each row of the source serves G rows of the target in turn;
                a mask is then given as `fold_mask` makes it. None where keys and values are cached.
            attention_mask: a mask, its text, or a tensor of bool or 0 and 1, True = allowed: (B, S), (B, T, S) or
                (B, H, T, S), where 1 stands for all of B, H or T; or what else `LayerMasks` compiles to. Rules count
                positions from the first column and row.
            past_key_values: keys and values of the source are computed once and kept here.

        Raises:
            MaskError: a mask that cannot be read, or does not fit.
        """
        by_hand = isinstance(attention_mask, (Mask, str, TensorMask, torch.Tensor)) or any(
            is_foreign(attention_mask, kind) for kind in (Mask, TensorMask)
        )
        query = self.split(self.q_proj(hidden_states))
        key, value = self.source_states(encoder_hidden_states, past_key_values)
        if by_hand and (getattr(attention_mask, "dtype", None), getattr(attention_mask, "ndim", 0)) != (torch.bool, 4):
            attention_mask = self.read_mask(attention_mask, hidden_states, key.shape[2])
        beams_per_source = query.shape[0] // key.shape[0]
        if beams_per_source == 1:
            return self.attend(query, key, value, attention_mask)
        output, weights = self.attend(fold_rows(query, beams_per_source), key, value, attention_mask)
        output = output.view(*hidden_states.shape)
        return output, weights if weights is None else unfold_rows(weights, beams_per_source)

    def read_mask(self, mask: MaskLike, hidden_states: torch.Tensor, keys: int) -> torch.Tensor | None:
        """The boolean tensor, broadcast to (B, H, T, S), that a mask given by hand stands for, or None."""
        device, heads = hidden_states.device, self.config.num_attention_heads
        batch, queries = hidden_states.shape[:2]
        given = as_mask(mask, "attention_mask")
        if given is None:
            return None
        if isinstance(given, Mask):
            return compile_mask(given, lay_out(queries, device), lay_out(keys, device), heads=heads)
        tensor_mask, wanted = given.as_4d, (batch, heads, queries, keys)
        if any(size not in (1, limit) for size, limit in zip(tensor_mask.shape[:3], wanted, strict=False)) or (
            tensor_mask.shape[3] != keys
        ):
            raise MaskError(f"attention_mask: {tuple(given.allowed.shape)} does not fit (B, H, T, S) = {wanted}")
        return tensor_mask

    def source_states(
        self, encoder_hidden_states: torch.Tensor | None, past_key_values: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if past_key_values is not None and past_key_values.is_updated.get(self.layer_idx):
            return keys_and_values(past_key_values.cross_attention_cache.layers[self.layer_idx])
        key, value = self.split(self.k_proj(encoder_hidden_states)), self.split(self.v_proj(encoder_hidden_states))
        if past_key_values is not None:
            key, value = past_key_values.cross_attention_cache.update(key, value, self.layer_idx)
            past_key_values.is_updated[self.layer_idx] = True
        return key, value
