"""What an audit found: relations between tokens and outputs, leaks one by one, and the text a person reads."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from ..masks.picture import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LINES = 12
_MOST_TOKENS = 6


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
    """Which tokens of one side may change, and do change, which outputs.

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
        cause: what would explain the leaks, and the mend, where it can be told.
        notes: what looks wrong although it is no leak.
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

    def raise_if_leaking(self) -> None:
        """
        Raises:
            LeakError: there is a leak; one line, with the cause where it can be told.
        """
        if not self.ok:
            raise LeakError("; ".join(part.rstrip(".") for part in (self._headline(), *self._reasons())))

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
        from .figures import plot

        return plot(self, path, rows)

    def __str__(self) -> str:
        lines = [self._headline(), *(f"  {reason}" for reason in self._reasons())]
        groups = _alike(self.leaks)
        lines += [f"  {_describe(group)}" for group in groups[:_MOST_LINES]]
        if len(groups) > _MOST_LINES:
            lines.append(f"  and {_some(len(groups) - _MOST_LINES, 'more line')} like these: see .leaks")
        lines += [f"  {self._quiet(relation)}" for relation in (self.source, self.target) if relation.unused.any()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def _headline(self) -> str:
        rows, target, source = self.source.allowed.shape
        where = f"{_some(rows, 'row')}, source of {source}, target of {target}"
        if self.ok:
            used = [int((one.measured & one.allowed & one.counted).sum()) for one in (self.source, self.target)]
            return (
                f"audit by {self.method}: no leak ({where}; {used[0]} pairs of target and source position have "
                f"influence, {used[1]} of target and target, all allowed)"
            )
        if not self.leaks:
            return f"audit by {self.method}: rows of the batch leak into each other ({where})"
        sides = [one.side for one in (self.source, self.target) if one.leaking.any()]
        return f"audit by {self.method}: {_some(len(self.leaks), 'leak')} from the {' and the '.join(sides)} ({where})"

    def _reasons(self) -> list[str]:
        pairs = self.across.nonzero().tolist()
        reasons = [self.cause] if self.cause else []
        if pairs:
            named = ", ".join(f"{i} of {j}" for i, j in pairs[:_MOST_TOKENS]) + (
                " ..." if pairs[_MOST_TOKENS:] else ""
            )
            reasons.append(f"rows depend on other rows of the batch, which nothing allows: row {named}")
        return reasons

    def _quiet(self, relation: Relation) -> str:
        pairs = relation.unused.nonzero().tolist()
        row, target, position = pairs[0]
        return (
            f"{_some(len(pairs), 'pair')} of target and {relation.side} position may have influence and had none "
            f"(no leak), first row {row}, target {target}, {relation.side} {position}"
        )


def _alike(leaks: tuple[Leak, ...]) -> list[list[list[Leak]]]:
    """Leaks of one output each, and neighbouring outputs together that read the same tokens."""
    groups: list[list[list[Leak]]] = []
    for side in ("source", "target"):
        mine = [leak for leak in leaks if leak.side == side]
        for _, group in groupby(mine, key=lambda leak: (leak.row, leak.target)):
            one = list(group)
            before = groups[-1][-1] if groups else []
            if before and _reads(before) == _reads(one) and before[0].target == one[0].target - 1:
                groups[-1].append(one)
            else:
                groups.append([one])
    return sorted(groups, key=lambda group: (group[0][0].row, group[0][0].target))


def _reads(leaks: list[Leak]) -> tuple:
    return leaks[0].row, leaks[0].side, [(leak.position, leak.kind) for leak in leaks]


def _describe(outputs: list[list[Leak]]) -> str:
    """Leaks of neighbouring outputs: where, from where, and how strong the strongest is."""
    leaks, first = outputs[0], outputs[0][0]
    target = _ranges([one[0].target for one in outputs]) + _quoted([one[0].target_token for one in outputs])
    read = _ranges([leak.position for leak in leaks]) + _quoted([leak.token for leak in leaks])
    kinds = {"padding": "padding", "segment": "another example"}
    why = [kinds[kind] for kind in dict.fromkeys(leak.kind for leak in leaks) if kind in kinds]
    of = f", {' and '.join(why)}" if why else ""
    strongest = max(leak.influence for one in outputs for leak in one)
    return f"row {first.row}: target {target} reads {first.side} {read}{of} (up to {strongest:.2g})"


def _ranges(indices: list[int]) -> str:
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _quoted(tokens: list[str | None]) -> str:
    if tokens[0] is None:
        return ""
    shown = " ".join(printable(token) for token in tokens[:_MOST_TOKENS])
    return f" '{shown}{' ...' if len(tokens) > _MOST_TOKENS else ''}'"


def _some(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
