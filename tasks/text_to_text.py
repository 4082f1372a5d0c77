"""Text to text: an encoder reads one text, a decoder writes another. Translation is of this kind, and most others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BatchEncoding,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import ModelOutput

from ..bridge import CrossMaskBridgeConfig, CrossMaskBridgeForConditionalGeneration
from ..configuration.base import MaskedConfig
from ..configuration.crossmask import CrossMaskConfig
from ..data.collator import Seq2SeqCollator
from ..data.packing import PackedCollator
from ..data.tokenization import Encoder
from ..data.tokenizer_training import check_special_tokens
from ..inference.texts import generate_texts
from ..plotting.training import alignment, masks_in_force
from ..seq2seq.decoder_inputs import IGNORED
from ..utils.errors import InputError
from .base import BatchResult, Example, LengthLimits, Sample, Scores, Task, sample_indices


class TextToText(Task):
    """A kind of tasks: the encoder reads an example's `source`, the decoder learns its `target`.

    A prediction is the text that the model generates.
    """

    auto_class = AutoModelForSeq2SeqLM
    bridge_class = CrossMaskBridgeForConditionalGeneration

    def postprocess(self, prediction: str) -> str:
        """A prediction as it is scored: without surrounding whitespace."""
        return prediction.strip()

    def by_group(
        self,
        predictions: Sequence[str],
        examples: Sequence[Example],
        score: Callable[[list[str], list[Example], str | None], Scores],
    ) -> Scores:
        """`Task.by_group` of the predictions as they are scored. Raises TypeError for one that is not text."""
        for index, prediction in enumerate(predictions):
            if not isinstance(prediction, str):
                kind = type(prediction).__name__
                raise TypeError(f"prediction {index} is of type {kind}, not str; decode token ids before scoring")
        texts = predictions if isinstance(predictions, str) else [self.postprocess(text) for text in predictions]
        return super().by_group(texts, examples, score)

    def config_class(self, fields: Mapping[str, Any]) -> type[PreTrainedConfig]:
        if (given := fields.get("model_type", CrossMaskConfig.model_type)) != CrossMaskConfig.model_type:
            raise InputError(f"model.model_type must be {CrossMaskConfig.model_type}, got {given!r}; leave it out")
        return CrossMaskConfig

    def check_config(self, config: PreTrainedConfig) -> None:
        if config.model_type not in (CrossMaskConfig.model_type, CrossMaskBridgeConfig.model_type):
            raise InputError(
                f"it is a {config.model_type} model: fine-tune it with Transformers, or give a crossmask model"
            )

    def max_positions(self, config: PreTrainedConfig) -> dict[str, int | None]:
        if not is_bridge(config):
            return super().max_positions(config)
        parts = (config.encoder.get_text_config(encoder=True), config.decoder.get_text_config(decoder=True))
        limits = [getattr(part, "max_position_embeddings", None) for part in parts]
        return dict(zip(self.length_fields, limits, strict=True))

    def check_model(self, model: PreTrainedModel, packed: bool) -> None:
        if packed and is_bridge(model.config):
            check_packing(model)

    def config_of_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
        return {**super().config_of_tokenizer(tokenizer), "decoder_start_token_id": tokenizer.bos_token_id}

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        check_special_tokens(cast(Any, tokenizer), cast(Any, config))

    def texts(self, example: Example) -> tuple[str, ...]:
        return (example.source, example.target)

    def features(
        self,
        names: Sequence[str],
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        limits: LengthLimits,
    ) -> dict[str, list[Any]]:
        encode = Encoder(tokenizer, limits.max_source_length, limits.max_target_length, limits.overlong)
        return encode(names, [example.source for example in examples], [example.target for example in examples])

    def collator(self, config: PreTrainedConfig) -> Seq2SeqCollator:
        return Seq2SeqCollator(
            config.pad_token_id, config.decoder_start_token_id, source_pad_token_id=source_pad_token_id(config)
        )

    def packed_collator(self, config: PreTrainedConfig, source_length: int, target_length: int) -> PackedCollator:
        start, source_pad = config.decoder_start_token_id, source_pad_token_id(config)
        return PackedCollator(config.pad_token_id, start, source_length, target_length, source_pad)

    def evaluate_batch(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, torch.Tensor],
        generation: Mapping[str, Any] | None,
    ) -> BatchResult:
        """The loss under the labels, and the texts generated; the sources are encoded once for both."""
        encoded = encode(model, batch["input_ids"], batch["attention_mask"])
        loss = texts = None
        if (labels := batch.get("labels")) is not None:
            target = {key: value for key, value in batch.items() if key != "input_ids"}
            summed = model(encoder_outputs=encoded, num_items_in_batch=1, use_cache=False, **target).loss
            loss = torch.stack([summed.double(), (labels != IGNORED).sum().double()])
        if generation is not None:
            inputs: dict[str, Any] = {"encoder_outputs": encoded, "attention_mask": batch["attention_mask"]}
            texts = generate_texts(model, tokenizer, **inputs, **generation)
        return BatchResult(loss, texts)

    def output(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example) -> list[Any]:
        """The token ids that are generated without drawing any."""
        inputs = encode_source(model, tokenizer, example.source, self._positions(model)[0])
        return cast(Any, model).generate(**inputs, do_sample=False).tolist()

    def sample(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example, prediction: str
    ) -> Sample:
        verdict = "exact" if self.postprocess(prediction) in example.references else "differs"
        return Sample(example.source, example.references[0], prediction, verdict)

    def plots(
        self, folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
    ) -> dict[str, str]:
        """The masks in force, and where the decoder looks."""
        masks_in_force(cast(MaskedConfig, model.config), folder / "masks.png")
        images = {"masks.png": "The masks in force"}
        # A decoder that looks into a memory does not look at source tokens.
        looks_at_source = getattr(model.config, "memory_length", None) is None
        for number, index in enumerate(sample_indices(examples, 3) if looks_at_source else (), start=1):
            file, text = f"alignment_{number}.png", examples[index].source
            weights, source, target = generate_with_attention(model, tokenizer, text, *self._positions(model))
            alignment(weights, source, target, folder / file, title=text)
            images[file] = f"Where the decoder looks, example {number}"
        return images

    def _positions(self, model: PreTrainedModel) -> tuple[int, int]:
        """The longest source and the longest target that the model takes."""
        source, target = (self.max_positions(model.config)[name] for name in self.length_fields)
        return source or sys.maxsize, target or sys.maxsize


def is_bridge(config: PreTrainedConfig) -> bool:
    """Whether a model joins an encoder and a decoder of their own; by name, as a saved model may have its own code."""
    return config.model_type == CrossMaskBridgeConfig.model_type


def encode(model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> ModelOutput:
    """The encoder's output under the masks of the config, as `encoder_outputs` of a call."""
    if is_bridge(model.config):
        return cast(Any, model).encoder_side.encode(input_ids, None, attention_mask=attention_mask)
    return model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)


