"""From a mask to a boolean tensor that broadcasts to (B, H, T, S), or to None if everything is allowed."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

import torch

from .expressions import Allowed, Mask, TokenPosition, logical_and
from .fast_paths import fast_path_allowed
from .layout import Layout
from .rules.positional import full

_checks_are_skipped = ContextVar("checks_are_skipped", default=False)


def compile_mask(
    mask: Mask, query: Layout, key: Layout, tensor_mask: torch.Tensor | None = None, heads: int = 1
) -> torch.Tensor | None:
    """Compile to a boolean tensor, or to None if nothing is forbidden.

    Padding and other segments are forbidden after the rule was asked, so that `~` does not allow them.

    Args:
        mask: the rule, which is asked about positions inside of segments.
        query, key: the layouts of T queries and S keys.
        tensor_mask: (B, 1 or H, T or 1, S) bool, and-ed with the rule.
        heads: H. The result has H heads only if the rule asks for the head, else 1.

    Returns:
        (1 or B, 1 or H, T, S) bool, True = allowed, or None.

    Raises:
        MaskError: the rule names heads, examples, passages or tokens that do not exist.
    """
    check(mask, query, key, heads)
    return materialize_unchecked(mask, query, key, tensor_mask, heads)


def check(mask: Mask, query: Layout, key: Layout, heads: int) -> None:
    """Check that a mask fits a batch, but not under a tracer, which has no values, or inside of `skip_shape_checks`.

    Raises:
        MaskError: the rule names heads, examples, passages or tokens that do not exist.
    """
    sides = (side for layout in (query, key) for side in (layout.positions, layout.segments, layout.passages))
    if fast_path_allowed(*sides, devices=None) and not _checks_are_skipped.get():
        mask.check(query, key, heads)


@contextmanager
def skip_shape_checks() -> Iterator[None]:
    """Inside of it masks are not checked: a source that is still arriving may get the tokens that a rule names."""
    before = _checks_are_skipped.set(True)
    try:
        yield
    finally:
        _checks_are_skipped.reset(before)


def materialize_unchecked(
    mask: Mask, query: Layout, key: Layout, tensor_mask: torch.Tensor | None = None, heads: int = 1
) -> torch.Tensor | None:
    """`compile_mask` for a part of a batch, whose mask has been checked for all of it."""
    parts: list[Allowed] = []
    if mask != full():
        parts.append(mask.allows(positions_of(query, -1, heads), positions_of(key, -2)))
    if query.segments is not None or key.segments is not None:
        q, k = positions_of(query, -1).segment, positions_of(key, -2).segment
        parts.append((q == k) & (k > 0))
    if tensor_mask is not None:
        parts.append(tensor_mask)
    # A rule that does not depend on positions returns a plain bool.
    parts = [part for part in parts if part is not True]
    if not parts:
        return None
    allowed = parts[0]
    for part in parts[1:]:
        allowed = logical_and(allowed, part)
    if isinstance(allowed, bool):
        allowed = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=key.positions.device)
    return allowed.expand(-1, -1, query.length, key.length)


class BroadcastPositions:
    """The positions of one side as tensors that broadcast to (B, H, T, S), each made when a rule asks for it.

    It has the attributes of a `TokenPosition` without being one: `torch.compile` before PyTorch 2.12 cannot make
    objects of a frozen dataclass whose constructor is not the generated one.
    """

    def __init__(self, side: Layout, dim: int, heads: int):
        self.side, self.dim, self.heads = side, dim, heads

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
    """A side as a rule is asked about it: queries along T (`dim=-1` is added), or keys along S (`dim=-2` is added)."""
    return cast(TokenPosition, BroadcastPositions(side, dim, heads))
