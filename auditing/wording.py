"""An audit in words: a headline, what explains the leaks, then leak by leak, those that are alike in one line."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from ..masks.view import printable

if TYPE_CHECKING:
    from .report import AuditReport, Leak, Relation

_MOST_LINES = 12
_MOST_NAMES = 6


def lines(report: "AuditReport") -> list[str]:
    """The whole report."""
    groups = _alike(report.leaks)
    found = [headline(report), *(f"  {reason}" for reason in reasons(report))]
    found += [f"  {_describe(group)}" for group in groups[:_MOST_LINES]]
    if len(groups) > _MOST_LINES:
        found.append(f"  and {_some(len(groups) - _MOST_LINES, 'more line')} like these: see .leaks")
    found += [f"  {_quiet(relation)}" for relation in (report.source, report.target) if relation.unused.any()]
    return [*found, *(f"  note: {note}" for note in report.notes)]


def headline(report: "AuditReport") -> str:
    """How many leaks, in what."""
    rows, target, source = report.source.allowed.shape
    where = f"{_some(rows, 'row')}, source of {source}, target of {target}"
    if report.ok:
        used = [int(one.measured.sum()) for one in (report.source, report.target)]
        return (
            f"audit by {report.method}: no leak ({where}; {used[0]} pairs of target and source position have "
            f"influence, {used[1]} of target and target, all allowed)"
        )
    if not report.leaks:
        return f"audit by {report.method}: rows of the batch leak into each other ({where})"
    sides = " and the ".join(one.side for one in (report.source, report.target) if one.leaking.any())
    return f"audit by {report.method}: {_some(len(report.leaks), 'leak')} from the {sides} ({where})"


def reasons(report: "AuditReport") -> list[str]:
    """What explains the leaks."""
    pairs = report.across.nonzero().tolist()
    found = [report.cause] if report.cause else []
    if pairs:
        named = ", ".join(f"{i} of {j}" for i, j in pairs[:_MOST_NAMES]) + (" ..." if pairs[_MOST_NAMES:] else "")
        found.append(f"rows depend on other rows of the batch, which nothing allows: row {named}")
    return found


def _quiet(relation: "Relation") -> str:
    pairs = relation.unused.nonzero().tolist()
    row, target, position = pairs[0]
    return (
        f"{_some(len(pairs), 'pair')} of target and {relation.side} position may have influence and had none "
        f"(no leak), first row {row}, target {target}, {relation.side} {position}"
    )


def _alike(leaks: Sequence["Leak"]) -> list[list[list["Leak"]]]:
    """Leaks of one output each; and neighbouring outputs together that read the same, or each the next."""
    groups: list[list[list[Leak]]] = []
    for _, found in groupby(sorted(leaks, key=lambda leak: leak.side), key=lambda leak: leak.side):
        step = None
        for _, group in groupby(found, key=lambda leak: (leak.row, leak.target)):
            one = list(group)
            before = _step(groups[-1][-1], one) if groups else None
            if before is not None and (step is None or step == before):
                groups[-1].append(one)
                step = before
            else:
                groups.append([one])
                step = None
    return sorted(groups, key=lambda group: (group[0][0].row, group[0][0].target))


def _step(before: list["Leak"], after: list["Leak"]) -> int | None:
    """How much further (0 or 1) the next output reads than one does; None if it is another thing altogether."""
    one, other = before[0], after[0]
    if (one.row, one.side, one.target + 1) != (other.row, other.side, other.target):
        return None
    for step in (0, 1):
        if [(leak.position + step, leak.kind) for leak in before] == [(leak.position, leak.kind) for leak in after]:
            return step
    return None


def _describe(outputs: list[list["Leak"]]) -> str:
    """Leaks of neighbouring outputs: where, from where, and how strong the strongest is."""
    leaks, first = outputs[0], outputs[0][0]
    target = _ranges([one[0].target for one in outputs]) + _quoted([one[0].target_token for one in outputs])
    if len(outputs) > 1 and _step(*outputs[:2]):
        read = " to ".join(_ranges([leak.position for leak in one]) for one in (leaks, outputs[-1]))
        read += (_quoted([one[0].token for one in outputs]) if len(leaks) == 1 else "") + ", one further each"
    else:
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
    shown = " ".join(printable(token) for token in tokens[:_MOST_NAMES])
    return f" '{shown}{' ...' if len(tokens) > _MOST_NAMES else ''}'"


def _some(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
