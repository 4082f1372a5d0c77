"""Summarization: ROUGE against the nearest of several references, and what the first sentences alone would score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..seq2seq.sentences import sentence_spans
from ..utils.errors import InputError
from .base import Example, PrimaryMetric, Scores
from .metrics import load_metric
from .records import check_columns, check_text, column, excerpt, group_of
from .registry import register_task
from .text_to_text import TextToText


@dataclass(frozen=True)
class SummaryExample(Example):
    """A text and its summaries; `lead` has its first sentences."""

    lead: str = ""


@register_task
@dataclass(frozen=True)
class Summarization(TextToText):
    """Texts and their summaries.

    Records have a source, a text or the list of its sentences, and a target, a summary or a list of alternative ones.
    Training uses the first. Sentences of a source that are blank are left out. Optionally a group.

    Args:
        source_column, target_column: where the texts are.
        lead: how many of a text's first sentences are the summary to compare with.
        use_stemmer: whether ROUGE compares English words by their stems.
        group_column: the column with the group; every record must have it. None: a column `group` is used where there
            is one.

    Metrics, the F1 of `rouge_score` with the reference that it is highest with: `rouge1`, `rouge2`, `rougeL` and
    `rougeLsum`; and `lead1_rouge1` to `lead1_rougeLsum`, the same of the first sentence (`lead3_...` of three).
    """

    name = "summarization"
    primary_metric = PrimaryMetric("rougeL", greater_is_better=True)
    metric_modules = ("rouge",)

    source_column: str = "source"
    target_column: str = "target"
    lead: int = 1
    use_stemmer: bool = True
    group_column: str | None = None

    def __post_init__(self) -> None:
        check_columns(self.source_column, self.target_column)
        if self.lead < 1:
            raise InputError(f"lead must be at least 1 sentence, got {self.lead}")

    def example(self, record: Mapping[str, Any]) -> SummaryExample:
        sources, targets = self._texts(record, "source"), self._texts(record, "target")
        source = " ".join(sources)
        parts = sources if len(sources) > 1 else [source[first:last] for first, last in sentence_spans(source)]
        lead = " ".join(parts[: self.lead])
        return SummaryExample(source, targets[0], tuple(targets), group_of(record, self.group_column), lead)

    def _texts(self, record: Mapping[str, Any], side: str) -> list[str]:
        """The text or the texts of a side's column.

        Raises:
            InputError: there is none, or one that is not text, or that is blank and no sentence of a source.
        """
        name = getattr(self, f"{side}_column")
        value = column(record, name, f"set the task option {side}_column to one of them, or rename the column")
        texts = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
        if not texts:
            raise InputError(f"column {name!r} has no text in the record {excerpt(record)}; drop such rows")
        if side == "source":  # some corpora were split into sentences by a program
            texts = [text for text in texts if not isinstance(text, str) or text.strip()] or texts
        return [check_text(text, name, record).strip() for text in texts]

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> Scores:
        return self.by_group(predictions, examples, self._score)

    def _score(self, predictions: list[str], examples: list[Example], group: str | None) -> Scores:
        scores = self._rouge(predictions, examples)
        leads = [example.lead for example in examples if isinstance(example, SummaryExample)]
        if len(leads) == len(examples):
            of_lead = self._rouge(leads, examples)
            scores |= {f"lead{self.lead}_{name}": value for name, value in of_lead.items()}
        return scores

    def _rouge(self, predictions: list[str], examples: list[Example]) -> Scores:
        references = [[_by_line(text) for text in example.references] for example in examples]
        scores: Scores = load_metric("rouge").compute(
            predictions=[_by_line(text) for text in predictions], references=references, use_stemmer=self.use_stemmer
        )
        return scores


def _by_line(text: str) -> str:
    """A text with a sentence a line."""
    return "\n".join(text[first:last] for first, last in sentence_spans(text))
