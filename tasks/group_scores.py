"""How even a model is: its score for each group of a test set, with intervals, the worst group and the spread."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..utils.errors import InputError
from .base import Example, Task, check_predictions, members_of_groups
from .registry import get_task

RESAMPLES = 200
_INTERVAL = 0.95


def task_by_column(name: str, options: Mapping[str, Any], column: str | None) -> Task:
    """A task whose examples have the groups that a column of their records names.

    Args:
        options: of the task. column: None for the groups that the task has by itself.

    Raises:
        InputError: the task has no groups, or is told to take them from another column.
    """
    if column is None:
        return get_task(name, **options)
    if options.get("group_column", column) != column:
        raise InputError(
            f"report_by must be the task option group_column where that is given, {options['group_column']}, got "
            f"{column}; give one of the two"
        )
    return get_task(name, **{**options, "group_column": column})


@dataclass(frozen=True)
class GroupScore:
    """The score of a group of `size` examples, and its bootstrap interval of 95%."""

    name: str
    size: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupScores:
    """The scores of all groups, in the order of their names."""

    metric: str
    greater_is_better: bool
    groups: tuple[GroupScore, ...]

    @property
    def worst(self) -> GroupScore:
        return (min if self.greater_is_better else max)(self.groups, key=lambda group: group.value)

    @property
    def spread(self) -> float:
        """How much the best group and the worst one differ."""
        values = [group.value for group in self.groups]
        return max(values) - min(values)

    def as_dict(self) -> dict[str, Any]:
        """For `metrics.json`."""
        of = {
            one.name: {"examples": one.size, "value": one.value, "low": one.low, "high": one.high}
            for one in self.groups
        }
        return {"metric": self.metric, "worst": self.worst.name, "spread": self.spread, "of": of}


def score_groups(
    task: Task, predictions: Sequence[Any], examples: Sequence[Example], *, resamples: int = RESAMPLES, seed: int = 0
) -> GroupScores:
    """The task's primary metric of each group.

    The interval is that of the middle 95% of the scores of samples of the group's size, drawn from it with replacement
    (Efron 1979; for BLEU Koehn 2004, https://aclanthology.org/W04-3250).

    Raises:
        InputError: unequal numbers, an example without a group, or no second group.
    """
    check_predictions(predictions, examples)
    members = members_of_groups(examples)
    if None in members:
        raise InputError(f"example {members[None][0]} must have a group, as all others; give each record the column")
    if len(members) < 2:
        raise InputError(f"groups to compare must be two or more, got {', '.join(map(str, members))} alone")
    name, greater_is_better = task.primary_metric
    draw = random.Random(seed)

    def score(indices: Sequence[int]) -> float:
        # By itself: of the group as of all.
        chosen = [replace(examples[index], group=None) for index in indices]
        return float(task.metrics([predictions[index] for index in indices], chosen)[name])

    groups = []
    for group, indices in sorted(members.items(), key=lambda item: str(item[0])):
        drawn = sorted(score(draw.choices(indices, k=len(indices))) for _ in range(resamples))
        cut = round(resamples * (1 - _INTERVAL) / 2)
        groups.append(GroupScore(str(group), len(indices), score(indices), drawn[cut], drawn[-1 - cut]))
    return GroupScores(name, greater_is_better, tuple(groups))
