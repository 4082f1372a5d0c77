"""Semantic role labeling: who did what to whom, for a predicate that is given; scores are those of CoNLL-2005."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig

from ..utils.errors import InputError
from .base import Example, PrimaryMetric, Scores
from .encoder_heads import classes_of
from .metrics import load_metric
from .records import column, excerpt, group_of
from .registry import register_task
from .word_tagging import Tagged, TaggedExample, WordTagging

_NUMBERED = ("ARG0", "ARG1", "ARG2", "ARG3", "ARG4", "ARG5", "ARGA", "ARG1-DSP")
_MODIFIERS = (
    "ADJ", "ADV", "CAU", "COM", "CXN", "DIR", "DIS", "DSP", "EXT", "GOL", "LOC", "LVB", "MNR", "MOD", "NEG", "PNC",
    "PRD", "PRP", "PRR", "PRX", "REC", "SLC", "TMP", "VSP",
)  # fmt: skip
_ARGUMENTS = (*_NUMBERED, *(f"ARGM-{name}" for name in _MODIFIERS))
PROPBANK = ("V", "C-V", *(prefix + label for prefix in ("", "C-", "R-") for label in _ARGUMENTS))
"""PropBank's labels: the predicate, its arguments and modifiers; C- goes on with one, and R- refers to it."""


@register_task
@dataclass(frozen=True)
class SemanticRoleLabeling(WordTagging):
    """The arguments of a predicate, as tags of the words of its sentence.

    Records have `words`, a list; `predicate`, the number of its word, from 0; and `tags`, a BIO tag for each word,
    such as `B-ARG0`. Format `propbank` makes them. Optionally a group.

    Args:
        roles: the labels that there are; PropBank's by default.
        group_column: the column with the group; every record must have it. None: a column `group` is used where there
            is one.

    Metrics, as CoNLL-2005 has them: `precision`, `recall` and `f1` of arguments, and `exact_match`, the predicates
    whose arguments are all right.
    """

    name = "semantic-role-labeling"
    primary_metric = PrimaryMetric("f1", greater_is_better=True)
    metric_modules = ("semantic_roles",)

    roles: list[str] = field(default_factory=lambda: list(PROPBANK))
    group_column: str | None = None

    def __post_init__(self) -> None:
        if not self.roles or len(set(self.roles)) != len(self.roles) or not all(self.roles):
            raise InputError(f"roles must be one label or more, each another, got {self.roles}")

    @classmethod
    def options_of_saved(cls, config: PreTrainedConfig) -> dict[str, Any]:
        roles = [name.removeprefix("B-") for name in classes_of(config) if name.startswith("B-")]
        return {"roles": roles} if cls.has_head(config) and roles else {}

    @property
    def span_labels(self) -> tuple[str, ...]:
        return tuple(self.roles)

    def example(self, record: Mapping[str, Any]) -> TaggedExample:
        words, tags = (column(record, name, "rename the column") for name in ("words", "tags"))
        for name, values in (("words", words), ("tags", tags)):
            is_list = isinstance(values, list | tuple) and len(values) > 0
            if not is_list or not all(isinstance(one, str) and one.strip() for one in values):
                raise InputError(f"column {name!r} must be a list of texts, got {values!r:.80} in {excerpt(record)}")
        if len(words) != len(tags):
            raise InputError(f"tags must be one for each of {len(words)} words, got {len(tags)} in {excerpt(record)}")
        known = set(self.class_names)
        for tag in tags:
            if tag not in known:
                raise InputError(
                    f"the tag {tag!r} must be O, or B- or I- before one of the task's roles, in {excerpt(record)}; "
                    "add its label to the task option roles"
                )
        given = column(record, "predicate", "add the number of the predicate's word")
        number = int(given) if isinstance(given, str) and given.isdecimal() else given
        if type(number) is not int or not 0 <= number < len(words):
            raise InputError(
                f"column 'predicate' must be the number of a word, 0 to {len(words) - 1}, got {given!r} in "
                f"{excerpt(record)}"
            )
        return TaggedExample.of(words, tags, number, group_of(record, self.group_column))

    def metrics(self, predictions: Sequence[Tagged], examples: Sequence[Example]) -> Scores:
        for index, prediction in enumerate(predictions):
            if not isinstance(prediction, Tagged):
                raise TypeError(f"prediction {index} must be Tagged, got {type(prediction).__name__}")
        return self.by_group(predictions, examples, self._score)

    def _score(self, predictions: list[Tagged], examples: list[Example], group: str | None) -> Scores:
        references = [list(self.perfect_prediction(example).tags) for example in examples]
        return load_metric("semantic_roles").compute(
            predictions=[list(one.tags) for one in predictions], references=references
        )
