"""The encoder-decoders of Transformers that text-to-text tasks train: which they are, and what they must have."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from ..bridge import CrossMaskBridgeConfig
from ..configuration.crossmask import CrossMaskConfig
from ..data.language_codes import vocabulary_size
from ..seq2seq.agreement import loss_functions
from ..seq2seq.distillation import Distillation
from ..utils.errors import InputError
from ..utils.type_checks import check_choice

OURS = (CrossMaskConfig.model_type, CrossMaskBridgeConfig.model_type)
# What a config is looked at with before there is a tokenizer.
ANY_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def is_ours(config: PreTrainedConfig | type[PreTrainedConfig]) -> bool:
    """Whether a model is crossmask's own network or a bridge; by name, as a saved model may have its own code."""
    return config.model_type in OURS


def new_config_class(model_type: str) -> type[PreTrainedConfig]:
    """The config class of a new encoder-decoder of this type.

    Raises:
        InputError: no such type, or none that is built from sizes and one tokenizer.
    """
    if model_type == CrossMaskConfig.model_type:
        return CrossMaskConfig
    if model_type not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES or not _is_flat(CONFIG_MAPPING[model_type]):
        known = [name for name in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES if _is_flat(CONFIG_MAPPING[name])]
        check_choice("model.model_type", model_type, sorted([CrossMaskConfig.model_type, *known]))
    return CONFIG_MAPPING[model_type]


def _is_flat(config_class: type[PreTrainedConfig]) -> bool:
    """Whether the class is of an encoder-decoder with one vocabulary and no configs inside it."""
    names = {item.name for item in fields(config_class)}
    return not config_class.sub_configs and "vocab_size" in names and config_class().is_encoder_decoder


def check_new_fields(config_class: type[PreTrainedConfig], given: Mapping[str, Any]) -> None:
    """Refuse names that set the encoder alone.

    Raises:
        InputError: with the names that set both sides.
    """
    for name in given:
        target = config_class.attribute_map.get(name, "")
        other = target.replace("encoder", "decoder")
        if target != other and other in {item.name for item in fields(config_class)}:
            raise InputError(
                f"model.{name} must be left out for model_type {config_class.model_type}, where it is {target} alone, "
                f"got {given[name]!r}; give {target} and {other}"
            )


def special_token_fields(config_class: type[PreTrainedConfig], ids: Mapping[str, int | None]) -> dict[str, int | None]:
    """The fields of a new model's config that name special tokens.

    The decoder starts with the token that it starts with in the class's default config: with padding in Marian, with
    the end in BART. Where the class has no default, it is the end if the class has a token for the beginning (mBART,
    which moves the last label to the front), else padding (T5).

    Args:
        ids: `pad_token_id`, `bos_token_id` and `eos_token_id` of the tokenizer.
    """
    default = config_class()
    before = {name: getattr(default, name, None) for name in ids}
    start = getattr(default, "decoder_start_token_id", None)
    order = ("eos_token_id", "pad_token_id", "bos_token_id")
    if start is None:
        name = "pad_token_id" if before["bos_token_id"] is None else "eos_token_id"
    else:
        name = next((name for name in order if before[name] == start), "bos_token_id")
    made = {**ids, "decoder_start_token_id": ids[name]}
    if getattr(default, "forced_eos_token_id", None) is not None:
        made["forced_eos_token_id"] = ids["eos_token_id"]
    return made


def check_saved_config(config: PreTrainedConfig) -> None:
    """Refuse a saved model that is no encoder-decoder for texts.

    Raises:
        InputError: with what it is.
    """
    if is_ours(config):
        return
    if type(config) not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING or not config.is_encoder_decoder:
        raise InputError(
            f"it is a {config.model_type} model; give an encoder-decoder that AutoModelForSeq2SeqLM loads"
        )


def check_loss(config: PreTrainedConfig) -> None:
    """Refuse a part of the loss that training would leave out. Raises InputError."""
    if getattr(config, "output_router_logits", False):
        raise InputError(
            "model.output_router_logits must be false, got true: the loss is that of the targets alone, without the "
            "loss that balances experts"
        )


def special_id(config: PreTrainedConfig, name: str) -> Any:
    """A special token's id in a config, or where it lacks it, in that of its decoder.

    In a family whose configs have no `decoder_start_token_id` (T5Gemma) decoders start with `bos_token_id`.
    """
    configs = (config, *((config.get_text_config(decoder=True),) if config.sub_configs else ()))
    if name == "decoder_start_token_id" and not any(hasattr(one, name) for one in configs):
        name = "bos_token_id"
    return next((found for one in configs if (found := getattr(one, name, None)) is not None), None)


def check_special_ids(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Refuse a tokenizer that does not fit an encoder-decoder of Transformers.

    Raises:
        InputError: with what does not fit and how to fix it.
    """
    pad, eos, start = (special_id(config, f"{name}_token_id") for name in ("pad", "eos", "decoder_start"))
    size = config.get_text_config(decoder=True).vocab_size
    if tokenizer.pad_token_id is None or pad != tokenizer.pad_token_id:
        raise InputError(
            f"pad_token_id must be that of the tokenizer, {tokenizer.pad_token_id}, got {pad}; set it in model, or "
            "give the tokenizer that the model was trained with"
        )
    ends = eos if isinstance(eos, list) else [eos]
    if not set(ends) & set(tokenizer(text_target=["a"])["input_ids"][0]):
        raise InputError(
            f"the tokenizer must append eos_token_id={eos} to a target, so that it has an end; set "
            "the tokenizer's post_processor, or eos_token_id in model"
        )
    if (needed := vocabulary_size(tokenizer)) > size:
        raise InputError(
            f"vocab_size must be at least that of the tokenizer, {needed}, got {size}; call "
            f"model.resize_token_embeddings({needed}) and save the model"
        )
    if not isinstance(start, int) or not 0 <= start < size:
        raise InputError(
            f"decoder_start_token_id must be a token of the vocabulary, from 0 to {size - 1}, got {start}; set it in "
            "model"
        )


def computes_own_loss(model: PreTrainedModel) -> bool:
    """Whether a model's own loss is exact under accumulation, smooths labels, and takes R-Drop and teachers."""
    return {"smoothing", "skip_logits", "r_drop", "distillation"} <= inspect.signature(model.forward).parameters.keys()


def loss_of_logits(label_smoothing: float, r_drop: float = 0.0) -> Callable[..., torch.Tensor]:
    """The loss by the logits of a model that was given no labels, as Trainer takes it; of two passes under `r_drop`.

    Transformers' BART, T5, Marian and others take the mean of each micro-batch and ignore `num_items_in_batch`, so
    that Trainer's sum over the micro-batches of a step is too large (transformers #47688). This is the sum over the
    targets divided by the number of targets of the whole step.
    """

    def loss(
        outputs: Mapping[str, Any],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        distillation: Distillation | None = None,
    ) -> torch.Tensor:
        by_logits, _ = loss_functions(labels, r_drop, distillation)
        return by_logits(outputs["logits"], num_items_in_batch=num_items_in_batch, label_smoothing=label_smoothing)

    return loss
