"""How far masks look: what must have arrived before a source token can be encoded, or a target token predicted.

Nothing is known of a rule but its answers, so any mask works whose answers say that waiting helps.
"""

from collections.abc import Sequence
from itertools import count

import torch

from ..masks.base import Mask
from ..masks.compile import allowed_pairs
from ..masks.layout import Layout

_PORTION = 32  # queries asked about at a time


class Frontier:
    """For each query, how many keys must be there: one more than the last that it may see, in any layer or head.

    ```python
    >>> Frontier([wait_k(3)], keys=64)(5)
    8
    ```

    Args:
        masks: the rules of all layers.
        keys: the most keys there can be; a query that sees the last of them waits for the end.
        heads, batch: how many heads and examples there are, for rules that tell them apart.
    """

    def __init__(self, masks: Sequence[Mask], keys: int, heads: int = 1, batch: int = 1):
        self.masks = masks
        self.keys = keys
        self.heads = heads
        self.batch = batch
        self.known: list[list[int]] = []  # by query, then by example

    def __call__(self, query: int, example: int = 0) -> int:
        """How many keys must be there before `query` can be computed once and for all; `keys` if all that come."""
        while query >= len(self.known):
            self._ask(len(self.known))
        return self.known[query][example]

    def _ask(self, start: int) -> None:
        end = start + _PORTION
        query, key = (Layout(torch.arange(*ends)[None], rows=self.batch) for ends in ((start, end), (0, self.keys)))
        numbers = torch.arange(1, self.keys + 1)
        needed = torch.zeros(self.batch, _PORTION, dtype=torch.long)
        for mask in self.masks:
            allowed = allowed_pairs(mask, query, key, heads=self.heads)
            if allowed is None:
                needed[:] = self.keys
            else:
                needed = torch.maximum(needed, (allowed.any(dim=1) * numbers).amax(dim=-1))
        self.known += needed.T.tolist()


class ClosedPrefixes:
    """How much of a source may be encoded, given how much has arrived: the prefixes out of which nothing looks.

    Under `causal()` every prefix is closed, under `blocks(4)` every whole number of blocks.
    """

    def __init__(self, frontier: Frontier):
        self.frontier = frontier
        self.reach: list[list[int]] = [[] for _ in range(frontier.batch)]  # by example, then by prefix: its frontier

    def longest(self, arrived: int, example: int = 0) -> int:
        """The longest closed prefix of the first `arrived` source tokens."""
        return next((n for n in range(arrived, 0, -1) if self._reach(n, example) <= n), 0)

    def first(self, example: int = 0) -> int | None:
        """The shortest closed prefix that is not empty, or None if there is none before the longest source's end."""
        for n in count(1):
            reach = self._reach(n, example)
            if n >= self.frontier.keys or reach >= self.frontier.keys:
                return None
            if reach <= n:
                return n

    def _reach(self, n: int, example: int) -> int:
        reach = self.reach[example]
        while len(reach) < n:
            needed = self.frontier(len(reach), example)
            reach.append(max(needed, reach[-1]) if reach else needed)
        return reach[n - 1]
