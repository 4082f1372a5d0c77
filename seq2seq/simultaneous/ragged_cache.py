"""The columns of a cache that several streams fill at paces of their own.

A column may hold a token of one stream and nothing of another. To the masks such holes are padding, past which
positions are counted; they are removed when they take up more columns than the tokens do.
"""

import torch
from transformers.cache_utils import Cache

from ..cache import keys_and_values, layers_with_keys


class Columns:
    """Which columns of a cache hold a token of which stream: `filled` (B, columns) of 0 and 1."""

    order: torch.Tensor
    """(B, fewer columns) int64, those that stayed when holes were last removed."""

    def __init__(self, batch: int, device: torch.device):
        self.filled = torch.zeros(batch, 0, dtype=torch.long, device=device)

    @property
    def positions(self) -> torch.Tensor:
        """(B, columns) int64, each token's number in its stream; at a hole that of the token before it."""
        return (self.filled.cumsum(dim=1) - 1).clamp(min=0)

    def append(self, filled: torch.Tensor) -> None:
        """Add columns: (B, new columns) of 0 and 1."""
        self.filled = torch.cat([self.filled, filled], dim=1)

    def compact(self, *caches: Cache) -> bool:
        """Remove the holes from the caches if they are more than half of every stream's columns; whether they were."""
        longest = int(self.filled.sum(dim=1).amax()) if self.filled.numel() else 0
        if not longest or self.filled.shape[1] <= 2 * longest:
            return False
        self.order = self.filled.argsort(dim=1, descending=True, stable=True)[:, :longest]
        for layer in (layer for cache in caches for layer in layers_with_keys(cache)):
            layer.keys, layer.values = map(self.compacted, keys_and_values(layer))
        self.filled = self.filled.gather(1, self.order)
        return True

    def compacted(self, states: torch.Tensor) -> torch.Tensor:
        """The columns that stay: (B, H, columns, D) to (B, H, fewer columns, D)."""
        index = self.order[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
        return states.gather(2, index)


def pad(rows: list[list[int]], pad_token_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and which of them are tokens, both (B, longest)."""
    longest = max(map(len, rows))
    ids = [row + [pad_token_id] * (longest - len(row)) for row in rows]
    filled = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(filled, device=device)
