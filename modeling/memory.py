"""A fixed-length memory between encoder and decoder."""

import torch
from torch import nn

from ..configuration.crossmask import CrossMaskConfig
from ..masks.expressions import Mask
from ..masks.fast_paths import fast_path_allowed
from ..masks.layout import Layout
from ..masks.materialize import compile_mask
from ..masks.rules.positional import full
from ..seq2seq.interactive_attention import InteractiveAttention
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

    def forward(self, hidden_states: torch.Tensor, source: Layout, mask: Mask = EVERYTHING) -> torch.Tensor:
        """(B, S, hidden) to (B, G * N, hidden): N vectors for each of the G packed segments; G is 1 without packing.

        Under a tracer, which cannot ask how many segments there are, G is S: no row has more segments than tokens, if
        they are numbered without gaps. What belongs to no segment is never read.

        Args:
            mask: what may be pooled: a rule about keys alone, since the queries have no positions.
        """
        groups = _segments_of(source)
        vectors = memory_layout(groups, self.queries.shape[0], source.positions.device, source.packed)
        allowed = compile_mask(mask, vectors, source)
        queries = self.queries.repeat(groups, 1).expand(hidden_states.shape[0], -1, -1)
        pooled, _ = self.pool(queries, hidden_states, allowed)
        return self.norm(queries + pooled)


def _segments_of(source: Layout) -> int:
    if not source.packed or source.segments is None:
        return 1
    if not fast_path_allowed(source.segments, devices=None):
        return source.length
    groups = max(int(source.segments.max()), 1)
    if groups > source.length:
        raise ValueError(
            f"segment_ids must number the examples of a row from 1 without gaps, got {groups} in a row of "
            f"{source.length} tokens; with memory_length each number up to the highest gets vectors"
        )
    return groups


def memory_layout(groups: int, memory_length: int, device: torch.device, packed: bool) -> Layout:
    """The positions of the memory's vectors: N in each of the segments 1 to G, which only packed rows have."""
    positions = torch.arange(memory_length, device=device).repeat(groups)[None]
    if not packed:
        return Layout(positions)
    return Layout(positions, torch.arange(1, groups + 1, device=device).repeat_interleave(memory_length)[None])
