"""What reads an encoder's states: queries in interactive attention.

Letters: B batch, S source length, H heads, Q queries.
"""

from typing import Any

import torch
from torch import nn

from ..modeling.layers import rms_norm
from ..seq2seq.interactive_attention import InteractiveAttention


class QueryLayer(nn.Module):
    """Interactive attention from queries to the encoder's states, behind a norm and beside a residual connection."""

    def __init__(self, config: Any, layer_idx: int):
        super().__init__()
        self.norm = rms_norm(config)
        self.attn = InteractiveAttention(config, layer_idx)

    def forward(
        self, queries: torch.Tensor, states: torch.Tensor, readable: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, Q, hidden) to (B, Q, hidden) and weights (B, H, Q, S), None where the backend keeps them.

        Args:
            readable: (B, 1, Q, S) bool, what each query may read.
        """
        attended, weights = self.attn(self.norm(queries), states, readable)
        return queries + attended, weights
