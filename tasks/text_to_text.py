"""Text to text: an encoder reads one text, a decoder writes another. Translation is of this kind, and most others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.utils import ModelOutput

from ..bridge import CrossMaskBridgeForConditionalGeneration
from ..configuration.base import MaskedConfig
from ..configuration.crossmask import CrossMaskConfig
from ..data.collator import Seq2SeqCollator
from ..data.language_codes import vocabulary_size
from ..data.packing import PackedCollator
from ..data.tokenizer_training import check_special_tokens
from ..inference.texts import generate_texts, pair_encoder, tokenizers_of
from ..seq2seq.decoder_inputs import IGNORED
from ..seq2seq.encoder_output import CrossMaskEncoderOutput
from .base import BatchResult, Example, LengthLimits, Sample, Scores, Task, sample_indices
from .encoder_decoders import (
    ANY_TOKENS,
    check_loss,
    check_new_fields,
    check_saved_config,
    check_special_ids,
    computes_own_loss,
    is_ours,
    loss_of_logits,
    new_config_class,
    special_id,
    special_token_fields,
)
from .seq2seq_models import (
    check_packing,
    check_two_tokenizers,
    encode,
    encode_source,
    generate_with_attention,
    is_bridge,
    source_pad_token_id,
)


class TextToText(Task):
    """A kind of tasks: the encoder reads an example's `source`, the decoder learns its `target`.

    A prediction is the text that the model generates.
    """

    auto_class = AutoModelForSeq2SeqLM
    bridge_class = CrossMaskBridgeForConditionalGeneration
    attaches_masks = True

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
                raise TypeError(f"prediction {index} must be text, got {kind}; decode token ids before scoring")
        texts = predictions if isinstance(predictions, str) else [self.postprocess(text) for text in predictions]
        return super().by_group(texts, examples, score)

    def config_class(self, fields: Mapping[str, Any]) -> type[PreTrainedConfig]:
        config_class = new_config_class(fields.get("model_type", CrossMaskConfig.model_type))
        if config_class is not CrossMaskConfig:
            check_new_fields(config_class, fields)
        return config_class

    def check_config(self, config: PreTrainedConfig) -> None:
        check_saved_config(config)

    def check_options(self, config: PreTrainedConfig) -> None:
        super().check_options(config)
        check_loss(config)

    def max_positions(self, config: PreTrainedConfig) -> dict[str, int | None]:
        if not is_bridge(config):
            return super().max_positions(config)
        parts = (config.encoder.get_text_config(encoder=True), config.decoder.get_text_config(decoder=True))
        limits = [getattr(part, "max_position_embeddings", None) for part in parts]
        return dict(zip(self.length_fields, limits, strict=True))

    def check_model(self, model: PreTrainedModel, packed: bool) -> None:
        if packed and model.config.model_type != CrossMaskConfig.model_type:
            check_packing(model)

    def config_of_tokenizer(
        self, tokenizer: PreTrainedTokenizerBase | None, config_class: type[PreTrainedConfig]
    ) -> dict[str, int | None]:
        found = super().config_of_tokenizer(tokenizer, config_class)
        if config_class is not CrossMaskConfig:
            size = {} if tokenizer is None else {"vocab_size": vocabulary_size(tokenizer)}
            ids = ANY_TOKENS if tokenizer is None else {name: found[name] for name in ANY_TOKENS}
            return {**size, **special_token_fields(config_class, ids)}
        return found if tokenizer is None else {**found, "decoder_start_token_id": tokenizer.bos_token_id}

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        if isinstance(tokenizer, ProcessorMixin):
            check_two_tokenizers(*tokenizers_of(tokenizer), config)
        elif not is_ours(config):
            check_special_ids(tokenizer, config)
        else:
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
        encode = pair_encoder(tokenizer, limits.max_source_length, limits.max_target_length, limits.overlong)
        return encode(names, [example.source for example in examples], [example.target for example in examples])

    def collator(self, config: PreTrainedConfig) -> Seq2SeqCollator:
        pad, start = (special_id(config, name) for name in ("pad_token_id", "decoder_start_token_id"))
        return Seq2SeqCollator(pad, start, source_pad_token_id=source_pad_token_id(config))

    def packed_collator(self, config: PreTrainedConfig, source_length: int, target_length: int) -> PackedCollator:
        pad, start = (special_id(config, name) for name in ("pad_token_id", "decoder_start_token_id"))
        return PackedCollator(pad, start, source_length, target_length, source_pad_token_id(config))

    def loss_function(
        self, model: PreTrainedModel, label_smoothing: float, r_drop: float = 0.0
    ) -> Callable[..., torch.Tensor] | None:
        return None if computes_own_loss(model) else loss_of_logits(label_smoothing, r_drop)

    def check_loss_field(self, field: str, given: float | str) -> None:
        if type(self).loss_function is not TextToText.loss_function:
            super().check_loss_field(field, given)

    def evaluate_batch(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, torch.Tensor],
        generation: Mapping[str, Any] | None,
    ) -> BatchResult:
        """The loss under the labels, and the texts generated; the sources are encoded once for both.

        A batch may have `encoder_outputs`, a tuple of the encoder's states (B, S, hidden).
        """
        if "encoder_outputs" in batch:
            encoded: ModelOutput = CrossMaskEncoderOutput.of(cast(Any, batch["encoder_outputs"]))
        else:
            encoded = encode(model, batch["input_ids"], batch["attention_mask"])
        loss = texts = None
        if (labels := batch.get("labels")) is not None:
            target = {key: value for key, value in batch.items() if key not in ("input_ids", "encoder_outputs")}
            if (loss_of := self.loss_function(model, 0.0)) is None:
                options = {"num_items_in_batch": 1, "use_cache": False, "skip_logits": True}
                summed = model(encoder_outputs=encoded, **options, **target).loss
            else:
                del target["labels"]
                summed = loss_of(model(encoder_outputs=encoded, use_cache=False, **target), labels, 1)
            loss = torch.stack([summed.double(), (labels != IGNORED).sum().double()])
        if generation is not None:
            # The ids too: some options of `generate` look for tokens in the source.
            inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
            inputs["encoder_outputs"] = encoded
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
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        predictions: Sequence[str],
    ) -> dict[str, str]:
        """The masks in force, and where the decoder looks."""
        from ..plotting.training import alignment, masks_in_force  # tasks are there without matplotlib too

        images = {}
        if hasattr(model.config, "layer_masks"):
            masks_in_force(cast(MaskedConfig, model.config), folder / "masks.png")
            images["masks.png"] = "The masks in force"
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
