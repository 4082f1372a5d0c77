"""What a task is: how a record becomes an example, and how predictions are scored.

A new task is one file: a subclass of `Task` under `@register_task`, then a line in `tasks/__init__.py` that imports it
(a task outside the package is registered as soon as its own module is imported).

    @register_task
    class Reversal(Task):
        name = "reversal"
        primary_metric = PrimaryMetric("exact_match", greater_is_better=True)

        def example(self, record):
            text = text_column(record, "text", fix="rename the column that holds the text")
            return Example(source=text, target=text[::-1], references=(text[::-1],), group=None)

        def metrics(self, predictions, examples):
            return self.by_group(predictions, examples, self.score)

        def score(self, predictions, examples, group):
            hits = sum(p in e.references for p, e in zip(predictions, examples, strict=True))
            return {"exact_match": 100 * hits / len(predictions)}
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, get_type_hints

from ..utils.errors import InputError
from ..utils.type_checks import check_type

Scores = dict[str, float | str]


@dataclass(frozen=True)
class Example:
    """One example as text: what the encoder reads, what the decoder learns, what predictions are held against.

    `references` has at least one text; `target` is what training uses. `group` names the part of the test set that is
    also scored by itself (a language, a subtask); None belongs to no part.
    """

    source: str
    target: str
    references: tuple[str, ...]
    group: str | None = None


class PrimaryMetric(NamedTuple):
    """The key in `Task.metrics` by which checkpoints are compared."""

    name: str
    greater_is_better: bool


class Task(ABC):
    """How records become examples, and how predictions are scored. Options are the constructor's keywords.

    `special_tokens` are texts that the tokenizer should keep whole. Scores are percentages, 0 to 100.
    """

    name: ClassVar[str]
    primary_metric: ClassVar[PrimaryMetric]
    special_tokens: tuple[str, ...] = ()

    @abstractmethod
    def example(self, record: Mapping[str, Any]) -> Example:
        """One row of a dataset as an example. Raises ValueError for a column that is missing, empty or not text."""

    @abstractmethod
    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> Scores:
        """The scores of `predictions[i]` for `examples[i]`: for all, and for each group under `<metric>_<group>`.

        Raises ValueError for nothing to score and for unequal numbers, TypeError for predictions that are not text.
        """

    def metric_names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The names of the numbers that `metrics` gives for such examples, those of their groups included."""
        of_groups = list({example.group: example for example in examples}.values())
        scores = self.metrics([example.references[0] for example in of_groups], of_groups)
        return tuple(name for name, value in scores.items() if not isinstance(value, str))

    def postprocess(self, prediction: str) -> str:
        """A prediction as it is scored: without surrounding whitespace."""
        return prediction.strip()

    def by_group(
        self,
        predictions: Sequence[str],
        examples: Sequence[Example],
        score: Callable[[list[str], list[Example], str | None], Scores],
    ) -> Scores:
        """`score(predictions, examples, group)` of all (group None) and of every group, in the groups' sorted order.

        Predictions are checked and postprocessed first; each group's keys get the suffix `_<group>`.
        """
        check_predictions(predictions, examples)
        predictions = [self.postprocess(prediction) for prediction in predictions]
        scores = dict(score(predictions, list(examples), None))
        members = members_of_groups(examples)
        members.pop(None, None)
        for group, indices in sorted(members.items()):
            part = score([predictions[i] for i in indices], [examples[i] for i in indices], group)
            for key, value in part.items():
                if f"{key}_{group}" in scores:
                    raise InputError(f"two scores are both named {key}_{group}: rename the group {group!r}")
                scores[f"{key}_{group}"] = value
        return scores


def members_of_groups(examples: Sequence[Example]) -> dict[str | None, list[int]]:
    """The indices of every group's examples; None stands for those that belong to no group."""
    members: dict[str | None, list[int]] = {}
    for index, example in enumerate(examples):
        members.setdefault(example.group, []).append(index)
    return members


