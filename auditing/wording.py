"""The text of an audit's report: a headline, what explains the leaks, and the leaks, with similar ones in one line."""

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
    groups = _grouped(report.leaks)
    result = [headline(report), *(f"  {reason}" for reason in reasons(report))]
    result += [f"  {_describe(group)}" for group in groups[:_MOST_LINES]]
    if len(groups) > _MOST_LINES:
        result.append(f"  and {_counted(len(groups) - _MOST_LINES, 'more line')} like these: see .leaks")
    result += [f"  {_unused(relation)}" for relation in (report.source, report.target) if relation.unused.any()]
    return [*result, *(f"  note: {note}" for note in report.notes)]


def headline(report: "AuditReport") -> str:
    """The number of leaks, and the sizes of the batch."""
    rows, target, source = report.source.allowed.shape
    where = f"{_counted(rows, 'row')}, source of {source}, target of {target}"
    if report.ok:
        used = [int(relation.measured.sum()) for relation in (report.source, report.target)]
        return (
            f"audit by {report.method}: no leak ({where}; {used[0]} pairs of target and source position have "
            f"influence, {used[1]} of target and target, all allowed)"
        )
    if not report.leaks:
        return f"audit by {report.method}: rows of the batch leak into each other ({where})"
    sides = " and the ".join(each.side for each in (report.source, report.target) if each.leaking.any())
    return f"audit by {report.method}: {_counted(len(report.leaks), 'leak')} from the {sides} ({where})"


def reasons(report: "AuditReport") -> list[str]:
    """What explains the leaks."""
    pairs = report.across.nonzero().tolist()
    causes = [report.cause] if report.cause else []
    if pairs:
        named = ", ".join(f"{i} of {j}" for i, j in pairs[:_MOST_NAMES]) + (" ..." if pairs[_MOST_NAMES:] else "")
        causes.append(f"rows depend on other rows of the batch, which no mask allows: row {named}")
    return causes


def _unused(relation: "Relation") -> str:
    pairs = relation.unused.nonzero().tolist()
    row, target, position = pairs[0]
    return (
        f"{_counted(len(pairs), 'pair')} of target and {relation.side} position may have influence and had none "
        f"(no leak), first row {row}, target {target}, {relation.side} {position}"
    )


def _grouped(leaks: Sequence["Leak"]) -> list[list[list["Leak"]]]:
    """Groups of neighbouring outputs that read the same positions, or each the next ones: the leaks of each output."""
    groups: list[list[list[Leak]]] = []
    for _, of_side in groupby(sorted(leaks, key=lambda leak: leak.side), key=lambda leak: leak.side):
        step_of_group = None
        for _, group in groupby(of_side, key=lambda leak: (leak.row, leak.target)):
            of_output = list(group)
            step = _step(groups[-1][-1], of_output) if groups else None
            if step is not None and step_of_group in (None, step):
                groups[-1].append(of_output)
                step_of_group = step
            else:
                groups.append([of_output])
                step_of_group = None
    return sorted(groups, key=lambda group: (group[0][0].row, group[0][0].target))


def _step(before: list["Leak"], after: list["Leak"]) -> int | None:
    """How many positions further the next output reads, 0 or 1; None if it is not the next, or differs otherwise."""
    first, next_ = before[0], after[0]
    if (first.row, first.side, first.target + 1) != (next_.row, next_.side, next_.target):
        return None
    for step in (0, 1):
        if [(leak.position + step, leak.kind) for leak in before] == [(leak.position, leak.kind) for leak in after]:
            return step
    return None


def _describe(outputs: list[list["Leak"]]) -> str:
    """Which neighbouring outputs read which positions, and the strength of the strongest leak."""
    leaks, first = outputs[0], outputs[0][0]
    target = _ranges([each[0].target for each in outputs]) + _quoted([each[0].target_token for each in outputs])
    if len(outputs) > 1 and _step(*outputs[:2]):
        read = " to ".join(_ranges([leak.position for leak in each]) for each in (leaks, outputs[-1]))
        read += (_quoted([each[0].token for each in outputs]) if len(leaks) == 1 else "") + ", one further each"
    else:
        read = _ranges([leak.position for leak in leaks]) + _quoted([leak.token for leak in leaks])
    kinds = {"padding": "padding", "segment": "another example"}
    why = [kinds[kind] for kind in dict.fromkeys(leak.kind for leak in leaks) if kind in kinds]
    of = f", {' and '.join(why)}" if why else ""
    strongest = max(leak.influence for each in outputs for leak in each)
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
    names = [token for token in tokens if token is not None]
    if not names:
        return ""
    shown = " ".join(map(printable, names[:_MOST_NAMES]))
    return f" '{shown}{' ...' if len(tokens) > _MOST_NAMES else ''}'"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
