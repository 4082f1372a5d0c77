"""A fixed-length memory between encoder and decoder."""

import torch
from torch import nn

from ..configuration.crossmask import CrossMaskConfig
from ..masks.base import Mask
from ..masks.compile import compile_mask
from ..masks.layout import Layout
from ..masks.rules import full
from .attention import InteractiveAttention
from .layers import rms_norm

EVERYTHING = full()


class FixedLengthMemory(nn.Module):
    """N learned queries pool each example's source into N vectors (Lee et al. 2019, https://arxiv.org/abs/1810.00825).

    The decoder's cost then no longer depends on the source's length; source positions are lost on the way.
    """

    def __init__(self, config: CrossMaskConfig):
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.memory_length, config.hidden_size))
        nn.init.normal_(self.queries)
        self.pool = InteractiveAttention(config)
        self.norm = rms_norm(config)

    def forward(
        self, hidden_states: torch.Tensor, source: Layout, groups: int = 1, mask: Mask = EVERYTHING
    ) -> torch.Tensor:
        """(B, S, hidden) to (B, G * N, hidden): N vectors for each of the G packed segments.

        Args:
            mask: what may be pooled: a rule that does not ask who reads, as there is nobody at a position.
        """
        places = memory_layout(groups, len(self.queries), source.positions.device)
        allowed = compile_mask(mask, places, source)
        queries = self.queries.repeat(groups, 1).expand(len(hidden_states), -1, -1)
        pooled, _ = self.pool(queries, hidden_states, allowed)
        return self.norm(queries + pooled)


def memory_layout(groups: int, memory_length: int, device: torch.device) -> Layout:
    """The places of the memory's vectors: N in each of the segments 1 to G."""
    positions = torch.arange(memory_length, device=device).repeat(groups)[None]
    if groups == 1:
        return Layout(positions)
    return Layout(positions, torch.arange(1, groups + 1, device=device).repeat_interleave(memory_length)[None])
