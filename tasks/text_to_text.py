"""Text to text: an encoder reads one text, a decoder writes another. Translation is of this kind, and most others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BatchEncoding,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..configuration.crossmask import CrossMaskConfig
from ..data.collator import Seq2SeqCollator
from ..data.packing import PackedCollator
from ..data.tokenization import Encoder
from ..data.tokenizer_training import check_special_tokens
from ..inference.texts import generate_texts
from ..modeling.decoder_inputs import IGNORED
from ..plotting.training import alignment, masks_in_force
from ..utils.errors import InputError
from .base import BatchResult, Example, LengthLimits, Sample, Scores, Task, sample_indices


class TextToText(Task):
    """A kind of tasks: the encoder reads an example's `source`, the decoder learns its `target`.

    A prediction is the text that the model generates.
    """

    auto_class = AutoModelForSeq2SeqLM

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
        if config.model_type != CrossMaskConfig.model_type:
            raise InputError(
                f"it is a {config.model_type} model: fine-tune it with Transformers, or give a crossmask model"
            )

    def config_of_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
        return {**super().config_of_tokenizer(tokenizer), "decoder_start_token_id": tokenizer.bos_token_id}

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        check_special_tokens(tokenizer, config)

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
        return Seq2SeqCollator(config.pad_token_id, config.decoder_start_token_id)

    def packed_collator(self, config: PreTrainedConfig, source_length: int, target_length: int) -> PackedCollator:
        return PackedCollator(config.pad_token_id, config.decoder_start_token_id, source_length, target_length)

    def evaluate_batch(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, torch.Tensor],
        generation: Mapping[str, Any] | None,
    ) -> BatchResult:
        """The loss under the labels, and the texts generated; the sources are encoded once for both."""
        source = {key: batch[key] for key in ("input_ids", "attention_mask")}
        encoded = model.get_encoder()(**source)
        loss = texts = None
        if (labels := batch.get("labels")) is not None:
            inputs = {key: value for key, value in batch.items() if key != "input_ids"}
            summed = model(encoder_outputs=encoded, num_items_in_batch=1, use_cache=False, **inputs).loss
            loss = torch.stack([summed.double(), (labels != IGNORED).sum().double()])
        if generation is not None:
            inputs = {"encoder_outputs": encoded, "attention_mask": batch["attention_mask"]}
            texts = generate_texts(model, tokenizer, **inputs, **generation)
        return BatchResult(loss, texts)

    def output(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example) -> list[Any]:
        """The token ids that are generated without drawing any."""
        return model.generate(**encode_source(model, tokenizer, example.source), do_sample=False).tolist()

    def sample(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example, prediction: str
    ) -> Sample:
        verdict = "exact" if self.postprocess(prediction) in example.references else "differs"
        return Sample(example.source, example.references[0], prediction, verdict)

    def plots(
        self, folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
    ) -> dict[str, str]:
        """The masks in force, and where the decoder looks."""
        masks_in_force(model.config, folder / "masks.png")
        images = {"masks.png": "The masks in force"}
        # A decoder that looks into a memory does not look at source tokens.
        looks_at_source = model.config.memory_length is None
        for number, index in enumerate(sample_indices(examples, 3) if looks_at_source else (), start=1):
            file, text = f"alignment_{number}.png", examples[index].source
            weights, source, target = generate_with_attention(model, tokenizer, text)
            alignment(weights, source, target, folder / file, title=text)
            images[file] = f"Where the decoder looks, example {number}"
        return images


@torch.no_grad()
def generate_with_attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[torch.Tensor, list[str], list[str]]:
    """Generate from a source text: interactive attention (T, S), mean over heads and layers, and both sides' tokens.

    Row t belongs to the token that was predicted at step t.
    """
    inputs = encode_source(model, tokenizer, text)
    output = model.generate(**inputs, num_beams=1)[:, : model.config.max_position_embeddings]
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    attended = model(**inputs, decoder_input_ids=output[:, :-1], output_attentions=True)
    model.set_attn_implementation(before)
    weights = torch.stack(attended.cross_attentions).float().mean(dim=(0, 2))[0]
    tokens = [[tokenizer.decode([i]) for i in ids.tolist()] for ids in (inputs.input_ids[0], output[0, 1:])]
    return weights, tokens[0], tokens[1]


def encode_source(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> BatchEncoding:
    """The model's inputs for a source text, without what is over the limits of tokenizer and model."""
    limit = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    return tokenizer(text, return_tensors="pt", truncation=True, max_length=limit).to(model.device)
