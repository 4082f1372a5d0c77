"""The result of an audit: what is allowed and what was measured, each leak, and the text of the report."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from .wording import headline, lines, reasons

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LeakError(RuntimeError):
    """An output depends on a token that no mask allows it to read."""


@dataclass(frozen=True)
class Leak:
    """A token that changes an output that it must not change.

    Attributes:
        row: of the batch. target: the index of the output's position.
        side: `"source"` or `"target"`, where the token is. position: its index there, as the batch is laid out.
        influence: how strongly it changes the output, as the method measures it.
        kind: `"padding"` if the token is padding, `"segment"` if it is another example's, `"mask"` otherwise.
        target_token, token: the texts of the two, if the audit had a tokenizer.
    """

    row: int
    target: int
    side: str
    position: int
    influence: float
    kind: str
    target_token: str | None = None
    token: str | None = None


@dataclass(frozen=True, eq=False)
class Relation:
    """Which tokens of one side may change, and do change, which outputs. The outputs of padding are not measured.

    Attributes:
        side: `"source"` or `"target"`, where the tokens are; L is its length.
        allowed: (B, T, L) bool. influence: (B, T, L) float64, 0 for none.
        target_segments, segments: (B, T) and (B, L) int64, 0 for padding.
        target_tokens, tokens: B rows of T and of L texts, if known.
    """

    side: str
    allowed: torch.Tensor
    influence: torch.Tensor
    target_segments: torch.Tensor
    segments: torch.Tensor
    target_tokens: tuple[tuple[str, ...], ...] | None = None
    tokens: tuple[tuple[str, ...], ...] | None = None

    @property
    def counted(self) -> torch.Tensor:
        """Whether the output is not that of padding: (B, T, 1) bool."""
        return (self.target_segments > 0)[:, :, None]

    @property
    def measured(self) -> torch.Tensor:
        """(B, T, L) bool."""
        return self.influence > 0

    @property
    def leaking(self) -> torch.Tensor:
        """Measured and not allowed: (B, T, L) bool."""
        return self.measured & ~self.allowed & self.counted

    @property
    def unused(self) -> torch.Tensor:
        """Allowed, and without measured influence: (B, T, L) bool."""
        return self.allowed & ~self.measured & self.counted

    def leaks(self) -> list[Leak]:
        """Each leak, row by row, and target position by target position."""
        leaks = []
        for row, target, position in self.leaking.nonzero().tolist():
            segment = int(self.segments[row, position])
            same = segment == int(self.target_segments[row, target])
            leaks.append(
                Leak(
                    row,
                    target,
                    self.side,
                    position,
                    float(self.influence[row, target, position]),
                    "mask" if same else "segment" if segment else "padding",
                    self.target_tokens[row][target] if self.target_tokens else None,
                    self.tokens[row][position] if self.tokens else None,
                )
            )
        return leaks


@dataclass(frozen=True, eq=False)
class AuditReport:
    """The result of `audit`. `print(report)` writes it as text, `report.plot("audit.png")` draws it.

    Attributes:
        source, target: what is allowed and what was measured, for the tokens of the source and of the target.
        across: (B, B) bool: whether the outputs of row i depend on the tokens of row j, which no mask allows.
        method: how it was measured.
        cause: what explains the leaks, and how to fix it; None if nothing is known to explain them.
        notes: what looks wrong although it is not a leak.
    """

    source: Relation
    target: Relation
    across: torch.Tensor
    method: str
    cause: str | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """Row by row, and in each row target position by target position."""
        leaks = self.source.leaks() + self.target.leaks()
        return tuple(sorted(leaks, key=lambda leak: (leak.row, leak.target, leak.side, leak.position)))

    @property
    def ok(self) -> bool:
        """Whether nothing leaks."""
        return not self.leaks and not self.across.any()

    @property
    def heading(self) -> list[str]:
        """The number of leaks, and what explains them, a line each."""
        return [headline(self), *reasons(self)]

    def raise_if_leaking(self) -> None:
        """Raise an error if there is a leak.

        Raises:
            LeakError: there is one; the message is a line with the cause, if it is known.
        """
        if not self.ok:
            raise LeakError("; ".join(self.heading))

    def plot(self, path: str | os.PathLike[str] | None = None, *, rows: Sequence[int] | None = None) -> "Figure":
        """Draw what is allowed, what is measured, and the leaks.

        Args:
            path: where to write a PNG.
            rows: of the batch; by default the first four with leaks, or the first four if none has leaks.

        Raises:
            ImportError: matplotlib is not installed; `pip install 'crossmask[plots]'`.
            ValueError: a row does not exist.
            OSError: the file cannot be written.
        """
        from ..plotting.audit import plot

        return plot(self, path, rows)

    def __str__(self) -> str:
        return "\n".join(lines(self))