def source_pad_token_id(config: PreTrainedConfig) -> int | None:
    """What fills sources where encoder and decoder have different vocabularies; else None."""
    if not is_bridge(config):
        return None
    return config.encoder.get_text_config(encoder=True).pad_token_id or 0


@torch.no_grad()
def check_packing(model: PreTrainedModel) -> None:
    """Refuse a bridge of which a part cannot keep packed examples apart.

    Raises:
        InputError: with what it says.
    """
    ids = torch.ones(1, 4, dtype=torch.int64, device=model.device)
    segments = torch.tensor([[1, 1, 2, 2]], device=model.device)
    try:
        model(ids, decoder_input_ids=ids, segment_ids=segments, decoder_segment_ids=segments)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"batching must be examples or buckets for this model: {reason}") from error


@torch.no_grad()
def generate_with_attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, longest_source: int, longest_target: int
) -> tuple[torch.Tensor, list[str], list[str]]:
    """Generate from a source text: interactive attention (T, S), mean over heads and layers, and both sides' tokens.

    Row t belongs to the token that was predicted at step t.
    """
    inputs = encode_source(model, tokenizer, text, longest_source)
    output = cast(Any, model).generate(**inputs, num_beams=1)[:, :longest_target]
    before = model.config._attn_implementation
    model.set_attn_implementation({"": "eager"})
    attended = model(**inputs, decoder_input_ids=output[:, :-1], output_attentions=True)
    model.set_attn_implementation({"": before})
    weights = torch.stack(attended.cross_attentions).float().mean(dim=(0, 2))[0]
    tokens = [[str(tokenizer.decode([i])) for i in ids.tolist()] for ids in (inputs.input_ids[0], output[0, 1:])]
    return weights, tokens[0], tokens[1]


def encode_source(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, longest: int
) -> BatchEncoding:
    """The model's inputs for a source text, without what is over the limits of tokenizer and model."""
    limit = min(tokenizer.model_max_length, longest)
    return tokenizer(text, return_tensors="pt", truncation=True, max_length=limit).to(model.device)
