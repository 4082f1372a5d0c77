"""Semantic role labeling by writing: the target is the sentence with its arguments in brackets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import (
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from ..data.collator import WithLists
from ..heads.bio import bracketed, spans_of_tags
from ..heads.words import EncodedWords, encode_words
from ..seq2seq.bracket_copy import BracketTokens, CopyWithBrackets, read_copy
from ..utils.errors import InputError
from .base import BatchResult, Collator, Example, LengthLimits, PrimaryMetric, Sample, Scores
from .registry import register_task
from .semantic_role_labeling import PROPBANK, SemanticRoleLabeling
from .seq2seq_models import encode
from .text_to_text import TextToText
from .word_tagging import Tagged, TaggedExample, tagged_example

PREDICATE = "[PREDICATE"
CLOSING = "/]"
_NO_TOKEN = -1
LONGEST = 10**6  # where a model has no limit
Spans = list[tuple[str, int, int]]


@register_task
@dataclass(frozen=True)
class RoleGeneration(TextToText):
    """The arguments of a predicate, as brackets around the words of its sentence, which an encoder-decoder writes.

    Records, roles and metrics are those of `semantic-role-labeling`. The source has a token before the predicate. The
    target is the source's tokens, in whose order nothing changes, with a token of its label before each argument, and
    one behind it. Generation is constrained: whatever the weights are, it copies the source and brackets whole words.

    Tokenizers are trained by the recipe, so that these tokens are whole in them.

    Args:
        roles: the labels that there are; PropBank's by default.
        group_column: as in `semantic-role-labeling`.
    """

    name = "semantic-role-generation"
    primary_metric = PrimaryMetric("f1", greater_is_better=True)
    metric_modules = ("semantic_roles",)

    roles: list[str] = field(default_factory=lambda: list(PROPBANK))
    group_column: str | None = None

    @property
    def _labeling(self) -> SemanticRoleLabeling:
        return SemanticRoleLabeling(self.roles, self.group_column)

    def __post_init__(self) -> None:
        _ = self._labeling  # which refuses roles that cannot be

    @property
    def special_tokens(self) -> tuple[str, ...]:  # type: ignore[override]
        return (PREDICATE, CLOSING, *(f"[{role}" for role in self.roles))

    def example(self, record: Mapping[str, Any]) -> TaggedExample:
        return self._labeling.example(record)

    def tagged(self, example: Example, tag: str) -> Example:
        return self._labeling.tagged(example, tag)

    def perfect_prediction(self, example: Example) -> Tagged:
        return self._labeling.perfect_prediction(example)

    def metrics(self, predictions: Sequence[Tagged], examples: Sequence[Example]) -> Scores:
        return self._labeling.metrics(predictions, examples)

    def by_group(
        self,
        predictions: Sequence[Any],
        examples: Sequence[Example],
        score: Callable[[list[Any], list[Example], str | None], Scores],
    ) -> Scores:
        return self._labeling.by_group(predictions, examples, score)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        if isinstance(tokenizer, ProcessorMixin):
            raise InputError(f"models for task {self.name} must have one tokenizer, got a bridge; give `tokenizer`")
        super().check_tokenizer(tokenizer, config)
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in self.special_tokens if token not in vocabulary]
        if missing:
            raise InputError(
                f"the tokenizer must have a token for each bracket, got none for {missing[0]!r} and "
                f"{len(missing) - 1} more; leave model_name_or_path out and train one by `tokenizer`"
            )

    def texts(self, example: Example) -> tuple[str, ...]:
        return (example.source,)

    def features(
        self,
        names: Sequence[str],
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        limits: LengthLimits,
    ) -> dict[str, list[Any]]:
        if limits.overlong not in ("error", "drop", "truncate"):
            raise InputError(f"overlong must be error, drop or truncate for task {self.name}, got {limits.overlong}")
        tagged = [tagged_example(example) for example in examples]
        # One more token is the predicate's mark.
        cut = limits.max_source_length - 1 if limits.overlong == "truncate" else None
        columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "copy_ids": [], "copy_words": []}
        for name, example, encoded in zip(
            names, tagged, encode_words(tokenizer, [one.words for one in tagged], cut), strict=True
        ):
            source, labels = self._sides(example, encoded, tokenizer)
            if limits.overlong == "truncate":
                labels = labels[: limits.max_target_length]
            over = [
                (side, len(ids), limit)
                for side, ids, limit in (
                    ("source", source, limits.max_source_length),
                    ("target", labels, limits.max_target_length),
                )
                if len(ids) > limit
            ]
            if over and limits.overlong == "error":
                side, length, limit = over[0]
                raise InputError(
                    f"{name}: its {side} has {length} tokens and max_{side}_length is {limit}: raise it, or set "
                    "overlong to truncate or drop"
                )
            if over:
                continue
            copied = [at for at, word in enumerate(encoded.word_ids) if word >= 0]
            row = (
                source,
                labels,
                [encoded.input_ids[at] for at in copied],
                [encoded.word_ids[at] for at in copied],
            )
            for column, values in zip(columns.values(), row, strict=True):
                column.append(values)
        return columns

    def _sides(
        self, example: TaggedExample, encoded: EncodedWords, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[list[int], list[int]]:
        """The token ids of source and target."""
        ids = tokenizer.get_vocab()
        opens = {first: ids[f"[{label}"] for label, first, _ in spans_of_tags(example.tags)}
        last_of = {first: last for _, first, last in spans_of_tags(example.tags)}
        source, target, open_until = [], [], None
        previous = _NO_TOKEN
        for token, word in zip(encoded.input_ids, encoded.word_ids, strict=True):
            if word >= 0 and word != previous:
                if open_until is not None and word > open_until:
                    target.append(ids[CLOSING])
                    open_until = None
                # A span may begin at a word without a token.
                begins = [first for first in opens if previous < first <= word]
                if begins and open_until is None:
                    first = begins[-1]
                    target.append(opens[first])
                    open_until = last_of[first]
                if word == example.marked:
                    source.append(ids[PREDICATE])
                previous = word
            source.append(token)
            if word >= 0:
                target.append(token)
        if open_until is not None:
            target.append(ids[CLOSING])
        return source, [*target, tokenizer.eos_token_id]

    def evaluation_collator(self, config: PreTrainedConfig) -> Collator:
        return WithLists(self.collator(config), ("copy_ids", "copy_words"), padding=_NO_TOKEN)

    def evaluate_batch(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, torch.Tensor],
        generation: Mapping[str, Any] | None,
    ) -> BatchResult:
        """The loss under the labels, and the labelled spans of words that were written."""
        inputs = {name: tensor for name, tensor in batch.items() if name not in ("copy_ids", "copy_words")}
        result = super().evaluate_batch(model, tokenizer, inputs, None)
        if generation is None:
            return result
        tokens, words = (
            [[number for number in row if number != _NO_TOKEN] for row in batch[name].tolist()]
            for name in ("copy_ids", "copy_words")
        )
        brackets, labels = self._brackets(tokenizer)
        constraint = CopyWithBrackets(tokens, words, brackets)
        encoded = encode(model, batch["input_ids"], batch["attention_mask"])
        written = cast(Any, model).generate(
            encoder_outputs=encoded,
            attention_mask=batch["attention_mask"],
            logits_processor=LogitsProcessorList([constraint]),
            **generation,
        )
        predictions = []
        for row, ids in enumerate(written[:, 1:].tolist()):
            state = read_copy(tokens[row], words[row], ids, brackets)
            state.close()  # where the longest length cut it off
            predictions.append([(labels[label], first, last) for label, first, last in state.spans])
        return BatchResult(result.loss, predictions)

    def _brackets(self, tokenizer: PreTrainedTokenizerBase) -> tuple[BracketTokens, dict[int, str]]:
        """The ids of the tokens that are not copied, and the labels of those that open a bracket."""
        ids = tokenizer.get_vocab()
        labels = {ids[f"[{role}"]: role for role in self.roles}
        return BracketTokens(tuple(labels), ids[CLOSING], tokenizer.eos_token_id), labels

    def combine(self, outputs: Sequence[Spans], example: Example) -> Tagged:
        tags = ["O"] * len(tagged_example(example).words)
        (spans,) = outputs
        for label, first, last in spans:
            tags[first : last + 1] = [f"B-{label}", *[f"I-{label}"] * (last - first)]
        return Tagged(tuple(tags))

    def label(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Sequence[str], predicate: int
    ) -> list[str]:
        """The BIO tags of the words of one sentence, whose word `predicate` is the predicate. Raises as `features`."""
        example = TaggedExample.of(words, ["O"] * len(words), predicate)
        source, target = (limit or LONGEST for limit in self.max_positions(model.config).values())
        columns = self.features(["the sentence"], [example], tokenizer, LengthLimits(source, target))
        batch = self.evaluation_collator(model.config)([{name: values[0] for name, values in columns.items()}])
        del batch["labels"]
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.no_grad():
            length = min(3 * len(columns["copy_ids"][0]) + 1, target)  # a bracket around each token
            spans = self.evaluate_batch(model, tokenizer, inputs, {"max_new_tokens": length}).predictions
        assert spans is not None
        return list(self.combine(spans, example).tags)

    def usage(self, example: Example) -> str:
        tagged = tagged_example(example)
        return (
            "# pip install crossmask\n"
            "from crossmask.tasks import get_task\n\n"
            f'task = get_task("{self.name}", roles={self.roles!r})\n'
            f"words = {list(tagged.words)!r}\n"
            f"print(task.label(model, tokenizer, words, predicate={tagged.marked}))"
        )

    def sample(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example, prediction: Any
    ) -> Sample:
        tagged = tagged_example(example)
        verdict = "exact" if prediction.tags == tagged.tags else "differs"
        return Sample(example.source, example.target, bracketed(tagged.words, prediction.tags), verdict)
