"""Question answering: question and context in, answer out; exact match and token F1 as SQuAD counts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..data.collator import WithLists
from ..inference.texts import tokenizers_of
from ..pipelines.questions import SEPARATOR, TEMPLATE, names_in
from ..pipelines.saved_options import saved_options
from ..seq2seq.quoting import QUOTES, quotation, with_quoting
from ..seq2seq.sentences import ANSWER, sentence_around, split_answer
from ..utils.errors import InputError
from ..utils.type_checks import check_choice
from .base import BatchResult, Collator, Example, LengthLimits, PrimaryMetric, Scores
from .metrics import load_metric
from .records import column, excerpt, group_of, text_column
from .registry import register_task
from .squad_answers import answer_spans, answer_texts
from .text_to_text import TextToText

CONTEXT = "context_characters"
RATIONALE = "rationale"


@dataclass(frozen=True)
class QuestionInContext(Example):
    """An example with the context that is quoted."""

    context: str = ""


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
        quote: what the decoder can only quote from `context`, whatever its weights are; models are trained alike with
            and without it. `answer`: a sentence and, behind `Answer: `, a part of it, as `rationale_sentence` teaches.
            `sentences`: any number of sentences before `Answer: `, as either rationale teaches, and any answer.
        no_answer: what the decoder writes where the context has no answer (SQuAD 2), such as `unanswerable`; pipelines
            give `""` for it. None: records without an answer are refused.
        group_column: the column with the group; every record must have it. None: a column
            `group` is used where there is one.

    Metrics, after SQuAD's evaluation (Rajpurkar et al. 2016, 2018): `exact_match` and `f1`, each the best over the
    references; where some questions have no answer, also `HasAns_exact`, `HasAns_f1`, `NoAns_exact` and `NoAns_f1`.

    >>> QuestionAnswering().example({"question": "Where is Ann?", "context": "Ann is here.", "answer": "here"}).source
    'Where is Ann?<sep> Ann is here.'
    """

    name = "question-answering"
    primary_metric = PrimaryMetric("exact_match", greater_is_better=True)
    metric_modules = ("seq2seq_qa",)

    source_template: str = TEMPLATE
    rationale_column: str | None = None
    rationale_sentence: bool = False
    quote: str | None = None
    no_answer: str | None = None
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
        if self.quote is not None:
            self._check_quote(self.quote)
        if self.no_answer is not None and not self.no_answer.strip():
            raise InputError(f"no_answer must be a text such as 'unanswerable', got {self.no_answer!r}")

    def _check_quote(self, quote: str) -> None:
        check_choice("quote", quote, QUOTES)
        if quote == "answer" and not self.rationale_sentence:
            raise InputError("quote 'answer' must come with rationale_sentence, the sentence quoted first; give both")
        if not self._has_rationale:
            raise InputError(
                f"quote {quote!r} must come with rationale_column or rationale_sentence, which is quoted; give one"
            )

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return (SEPARATOR,) if SEPARATOR in self.source_template else ()

    @cached_property
    def _template_columns(self) -> tuple[str, ...]:
        return names_in(self.source_template)

    def example(self, record: Mapping[str, Any]) -> Example:
        fix = "rename the column, or set the task option source_template"
        references, rationale = answer_texts(record), ""
        if not references and self.no_answer is None:
            raise InputError(
                f"column 'answers' is empty in the record {excerpt(record)}; set the task option no_answer to what is "
                "written then, or drop such rows"
            )
        if self._has_rationale:
            rationale = self._rationale(record, is_answered=bool(references))
        texts = {
            name: rationale if name == RATIONALE and self.rationale_sentence else text_column(record, name, fix)
            for name in self._template_columns
        }
        source = self.source_template.format_map(texts)
        target = references[0] if references else str(self.no_answer)
        if self._has_rationale:
            target = f"{rationale.strip()} {ANSWER}{target}".lstrip()
        fields = (source, target, references or ("",), group_of(record, self.group_column))
        if self.quote is None:
            return Example(*fields)
        return QuestionInContext(*fields, text_column(record, "context", "leave the task option quote out"))

    def postprocess(self, prediction: str) -> str:
        return split_answer(prediction, self.no_answer, self.quote)[1]

    @classmethod
    def options_of_saved(cls, config: PreTrainedConfig) -> dict[str, Any]:
        return saved_options(
            config, cls.name, ("source_template", "no_answer", "rationale_column", "rationale_sentence", "quote")
        )

    def pipeline_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if set(self._template_columns) == {"question", "context"}:
            options["source_template"] = self.source_template
        if self.no_answer is not None:
            options["no_answer"] = self.no_answer
        if self.quote is None:
            return options
        taught = {"rationale_column": self.rationale_column} if self.rationale_column else {"rationale_sentence": True}
        return {**options, **taught, "quote": self.quote}

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        super().check_tokenizer(tokenizer, config)
        if self.quote and not (writing := tokenizers_of(tokenizer)[1]).is_fast:
            raise InputError(
                f"quote must be left out with {type(writing).__name__}, which has no offsets; load a fast one"
            )

    def features(
        self,
        names: Sequence[str],
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        limits: LengthLimits,
    ) -> dict[str, list[Any]]:
        if self.quote is None:
            return super().features(names, examples, tokenizer, limits)
        columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], CONTEXT: []}
        for name, example in zip(names, examples, strict=True):  # one by one, since some may be dropped
            encoded = super().features([name], [example], tokenizer, limits)
            assert isinstance(example, QuestionInContext)
            encoded[CONTEXT] = [[*map(ord, example.context)]][: len(encoded["labels"])]
            for key, values in encoded.items():
                columns[key] += values
        return columns

    def evaluation_collator(self, config: PreTrainedConfig) -> Collator:
        collate = self.collator(config)
        return WithLists(collate, (CONTEXT,), padding=0) if self.quote else collate

    def evaluate_batch(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, torch.Tensor],
        generation: Mapping[str, Any] | None,
    ) -> BatchResult:
        """The loss under the labels, and the answers written, quoted where `quote` asks for it."""
        if self.quote and generation is not None:
            contexts = ["".join(map(chr, row)).rstrip("\0") for row in batch[CONTEXT].tolist()]
            writing = tokenizers_of(tokenizer)[1]
            sources = [quotation(writing, context, self.quote, self.no_answer) for context in contexts]
            generation = with_quoting(generation, sources, cast(Any, model).generation_config)
        inputs = {name: tensor for name, tensor in batch.items() if name != CONTEXT}
        return super().evaluate_batch(model, tokenizer, inputs, generation)

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> Scores:
        return self.by_group(predictions, examples, self._score)

    @property
    def _has_rationale(self) -> bool:
        return self.rationale_sentence or self.rationale_column is not None

    def _rationale(self, record: Mapping[str, Any], is_answered: bool) -> str:
        if self.rationale_column is None:
            if not is_answered:
                return ""
            fix = "leave the task option rationale_sentence out"
            context = text_column(record, "context", fix)
            first, last = sentence_around(context, *answer_spans(record, context, fix)[0])
            return context[first:last]
        rationale = column(record, self.rationale_column, "set the task option rationale_column to one of them")
        if not isinstance(rationale, str):
            kind = type(rationale).__name__
            raise InputError(f"column {self.rationale_column!r} must hold text, got {kind} in {excerpt(record)}")
        return rationale

    def _score(self, predictions: list[str], examples: list[Example], group: str | None) -> Scores:
        references = [list(map(self.postprocess, example.references)) for example in examples]
        return load_metric("seq2seq_qa").compute(predictions=predictions, references=references)
