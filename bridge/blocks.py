"""The block that lets a decoder's layer look at the source."""

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from ..attention.backends import CompiledMask
from ..configuration.bridge import CrossMaskBridgeConfig
from ..seq2seq.cpu_ops import Dropout, RMSNorm
from ..seq2seq.interactive_attention import InteractiveAttention


class BridgeBlock(GradientCheckpointingLayer):
    """Norm, interactive attention and residual connection, closed at first: its output is its input, to the bit.

    A decoder's layer is checkpointed without its block, and the block by itself. All that needs a gradient is given by
    position, as reentrant checkpointing asks for.
    """

    def __init__(self, config: CrossMaskBridgeConfig, index: int, source_size: int):
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.cross_attn = InteractiveAttention(config, index, source_size)
        self.dropout = Dropout(config.dropout)
        self.gate = nn.Parameter(torch.zeros(1)) if config.gate == "tanh" else None
        # On the layer itself, since initialisation by Transformers asks each module that has parameters.
        self.cross_attn.o_proj.starts_at_zero = config.gate == "zero"

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        cross_mask: CompiledMask | None = None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, hidden) and (B, S, source) to (B, T, hidden) and weights (B, H, T, S), None where they are not kept.

        Args:
            encoder_hidden_states, cross_mask, past_key_values: as in `InteractiveAttention.forward`.
        """
        attended, weights = self.cross_attn(
            self.norm(hidden_states), encoder_hidden_states, cross_mask, past_key_values
        )
        if self.gate is not None:
            attended = attended * self.gate.tanh()
        return hidden_states + self.dropout(attended).to(hidden_states.dtype), weights
