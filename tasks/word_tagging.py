"""Tagging: each word of a sentence gets a BIO tag, in view of a marked word. Semantic roles are of this kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..data.encoder_batches import EncoderCollator
from ..heads.bio import BioDecoder, bio_tags, bracketed, spans_of_tags
from ..heads.token_classification import CrossMaskForTokenClassification
from ..heads.words import encode_words, marks_of, word_scores
from ..seq2seq.decoder_inputs import IGNORED
from ..utils.errors import InputError
from .base import BatchResult, Collator, Example, LengthLimits, Sample
from .encoder_heads import EncoderHead


class Tagged(NamedTuple):
    """The BIO tag of each word of a sentence."""

    tags: tuple[str, ...]


@dataclass(frozen=True)
class TaggedExample(Example):
    """A sentence whose words have tags; its `target` shows them in brackets.

    Attributes:
        words: of the sentence. tags: a BIO tag for each. marked: the number of the word that is marked, such as the
            predicate; None for none.
    """

    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    marked: int | None = None

    @classmethod
    def of(
        cls, words: Sequence[str], tags: Sequence[str], marked: int | None, group: str | None = None
    ) -> TaggedExample:
        target = bracketed(words, tags)
        return cls(" ".join(words), target, (target,), group, tuple(words), tuple(tags), marked)


class WordTagging(EncoderHead):
    """A kind of tasks: the words of an example get BIO tags, those of spans with the labels `span_labels`.

    A prediction is `Tagged`, always well-formed. The marked word gets a learned vector in models of crossmask, and
    token type 1 in models of Transformers. Models are those of `AutoModelForTokenClassification`.
    """

    auto_class = AutoModelForTokenClassification
    head_class = CrossMaskForTokenClassification
    model_mapping = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING
    pipeline_tag = "token-classification"
    unused_fields = {**EncoderHead.unused_fields, "source_prefix": "it would stand before the words"}

    @property
    @abstractmethod
    def span_labels(self) -> tuple[str, ...]:
        """The labels of spans."""

    @cached_property
    def _decoder(self) -> BioDecoder:
        return BioDecoder(bio_tags(self.span_labels))

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._decoder.tags

    @property
    def new_fields(self) -> dict[str, Any]:
        return {**super().new_fields, "marker_vocab_size": 1}

    def perfect_prediction(self, example: Example) -> Tagged:
        return Tagged(tagged_example(example).tags)

    def tagged(self, example: Example, tag: str) -> Example:
        raise InputError(f"tag must be left out for task {self.name}, got {tag!r}: it would stand before the words")

    def check_model(self, model: PreTrainedModel, packed: bool) -> None:
        if not (_takes_marks(model.config) or (getattr(model.config, "type_vocab_size", None) or 0) > 1):
            raise InputError(
                f"{type(model).__name__} has neither marks nor token types to mark a word by; give "
                "encoder_name_or_path instead of model_name_or_path"
            )

    def features(
        self,
        names: Sequence[str],
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        limits: LengthLimits,
    ) -> dict[str, list[Any]]:
        self.check_overlong(limits, ("error", "drop", "truncate"), "; a sentence stays whole")
        tagged = [tagged_example(example) for example in examples]
        cut = limits.max_source_length if limits.overlong == "truncate" else None
        classes = {name: index for index, name in enumerate(self.class_names)}
        columns: dict[str, list[Any]] = {"input_ids": [], "marker_ids": [], "first_tokens": [], "labels": []}
        for name, example, encoded in zip(
            names, tagged, encode_words(tokenizer, [example.words for example in tagged], cut), strict=True
        ):
            length = len(encoded.input_ids)
            if not self.fits(f"{name}: its sentence", length, limits):
                continue
            labels = [IGNORED] * length
            for tag, token in zip(example.tags, encoded.first_tokens, strict=True):
                if token >= 0:
                    labels[token] = classes[tag]
            marks = [0] * length if example.marked is None else marks_of(encoded, example.marked)
            row = (encoded.input_ids, marks, encoded.first_tokens, labels)
            for column, values in zip(columns.values(), row, strict=True):
                column.append(values)
        return columns

    def collator(self, config: PreTrainedConfig) -> Collator:
        return EncoderCollator.for_config(config, marks=_marks_column(config))

    def evaluation_collator(self, config: PreTrainedConfig) -> Collator:
        return EncoderCollator.for_config(config, marks=_marks_column(config), keep_first_tokens=True)

    def evaluate_batch(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, torch.Tensor],
        generation: Mapping[str, Any] | None,
    ) -> BatchResult:
        logits, loss = self.scores_and_loss(model, batch)
        predictions = None
        if generation is not None:
            first_tokens = batch["first_tokens"]
            lengths = (first_tokens >= -1).sum(1).tolist()
            scores = word_scores(logits, first_tokens)
            predictions = [Tagged(tuple(tags)) for tags in self._decoder(scores, lengths)]
        return BatchResult(loss, predictions)

    @torch.no_grad()
    def output(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example) -> list[Any]:
        """The scores of the classes of a sentence's tokens."""
        limits = LengthLimits(min(512, getattr(model.config, "max_position_embeddings", None) or 512), 0, "truncate")
        columns = self.features(["the example"], [example], tokenizer, limits)
        batch = self.collator(model.config)([{name: values[0] for name, values in columns.items()}])
        del batch["labels"]
        return model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits[0].float().tolist()

    def usage(self, example: Example) -> str:
        tagged = tagged_example(example)
        return (
            "# pip install crossmask\n"
            "from crossmask.heads.words import label_words\n\n"
            f"words = {list(tagged.words)!r}\n"
            f"print(label_words(model, tokenizer, words, marked={tagged.marked}))"
        )

    def sample(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example, prediction: Tagged
    ) -> Sample:
        verdict = "exact" if prediction.tags == tagged_example(example).tags else "differs"
        return Sample(
            example.source, example.target, bracketed(tagged_example(example).words, prediction.tags), verdict
        )

    def plots(
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        predictions: Sequence[Tagged],
    ) -> dict[str, str]:
        """Which labels are taken for which, of the spans whose words are right: the commonest twelve."""
        from ..plotting.classification import confusion_matrix  # tasks are there without matplotlib too

        pairs: dict[tuple[str, str], int] = {}
        for example, prediction in zip(examples, predictions, strict=True):
            found = {(first, last): label for label, first, last in spans_of_tags(prediction.tags)}
            for label, first, last in spans_of_tags(tagged_example(example).tags):
                if (first, last) in found:
                    pair = (label, found[first, last])
                    pairs[pair] = pairs.get(pair, 0) + 1
        counts: dict[str, int] = {}
        for (label, _), count in pairs.items():
            counts[label] = counts.get(label, 0) + count
        names = sorted(counts, key=lambda label: (-counts[label], label))[:12]
        if not names:
            return {}
        matrix = torch.tensor([[pairs.get((row, column), 0) for column in names] for row in names])
        confusion_matrix(matrix, names, folder / "confusion.png")
        return {"confusion.png": "Labels of spans whose words are right, and what they are taken for"}


def _marks_column(config: PreTrainedConfig) -> str:
    """The column by which a model is told of marked tokens."""
    return "marker_ids" if _takes_marks(config) else "token_type_ids"


def _takes_marks(config: PreTrainedConfig) -> bool:
    """Whether a model has marks; by its config, as a saved model may have its own code."""
    return bool(getattr(config, "marker_vocab_size", 0))


def tagged_example(example: Example) -> TaggedExample:
    if not isinstance(example, TaggedExample):
        raise TypeError(f"an example must be a TaggedExample, got {type(example).__name__}")
    return example
