"""Question answering: question and context in, answer out; exact match and token F1 as SQuAD counts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any

from ..seq2seq.sentences import sentence_around, split_answer
from ..utils.errors import InputError
from .base import Example, PrimaryMetric, Scores
from .metrics import load_metric
from .records import check_text, column, excerpt, group_of, text_column
from .registry import register_task
from .text_to_text import TextToText

SEPARATOR = "<sep>"
ANSWER = "Answer: "
RATIONALE = "rationale"


@register_task
@dataclass(frozen=True)
class QuestionAnswering(TextToText):
    """Answers to questions about a context, written by the decoder.

    Records have `question`, `context`, and `answers` (a list of texts that are all right, or as SQuAD has them on the
    Hub, `{"text": [...]}`, and in its files, `[{"text": ...}, ...]`) or `answer` (one text); training uses the first.
    Optionally a group.

    Args:
        source_template: the source text, with names of columns in braces. The question comes first, so that a source
            cut at the end loses context and never the question (with the question last, cut the other end: the
            tokenizer's `truncation_side: left`); `<sep>` is a special token.
        rationale_column: the column with what the answer follows from. The decoder then learns to write this text
            first, after it `Answer: ` and the answer; only what follows the last `Answer: ` is scored. Sources are as
            without it, so nothing of the column is needed to answer a question.
        rationale_sentence: that text is the sentence of `context` in which the first answer starts, by SQuAD's
            `answer_start`. A small decoder learns to copy from it, of which a short answer alone teaches too little.
            `source_template` may name it, as `{rationale}`: an easier task to begin with.
        group_column: the column with the group; every record must have it. None: a column
            `group` is used where there is one.

    Metrics, after SQuAD 1.1's evaluation (Rajpurkar et al. 2016): `exact_match` and `f1`, each the best over
    the references.

    >>> QuestionAnswering().example({"question": "Where is Ann?", "context": "Ann is here.", "answer": "here"}).source
    'Where is Ann?<sep> Ann is here.'
    """

    name = "question-answering"
    primary_metric = PrimaryMetric("exact_match", greater_is_better=True)
    metric_modules = ("seq2seq_qa",)

    source_template: str = "{question}" + SEPARATOR + " {context}"
    rationale_column: str | None = None
    rationale_sentence: bool = False
    group_column: str | None = None

    def __post_init__(self) -> None:
        try:
            names = self._template_columns
        except ValueError as error:
            template = self.source_template
            raise InputError(
                f"source_template={template!r}: {error}; write {{{{ and }}}} for braces in the text"
            ) from None
        if not names:
            raise InputError(
                f"source_template={self.source_template!r} names no column; write names in braces: {{question}}"
            )
        for name in names:
            if not name.isidentifier():
                raise InputError(f"source_template={self.source_template!r} has {{{name}}}: not a column name")
        if self.rationale_sentence and self.rationale_column is not None:
            raise InputError(
                "rationale_sentence must be left out beside rationale_column, which names the same text; give one"
            )

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return (SEPARATOR,) if SEPARATOR in self.source_template else ()

    @cached_property
    def _template_columns(self) -> tuple[str, ...]:
        return tuple(name for _, name, _, _ in Formatter().parse(self.source_template) if name is not None)

    def example(self, record: Mapping[str, Any]) -> Example:
        fix = "rename the column, or set the task option source_template"
        answers = self._answers(record)
        texts = {
            name: self._rationale(record, answers[0])
            if name == RATIONALE and self.rationale_sentence
            else text_column(record, name, fix)
            for name in self._template_columns
        }
        source = self.source_template.format_map(texts)
        return Example(source, self._target(record, answers[0]), answers, group_of(record, self.group_column))

    def postprocess(self, prediction: str) -> str:
        return split_answer(prediction)[1] if self._has_rationale else prediction.strip()

    def pipeline_options(self) -> dict[str, str]:
        names = set(self._template_columns)
        return {"source_template": self.source_template} if names == {"question", "context"} else {}

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> Scores:
        return self.by_group(predictions, examples, self._score)

    @property
    def _has_rationale(self) -> bool:
        return self.rationale_sentence or self.rationale_column is not None

    def _target(self, record: Mapping[str, Any], answer: str) -> str:
        if not self._has_rationale:
            return answer
        return f"{self._rationale(record, answer).strip()} {ANSWER}{answer}".lstrip()

    def _rationale(self, record: Mapping[str, Any], answer: str) -> str:
        if self.rationale_column is None:
            context = text_column(record, "context", "leave the task option rationale_sentence out")
            start = self._first_start(record)
            first, last = sentence_around(context, start, start + len(answer))
            return context[first:last]
        rationale = column(record, self.rationale_column, "set the task option rationale_column to one of them")
        if not isinstance(rationale, str):
            kind = type(rationale).__name__
            raise InputError(f"column {self.rationale_column!r} must hold text, got {kind} in {excerpt(record)}")
        return rationale

    @staticmethod
    def _first_start(record: Mapping[str, Any]) -> int:
        """The character of the context that the first answer starts at."""
        answers = record.get("answers")
        if isinstance(answers, Sequence) and answers and isinstance(answers[0], Mapping):
            starts: Any = [answers[0].get("answer_start")]
        else:
            starts = answers.get("answer_start") if isinstance(answers, Mapping) else None
        if not isinstance(starts, Sequence) or not starts or type(starts[0]) is not int:
            raise InputError(
                "answers must have SQuAD's answer_start where the task option rationale_sentence is set, got "
                f"{excerpt(record)}; add it, or leave the option out"
            )
        return int(starts[0])

    @staticmethod
    def _answers(record: Mapping[str, Any]) -> tuple[str, ...]:
        name = "answers" if "answers" in record else "answer"
        if name == "answer":
            fix = "add 'answer' (a text) or 'answers' (a list of texts, or SQuAD's {'text': [...]})"
            return (text_column(record, name, fix),)
        answers = record[name]
        kind = type(answers).__name__
        if isinstance(answers, Mapping):
            kind = (
                "a mapping without 'text'" if "text" not in answers else f"'text' as {type(answers['text']).__name__}"
            )
            answers = answers.get("text")
        if isinstance(answers, str) or not isinstance(answers, Sequence):
            wanted = "a list of texts or SQuAD's {'text': [...]}"
            raise InputError(f"column 'answers' must hold {wanted}, got {kind} in {excerpt(record)}")
        if not answers:
            raise InputError(
                f"column 'answers' is an empty list in the record {excerpt(record)}; drop unanswerable rows"
            )
        answers = [answer.get("text") if isinstance(answer, Mapping) else answer for answer in answers]
        return tuple(dict.fromkeys(check_text(answer, name, record) for answer in answers))

    def _score(self, predictions: list[str], examples: list[Example], group: str | None) -> Scores:
        references = [list(example.references) for example in examples]
        return load_metric("seq2seq_qa").compute(predictions=predictions, references=references)
