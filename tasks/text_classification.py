"""Text classification: the class of a text, such as its sentiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig

from ..utils.errors import InputError
from .base import Example, PrimaryMetric, Scores
from .encoder_heads import classes_of, is_unnamed
from .metrics import load_metric
from .records import column, excerpt, group_of, text_column
from .registry import register_task
from .sequence_classification import Classified, SequenceClassification


@register_task
@dataclass(frozen=True)
class TextClassification(SequenceClassification):
    """Texts that have one of several classes.

    Args:
        labels: the names of the classes. A record has the name, or the number of the class in this order, from 0, as
            datasets on the Hub have it. By default those of sentiment.
        text_column, label_column: the columns of a record.
        group_column: the column with the group; every record must have it. None: a column `group` is used where there
            is one.

    Metrics, by scikit-learn: `accuracy`, and `precision`, `recall` and `f1`, each the mean over the classes.
    """

    name = "text-classification"
    primary_metric = PrimaryMetric("accuracy", greater_is_better=True)
    metric_modules = ("text_classification",)

    labels: list[str] = field(default_factory=lambda: ["negative", "positive"])
    text_column: str = "text"
    label_column: str = "label"
    group_column: str | None = None

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels) or not all(self.labels):
            raise InputError(f"labels must be two names or more, each another, got {self.labels}")

    @classmethod
    def options_of_saved(cls, config: PreTrainedConfig) -> dict[str, Any]:
        saved = classes_of(config)
        # Two without names are taken in the order of the labels by default.
        return {"labels": saved} if cls.has_head(config) and not is_unnamed(saved, 2) else {}

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.labels)

    def example(self, record: Mapping[str, Any]) -> Example:
        text = text_column(record, self.text_column, "set the task option text_column to one of them")
        given = column(record, self.label_column, "set the task option label_column to one of them")
        label = self._name_of(given, record)
        return Example(text, label, (label,), group_of(record, self.group_column))

    def _name_of(self, given: Any, record: Mapping[str, Any]) -> str:
        if given in self.labels:
            return str(given)
        # Where names are numbers themselves, a number as text is one of them or wrong.
        is_number = isinstance(given, str) and given.isdecimal() and not any(map(str.isdecimal, self.labels))
        number = int(given) if is_number else given
        if type(number) is not int or not 0 <= number < len(self.labels):
            raise InputError(
                f"column {self.label_column!r} must be one of {', '.join(self.labels)}, or a number from 0 to "
                f"{len(self.labels) - 1}, got {given!r} in the record {excerpt(record)}; add it to the task option "
                "labels"
            )
        return self.labels[number]

    def metrics(self, predictions: Sequence[Classified], examples: Sequence[Example]) -> Scores:
        for index, prediction in enumerate(predictions):
            if not isinstance(prediction, Classified):
                raise TypeError(f"prediction {index} must be Classified, got {type(prediction).__name__}")
        return self.by_group(predictions, examples, self._score)

    @staticmethod
    def _score(predictions: list[Classified], examples: list[Example], group: str | None) -> Scores:
        references = [example.references[0] for example in examples]
        return load_metric("text_classification").compute(
            predictions=[one.label for one in predictions], references=references
        )
