"""Classification of texts: a text has one of several classes. Sentiment is of this kind."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..data.encoder_batches import EncoderCollator
from ..data.tokenization import check_texts
from ..heads.sequence_classification import CrossMaskForSequenceClassification
from .base import BatchResult, Collator, Example, LengthLimits, Sample, sample_indices
from .encoder_heads import EncoderHead


class Classified(NamedTuple):
    """The likeliest class of a text, and its probability."""

    label: str
    score: float


@dataclass(frozen=True)
class TextPair(Example):
    """Two texts that have a class together, such as a premise, `source`, and a hypothesis, `second`."""

    second: str = ""


class SequenceClassification(EncoderHead):
    """A kind of tasks: an example's `target` is the name of its class, one of `class_names`.

    Examples have one text, or all of them two (`TextPair`), which the tokenizer puts into one sequence. A prediction
    is a `Classified`. Models are those of `AutoModelForSequenceClassification`.
    """

    auto_class = AutoModelForSequenceClassification
    head_class = CrossMaskForSequenceClassification
    model_mapping = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    pipeline_tag = "text-classification"

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]: ...

    def perfect_prediction(self, example: Example) -> Classified:
        return Classified(example.references[0], 1.0)

    def texts(self, example: Example) -> tuple[str, ...]:
        return _texts(example)

    def features(
        self,
        names: Sequence[str],
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        limits: LengthLimits,
    ) -> dict[str, list[Any]]:
        self.check_overlong(limits, ("error", "drop", "truncate"), "; a text has one class, whatever its length")
        texts = [list(side) for side in zip(*map(_texts, examples), strict=True)]  # one list, or two
        for side in texts:
            check_texts(side)
        cut = {"truncation": True, "max_length": limits.max_source_length} if limits.overlong == "truncate" else {}
        encoded = tokenizer(*texts, verbose=False, return_attention_mask=False, **cut)
        columns: dict[str, list[Any]] = {**{name: [] for name in encoded}, "labels": []}
        for index, name in enumerate(names):
            length = len(encoded["input_ids"][index])
            if self.fits(f"{name}: its text", length, limits):
                for column in encoded:
                    columns[column].append(encoded[column][index])
                columns["labels"].append(self.class_names.index(examples[index].target))
        return columns

    def collator(self, config: PreTrainedConfig) -> Collator:
        return EncoderCollator.for_config(config)

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
            scores, classes = logits.softmax(-1).max(-1)
            pairs = zip(classes.tolist(), scores.tolist(), strict=True)
            predictions = [Classified(self.class_names[at], score) for at, score in pairs]
        return BatchResult(loss, predictions)

    @torch.no_grad()
    def output(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example) -> list[Any]:
        """The scores of the classes of a text."""
        return model(**_inputs(model, tokenizer, example)).logits[0].float().tolist()

    def usage(self, example: Example) -> str:
        quoted = [text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for text in _texts(example)]
        texts = ", ".join(f'"{text}"' for text in quoted)
        return (
            f'inputs = tokenizer({texts}, return_tensors="pt")\n'
            "scores = model(**inputs).logits.softmax(-1)[0]\n"
            "print(model.config.id2label[scores.argmax().item()], scores.max().item())"
        )

    def sample(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example, prediction: Classified
    ) -> Sample:
        verdict = "right" if prediction.label in example.references else "wrong"
        source = " / ".join(_texts(example))
        return Sample(source, example.references[0], f"{prediction.label} ({prediction.score:.2f})", verdict)

    def plots(
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        predictions: Sequence[Classified],
    ) -> dict[str, str]:
        """Which classes are taken for which, and what the pooling query of crossmask's head looks at."""
        from ..plotting.classification import confusion_matrix  # tasks are there without matplotlib too
        from ..plotting.training import alignment

        names = self.class_names
        counts = torch.zeros(len(names), len(names), dtype=torch.int64)
        for example, prediction in zip(examples, predictions, strict=True):
            counts[names.index(example.references[0]), names.index(prediction.label)] += 1
        confusion_matrix(counts, names, folder / "confusion.png")
        images = {"confusion.png": "Classes of the test set, and what they are taken for"}
        has_query = getattr(model.config, "pooling", None) == "attention"
        for number, index in enumerate(sample_indices(examples, 3) if has_query else (), start=1):
            inputs = _inputs(model, tokenizer, examples[index])
            weights = _pooling_weights(model, inputs)
            file, tokens = f"pooling_{number}.png", [str(tokenizer.decode([at])) for at in inputs["input_ids"][0]]
            alignment(weights[0, :, :, :40], tokens[:40], ["pooled"], folder / file, title=examples[index].source)
            images[file] = f"What is pooled, example {number}"
        return images


def _texts(example: Example) -> tuple[str, ...]:
    return (example.source, example.second) if isinstance(example, TextPair) else (example.source,)


@torch.no_grad()
def _pooling_weights(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The weights of the pooling query, (1, H, 1, S), which only eager attention gives."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    weights: torch.Tensor = model(**inputs, output_attentions=True).pooler_attentions
    model.set_attn_implementation(before)
    return weights


def _inputs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example) -> dict[str, torch.Tensor]:
    """A text, or two, as a model takes them, cut where they are longer than that."""
    limit = getattr(model.config, "max_position_embeddings", None)
    cut = {} if limit is None else {"truncation": True, "max_length": limit}
    encoded = tokenizer(*_texts(example), return_tensors="pt", **cut)
    taken = inspect.signature(model.forward).parameters.keys()
    return {name: tensor.to(model.device) for name, tensor in encoded.items() if name in taken}
