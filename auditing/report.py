"""What an audit found: relations between tokens and outputs, leaks one by one, and the text a person reads."""

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
    """Something reads what no mask allows."""


@dataclass(frozen=True)
class Leak:
    """One token that changes an output which it may not change.

    Attributes:
        row: in the batch. target: index of the output's position.
        side: `"source"` or `"target"`, where the token is. position: its index there, as the batch is laid out.
        influence: how strongly, in the method's measure.
        kind: `"padding"` if the token is padding, `"segment"` if it is another example's, `"mask"` otherwise.
        target_token, token: what stands at the two, if the audit was given a tokenizer.
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
    """Which tokens of one side may change, and do change, which outputs. Padding's outputs are not measured.

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
        """Where the output is not padding's, which nobody reads: (B, T, 1) bool."""
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
        """Allowed, and without any measured influence: (B, T, L) bool."""
        return self.allowed & ~self.measured & self.counted

    def leaks(self) -> list[Leak]:
        found = []
        for row, target, position in self.leaking.nonzero().tolist():
            segment = int(self.segments[row, position])
            same = segment == int(self.target_segments[row, target])
            found.append(
                Leak(
                    row,
                    target,
                    self.side,
                    position,
                    float(self.influence[row, target, position]),
                    "mask" if same else "segment" if segment else "padding",
                    self.target_tokens and self.target_tokens[row][target],
                    self.tokens and self.tokens[row][position],
                )
            )
        return found


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What `audit` found. `print(report)` says it in words, `report.plot("audit.png")` draws it.

    Attributes:
        source, target: of the source's and of the target's tokens.
        across: (B, B) bool: row i's outputs depend on row j's tokens, which nothing ever allows.
        method: how it was measured.
        cause: what would explain the leaks, and how to fix it, where it can be told.
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
        found = self.source.leaks() + self.target.leaks()
        return tuple(sorted(found, key=lambda leak: (leak.row, leak.target, leak.side, leak.position)))

    @property
    def ok(self) -> bool:
        return not self.leaks and not self.across.any()

    @property
    def heading(self) -> list[str]:
        """How many leaks, in what, and what explains them: one line each."""
        return [headline(self), *reasons(self)]

    def raise_if_leaking(self) -> None:
        """
        Raises:
            LeakError: there is a leak; one line, with the cause where it can be told.
        """
        if not self.ok:
            raise LeakError("; ".join(self.heading))

    def plot(self, path: str | os.PathLike[str] | None = None, *, rows: Sequence[int] | None = None) -> "Figure":
        """Draw what is allowed, what is measured, and the leaks.

        Args:
            path: where to write a PNG.
            rows: of the batch; by default those with leaks, else all, and no more than four.

        Raises:
            ImportError: matplotlib is not there; `pip install 'crossmask[plots]'`.
            ValueError: a row that is not there.
            OSError: the file cannot be written.
        """
        from ..plotting.audit import plot

        return plot(self, path, rows)

    def __str__(self) -> str:
        return "\n".join(lines(self))
