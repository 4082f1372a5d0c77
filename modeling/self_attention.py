"""The self-attention of both sides."""

import torch
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ..attention.backends import CompiledMask
from ..attention.base import AttentionResult
from ..seq2seq.interactive_attention import MaskedAttention


class SelfAttention(MaskedAttention):
    """Attention of a sequence to itself, with rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864)."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: CompiledMask | None = None,
        past_key_values: Cache | None = None,
    ) -> AttentionResult:
        """(B, L, hidden) to (B, L, hidden) and weights (B, H, L, keys), None where the backend keeps them.

        Args:
            position_embeddings: cosine and sine, each (B or 1, L, D).
            attention_mask: bool, broadcast to (B, H, L, keys), or what else `LayerMasks` compiles to; None where all
                is allowed.
        """
        query = self.split(self.q_proj(hidden_states))
        key = self.split(self.k_proj(hidden_states))
        value = self.split(self.v_proj(hidden_states))
        # Under autocast the projections are in half precision, and would come back in full from a product with these.
        cos, sin = (part.to(query.dtype) for part in position_embeddings)
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        return self.attend(query, key, value, attention_mask)
