"""Extractive question answering: the answer is a span of the context, or none; scores are those of SQuAD 1.1 and 2."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    AutoModelForQuestionAnswering,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..data.question_answering import QuestionAnsweringCollator
from ..hub.card import python_literal
from ..question_answering.decoding import Answer, WindowSpans, best_answers, spans_of_windows
from ..question_answering.loss import IGNORED
from ..question_answering.modeling import CrossMaskForQuestionAnswering
from ..question_answering.windows import WindowCollator, encode_windows
from ..utils.errors import InputError
from .base import BatchResult, Collator, Example, LengthLimits, PrimaryMetric, Sample, Scores, sample_indices
from .encoder_heads import EncoderHead
from .metrics import load_metric
from .records import group_of, text_column
from .registry import register_task
from .squad_answers import answer_spans

NOTHING = "(no answer)"
NO_PLACE = "add where answers start, or take task question-answering, which writes them"


@dataclass(frozen=True)
class QuestionExample(Example):
    """A question about a context. Its references are ("",) where there is no answer.

    Attributes:
        question, context: the texts.
        span: the characters of the answer to learn, `(first, one past the last)`, or None.
    """

    question: str = ""
    context: str = ""
    span: tuple[int, int] | None = None


@register_task
@dataclass(frozen=True)
class ExtractiveQuestionAnswering(EncoderHead):
    """Answers that are spans of a context.

    Records have `question`, `context` and `answers`, as SQuAD has them on the Hub: `{"text": [...], "answer_start":
    [...]}`, texts and the characters that they start at, none where the context has no answer (SQuAD 2). Training uses
    the answer that is given most often, of these the first. Optionally a group. A context over `max_source_length`
    tokens, with the question, is cut into windows where `overlong` is `split`.

    Models are those of `AutoModelForQuestionAnswering`: a pointer on a pretrained encoder (a recipe's
    `encoder_name_or_path`), or a model of Transformers to fine-tune (`model_name_or_path`). Only a pointer with
    `no_answer: true` learns that there is none.

    Args:
        stride: how many tokens of the context neighbouring windows share.
        max_answer_length: of a predicted answer, in tokens.
        null_threshold: how much more than no answer an answer must score, where the model knows no answer.
        group_column: the column with the group; every record must have it. None: a column `group` is used where there
            is one.

    Metrics, after SQuAD's evaluation: `exact_match` and `f1`, each the best over the references; where some questions
    have no answer, also `HasAns_exact`, `HasAns_f1`, `NoAns_exact` and `NoAns_f1`, as SQuAD 2 names them.
    """

    name = "extractive-question-answering"
    primary_metric = PrimaryMetric("f1", greater_is_better=True)
    metric_modules = ("seq2seq_qa",)
    pipeline_tag = "question-answering"
    auto_class = AutoModelForQuestionAnswering
    head_class = CrossMaskForQuestionAnswering
    model_mapping = MODEL_FOR_QUESTION_ANSWERING_MAPPING
    unused_fields = {
        **EncoderHead.unused_fields,
        "source_prefix": "it would stand before the question",
        "label_smoothing_factor": "positions are learned without smoothing",
    }

    stride: int = 128
    max_answer_length: int = 30
    null_threshold: float = 0.0
    group_column: str | None = None

    def __post_init__(self) -> None:
        if self.stride < 0 or self.max_answer_length < 1:
            raise InputError(
                f"stride must be at least 0 and max_answer_length at least 1, got {self.stride} and "
                f"{self.max_answer_length}"
            )

    def example(self, record: Mapping[str, Any]) -> QuestionExample:
        question, context = (text_column(record, name, "rename the column") for name in ("question", "context"))
        spans = answer_spans(record, context, NO_PLACE)
        texts = tuple(dict.fromkeys(context[start:end] for start, end in spans)) or ("",)
        span = max(spans, key=spans.count) if spans else None
        target = "" if span is None else context[slice(*span)]
        group = group_of(record, self.group_column)
        return QuestionExample(f"{question}\n{context}", target, texts, group, question, context, span)

    def check_options(self, config: PreTrainedConfig) -> None:
        if self.null_threshold and not getattr(config, "no_answer", False):
            raise InputError(
                f"task_options.null_threshold must be left out for a model that always answers, got "
                f"{self.null_threshold}; set no_answer: true in model"
            )

    def tagged(self, example: Example, tag: str) -> Example:
        raise InputError(f"tag must be left out for task {self.name}, got {tag!r}: it would stand before the question")

    def metrics(self, predictions: Sequence[Answer], examples: Sequence[Example]) -> Scores:
        for index, prediction in enumerate(predictions):
            if not isinstance(prediction, Answer):
                raise TypeError(f"prediction {index} must be an Answer, got {type(prediction).__name__}")
        return self.by_group(predictions, examples, self._score)

    @staticmethod
    def _score(predictions: list[Answer], examples: list[Example], group: str | None) -> Scores:
        texts, references = [one.text for one in predictions], [list(example.references) for example in examples]
        return load_metric("seq2seq_qa").compute(predictions=texts, references=references)

    def perfect_prediction(self, example: Example) -> Answer:
        return Answer(example.references[0], 1.0)

    def evaluation_limits(self, limits: LengthLimits) -> LengthLimits:
        return replace(limits, overlong="split")

    def features(
        self,
        names: Sequence[str],
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        limits: LengthLimits,
    ) -> dict[str, list[Any]]:
        self.check_overlong(limits, ("error", "drop", "split"), ", which would cut answers off")
        questions, contexts, spans = (
            [getattr(example, name) for example in examples] for name in ("question", "context", "span")
        )
        try:
            encoded = encode_windows(
                tokenizer, questions, contexts, max_length=limits.max_source_length, stride=self.stride, answers=spans
            )
        except ValueError as error:
            raise InputError(f"{names[0]} to {names[-1]}: {error}") from error
        columns: dict[str, list[Any]] = {
            "input_ids": [],
            "passage_ids": [],
            "offsets": [],
            "labels": [],
            "example": [],
        }
        for index, windows in enumerate(encoded):
            if len(windows) > 1 and limits.overlong == "error":
                raise InputError(
                    f"{names[index]}: question and context have more than max_source_length="
                    f"{limits.max_source_length} tokens: raise it, or set overlong to split or drop"
                )
            for window in windows if len(windows) == 1 or limits.overlong == "split" else ():
                labels = [window["start_positions"], window["end_positions"]]
                row = {**window, "labels": labels, "example": index}
                for name in columns | ({"token_type_ids": []} if "token_type_ids" in window else {}):
                    columns.setdefault(name, []).append(row[name])
        return columns

    def collator(self, config: PreTrainedConfig) -> Collator:
        return QuestionAnsweringCollator(config)

    def evaluation_collator(self, config: PreTrainedConfig) -> Collator:
        return QuestionAnsweringCollator(config, for_evaluation=True)

    def targets(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        # A model of Transformers takes the mean of each batch, and Trainer that of the means.
        return batch["start_positions"] if "passage_ids" in batch else None

    def evaluate_batch(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, torch.Tensor],
        generation: Mapping[str, Any] | None,
    ) -> BatchResult:
        """The loss under the labels, and the best span of each window."""
        taken = inspect.signature(model.forward).parameters.keys()
        inputs = {name: batch[name] for name in taken & batch.keys()}
        outputs = model(**inputs)
        length = batch["input_ids"].shape[1]
        count = ((batch["start_positions"] != IGNORED) & (batch["start_positions"] < length)).sum().double()
        spans = None
        if generation is not None:
            spans = spans_of_windows(outputs, batch, max_answer_length=self.max_answer_length)
        loss = outputs.loss.double() if count else torch.zeros_like(count)  # a mean of nothing is no number
        return BatchResult(torch.stack([loss * count, count]), spans)

    def combine(self, outputs: Sequence[WindowSpans], example: Example) -> Answer:
        """The best answer over the windows of an example's context."""
        return best_answers(_question(example).context, outputs, null_threshold=self.null_threshold)[0]

    def output(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example) -> list[Any]:
        """The scores of the tokens of the first window as the start of the answer."""
        return self._scores(model, tokenizer, example)[0][0].tolist()

    def usage(self, example: Example) -> str:
        asked = _question(example)
        return (
            "# pip install crossmask\n"
            "from crossmask import answer\n\n"
            f"question = {python_literal(asked.question)}\n"
            f"context = {python_literal(asked.context)}\n"
            "print(answer(model, tokenizer, question, context))"
        )

    def sample(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example, prediction: Answer
    ) -> Sample:
        """The answer and, in brackets, the sentence that it was read from."""
        output = prediction.text or NOTHING
        if prediction.sentence is not None:
            output += f" [{_question(example).context[slice(*prediction.sentence)]}]"
        verdict = "exact" if prediction.text in example.references else "differs"
        return Sample(example.source, example.references[0] or NOTHING, output, verdict)

    def plots(
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        predictions: Sequence[Answer],
    ) -> dict[str, str]:
        """Where the model looks for the start and the end of some answers: over 40 tokens around the likeliest."""
        from ..plotting.training import alignment  # tasks are there without matplotlib too

        images = {}
        for number, index in enumerate(sample_indices(examples, 3), start=1):
            file, question = f"pointer_{number}.png", _question(examples[index]).question
            scores, tokens = self._scores(model, tokenizer, examples[index])
            weights = scores.softmax(-1)
            first = max(int(weights.sum(0).argmax()) - 20, 0)
            shown = slice(first, first + 40)
            alignment(weights[:, shown], tokens[shown], ["start", "end"], folder / file, title=question)
            images[file] = f"Where the answer starts and ends, example {number}"
        return images

    @torch.no_grad()
    def _scores(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example
    ) -> tuple[torch.Tensor, list[str]]:
        """The scores of the first window's tokens as start and as end of the answer, (2, S), and the tokens."""
        question = _question(example)
        limit = min(512, getattr(model.config, "max_position_embeddings", None) or 512)
        ((window, *_),) = encode_windows(
            tokenizer, [question.question], [question.context], max_length=limit, stride=min(self.stride, limit // 4)
        )
        batch = WindowCollator(0)([window])
        taken = inspect.signature(model.forward).parameters.keys()
        outputs = model(**{name: batch[name].to(model.device) for name in taken & batch.keys()})
        tokens = [str(tokenizer.decode([token])) for token in window["input_ids"]]
        return torch.cat((outputs.start_logits, outputs.end_logits)).float().cpu(), tokens


def _question(example: Example) -> QuestionExample:
    if not isinstance(example, QuestionExample):
        raise TypeError(f"an example must be a QuestionExample, got {type(example).__name__}")
    return example
