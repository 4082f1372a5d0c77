"""From a mask to what the attention backend wants, once per forward pass.

Eager and SDPA take the same form: None where everything is allowed, else a boolean tensor that broadcasts to
(B, H, T, S). Both give zero to a query with nothing to see.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from .expressions import Allowed, Mask, TokenPosition, both
from .fast_paths import fast_path_allowed
from .layout import Layout
from .rules.positional import full

_arriving = ContextVar("arriving", default=False)


def compile_mask(
    mask: Mask, query: Layout, key: Layout, tensor_mask: torch.Tensor | None = None, heads: int = 1
) -> torch.Tensor | None:
    """Compile to a boolean tensor, or to None if nothing is forbidden.

    Padding and segments are applied after the rule, so `~` never opens them.

    Args:
        mask: the rule, asked about positions inside segments.
        query: T places.
        key: S places.
        tensor_mask: (B, 1 or H, T or 1, S) bool, and-ed with the rule.
        heads: H. The result has H heads only if the rule asks which head it is, else 1.

    Returns:
        (1 or B, 1 or H, T, S) bool, True = allowed, or None.

    Raises:
        MaskError: the rule speaks of heads, examples, passages or tokens that are not there.
    """
    check(mask, query, key, heads)
    return materialize_unchecked(mask, query, key, tensor_mask, heads)


def check(mask: Mask, query: Layout, key: Layout, heads: int) -> None:
    """Check a mask against what it will be asked about; under a tracer, or `skip_shape_checks`, it cannot be done.

    Raises:
        MaskError: the rule speaks of heads, examples, passages or tokens that are not there.
    """
    sides = (side for layout in (query, key) for side in (layout.positions, layout.segments, layout.passages))
    if fast_path_allowed(*sides, devices=None) and not _arriving.get():
        mask.check(query, key, heads)


@contextmanager
def skip_shape_checks() -> Iterator[None]:
    """Inside, masks are not checked: a source that still arrives may yet get the tokens of which a rule speaks."""
    before = _arriving.set(True)
    try:
        yield
    finally:
        _arriving.reset(before)


def materialize_unchecked(
    mask: Mask, query: Layout, key: Layout, tensor_mask: torch.Tensor | None = None, heads: int = 1
) -> torch.Tensor | None:
    """`compile_mask` for parts of a batch, whose mask has been checked against the whole."""
    parts: list[Allowed] = []
    if mask != full():
        parts.append(mask.allows(positions_of(query, -1, heads), positions_of(key, -2)))
    if query.segments is not None or key.segments is not None:
        q, k = positions_of(query, -1).segment, positions_of(key, -2).segment
        parts.append((q == k) & (k > 0))
    if tensor_mask is not None:
        parts.append(tensor_mask)
    # A rule that does not depend on the places that it is asked about answers with a plain bool.
    parts = [part for part in parts if part is not True]
    if not parts:
        return None
    allowed = parts[0]
    for part in parts[1:]:
        allowed = both(allowed, part)
    if isinstance(allowed, bool):
        allowed = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=key.positions.device)
    return allowed.expand(-1, -1, query.length, key.length)


class BroadcastPositions(TokenPosition):
    """The places of one side as tensors that broadcast to (B, H, T, S), each made when a rule asks for it."""

    side: Layout
    dim: int
    heads: int

    def __init__(self, side: Layout, dim: int, heads: int = 1):
        # The base is frozen, and its fields are the properties below.
        for name, value in (("side", side), ("dim", dim), ("heads", heads)):
            object.__setattr__(self, name, value)

    @property
    def position(self) -> torch.Tensor:
        return self.spread(self.side.positions)

    @property
    def segment(self) -> torch.Tensor:
        side = self.side
        return self.spread(torch.ones_like(side.positions) if side.segments is None else side.segments)

    @property
    def passage(self) -> int | torch.Tensor:
        return 0 if self.side.passages is None else self.spread(self.side.passages)

    @property
    def example(self) -> torch.Tensor:
        return self.spread(self.side.examples)

    @property
    def head(self) -> torch.Tensor:
        return torch.arange(self.heads, device=self.side.positions.device)[None, :, None, None]

    def spread(self, side: torch.Tensor) -> torch.Tensor:
        """(B, L) to (B, 1, L, 1) for queries (`dim=-1` is added), to (B, 1, 1, L) for keys (`dim=-2` is added)."""
        return side[:, None].unsqueeze(self.dim)


def positions_of(side: Layout, dim: int, heads: int = 1) -> TokenPosition:
    """A side as a rule sees it: queries along T (`dim=-1` is added), keys along S (`dim=-2` is added)."""
    return BroadcastPositions(side, dim, heads)
