"""How far masks look: what must have arrived before a source token can be encoded, or a target token predicted.

Nothing is known of a rule but its answers, so any mask works whose answers say that waiting helps.
"""

from collections.abc import Sequence

import torch

from ...masks.expressions import Mask, MaskError
from ...masks.layout import Layout, lay_out
from ...masks.materialize import materialize_unchecked
from ...masks.tensor_mask import MaskLike, as_mask
from .streaming_model import StreamingModel

_QUERIES = 32  # queries asked about at a time
UNLIMITED = 4096
"""How long a source may become, for rules, where the model sets no limit."""


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
        end = start + _QUERIES
        query, key = (Layout(torch.arange(*ends)[None], rows=self.batch) for ends in ((start, end), (0, self.keys)))
        numbers = torch.arange(1, self.keys + 1)
        needed = torch.zeros(self.batch, _QUERIES, dtype=torch.long)
        for mask in self.masks:
            allowed = materialize_unchecked(mask, query, key, heads=self.heads)
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
        for n in range(1, self.frontier.keys):
            reach = self._reach(n, example)
            if reach >= self.frontier.keys:
                return None
            if reach <= n:
                return n
        return None

    def _reach(self, n: int, example: int) -> int:
        reach = self.reach[example]
        while len(reach) < n:
            needed = self.frontier(len(reach), example)
            reach.append(max(needed, reach[-1]) if reach else needed)
        return reach[n - 1]


class StreamMasks:
    """The masks of streams side by side, from config and call.

    Attributes:
        call_rules: those of the call, by the name of their argument.
        needed: how many source tokens a target token must wait for.
        closed: how much of what has arrived of a source may be encoded.

    Raises:
        ValueError: masks that cannot be read, do not fit the streams, are blind in part, or look ahead in the encoder;
            a model with a memory.
    """

    def __init__(self, model: StreamingModel, batch: int, masks: dict[str, MaskLike | None]):
        self.compilers = {f"{masks.scope}_mask": masks for masks in model.mask_compilers}
        self.longest = model.max_source_length or UNLIMITED
        if self.compilers["cross_mask"].reads_memory:
            raise ValueError(
                f"memory_length must be None, got {model.config.memory_length}: the memory pools the whole source, so "
                "nothing could be written before its end; stream with another model"
            )
        self.call_rules = {name: _rule(mask, name) for name, mask in masks.items() if mask is not None}
        model.check_blind(**self.call_rules)
        self.rules: dict[str, tuple[Mask, ...]] = {
            name: masks.rules(self.call_rules.get(name))[0] for name, masks in self.compilers.items()
        }
        self.check([None] * batch, [1] * batch)
        self.needed = self._frontier("cross_mask", batch)
        self.closed = ClosedPrefixes(self._frontier("encoder_mask", batch))
        if model.encodes_in_parts:
            self._check_encoder(batch)

    def _frontier(self, name: str, batch: int, rules: Sequence[Mask] | None = None) -> Frontier:
        return Frontier(self.rules[name] if rules is None else rules, self.longest, self.compilers[name].heads, batch)

    def _check_encoder(self, batch: int) -> None:
        encoder = self.closed.frontier
        if all(self.closed.first(example) is not None for example in range(batch)):
            return
        lone = [
            mask
            for mask in encoder.masks
            if ClosedPrefixes(self._frontier("encoder_mask", batch, [mask])).first() is None
        ]
        raise ValueError(
            f"encoder_mask {', '.join(map(str, lone or encoder.masks))} looks ahead: no part of a source could be "
            'encoded before its end; stream with a mask that does not, such as encoder_mask="causal()", or that '
            'looks no further than a border, such as "blocks(8)"'
        )

    def unlimited_cross_mask(self) -> str | None:
        """The cross mask, if it lets the first target token of a stream see the whole source, however long."""
        cross = self.needed
        is_unlimited = any(cross(0, example) >= cross.keys for example in range(cross.batch))
        return ", ".join(map(str, cross.masks)) if is_unlimited else None

    def check(self, sources: Sequence[int | None], targets: Sequence[int]) -> None:
        """Check the masks against the streams' lengths, as a batch is checked that is there as a whole.

        Args:
            sources: the length of each source, or None while it may still become any.
            targets: how many tokens of each target the decoder has read, the start token included.

        Raises:
            MaskError: a rule names heads, examples or tokens that are not there.
        """
        source = _lay_out([self.longest if length is None else length for length in sources])
        target = _lay_out(targets)
        sides = {"encoder_mask": (source, source), "decoder_mask": (target, target), "cross_mask": (target, source)}
        for name, (query, key) in sides.items():
            for rule in self.rules[name]:
                try:
                    rule.check(query, key, self.compilers[name].heads)
                except MaskError as error:
                    raise MaskError(f"{name}: {error}") from error


def _lay_out(lengths: Sequence[int]) -> Layout:
    width = max(1, *lengths)
    filled = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return lay_out(width, torch.device("cpu"), attention_mask=filled, rows=len(lengths))


def _rule(value: MaskLike, name: str) -> Mask:
    mask = as_mask(value, name)
    if not isinstance(mask, Mask):
        raise ValueError(
            f"{name}: a stream's source has no length yet that a tensor could be laid out for; give a rule"
        )
    return mask