def check_predictions(predictions: Sequence[str], examples: Sequence[Example]) -> None:
    """Raise TypeError or ValueError unless there is one text in `predictions` for each of `examples`, at least one."""
    if isinstance(predictions, str):
        raise TypeError("predictions are one string; expected a list of strings, one for each example")
    if len(predictions) != len(examples):
        raise InputError(f"{len(predictions)} predictions for {len(examples)} examples; give one for each example")
    if len(predictions) == 0:
        raise InputError("nothing to score: predictions and examples are empty; give at least one of each")
    for index, prediction in enumerate(predictions):
        if not isinstance(prediction, str):
            kind = type(prediction).__name__
            raise TypeError(f"prediction {index} is of type {kind}, not str; decode token ids before scoring")


def column(record: Mapping[str, Any], name: str, fix: str) -> Any:
    """`record[name]`; ValueError that names the column, the record's columns and how to fix it if it is not there."""
    if name not in record:
        columns = ", ".join(repr(key) for key in record) or "none"
        raise InputError(f"the record has no column {name!r} (its columns: {columns}); {fix}")
    return record[name]


def text_column(record: Mapping[str, Any], name: str, fix: str) -> str:
    """`record[name]`, which must be text with more in it than whitespace; ValueError if not."""
    return check_text(column(record, name, fix), name, record)


def check_text(value: Any, name: str, record: Mapping[str, Any]) -> str:
    """`value`, from column `name` of `record`, if it is text with more in it than whitespace; ValueError if not."""
    if not isinstance(value, str):
        raise InputError(f"column {name!r} holds {type(value).__name__}, not text, in the record {excerpt(record)}")
    if not value.strip():
        raise InputError(f"column {name!r} is empty in the record {excerpt(record)}; drop or fill such rows")
    return value


def group_of(record: Mapping[str, Any], group_column: str | None) -> str | None:
    """What `group_column` holds, as text; if that is None, what a column `group` holds where there is one."""
    if group_column is None:
        value = record.get("group")
    else:
        value = column(record, group_column, "set the task option group_column to one of them, or leave it out")
    if value is not None and (not isinstance(value, str | int) or value == ""):
        raise InputError(f"the group must be a name or a number, not {value!r}, in the record {excerpt(record)}")
    return None if value is None else str(value)


def excerpt(record: Mapping[str, Any], width: int = 160) -> str:
    """The record on one line, cut to `width` characters."""
    text = repr(dict(record))
    return text if len(text) <= width else text[: width - 3] + "..."


_TASKS: dict[str, type[Task]] = {}


def register_task(cls: type[Task]) -> type[Task]:
    """Class decorator: makes a `Task` known to `get_task` under its `name`. A name can be taken once."""
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name:
        raise TypeError(f"{cls.__qualname__} has no name; give the class an attribute name = '...'")
    if not isinstance(getattr(cls, "primary_metric", None), PrimaryMetric):
        raise TypeError(f"task {name!r} has no primary_metric; set it to PrimaryMetric(name, greater_is_better)")
    known = _TASKS.get(name)
    # The same class defined again (a notebook cell run twice, a module reloaded) replaces itself.
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        taken_by = f"{known.__module__}.{known.__qualname__}"
        raise InputError(f"the task name {name!r} is taken by {taken_by}; give {cls.__qualname__} another name")
    _TASKS[name] = cls
    return cls


def task_names() -> tuple[str, ...]:
    """The names that `get_task` knows, sorted."""
    return tuple(sorted(_TASKS))


def get_task(name: str, **options: Any) -> Task:
    """The task registered as `name`, built with `options`. Raises ValueError for an unknown name or option.

    >>> from crossmask.tasks import get_task
    >>> get_task("translation", tokenize="intl").name
    'translation'
    """
    if name not in _TASKS:
        raise InputError(f"unknown task {name!r}; known tasks: {', '.join(task_names())}")
    known = list(inspect.signature(_TASKS[name]).parameters)
    for option in options:
        if option not in known:
            raise InputError(f"task {name!r} has no option {option!r}; its options: {', '.join(known) or 'none'}")
    declared = get_type_hints(_TASKS[name].__init__)
    for option, value in options.items():
        check_type(f"task option {option}", value, declared.get(option, Any))
    return _TASKS[name](**options)
