"""Checks of the options of `generate`, before its first step."""

import math
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Literal

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel

from ..masks import MaskLike, TensorMask
from ..masks.expressions import Mask
from ..masks.tensor_mask import as_mask
from ..seq2seq.lengths import longest_target
from ..utils.errors import InputError, InputTypeError
from ..utils.type_checks import check_type

MASKS = ("encoder_mask", "decoder_mask", "cross_mask")
# Arguments of `generate` that are neither settings nor for the model.
_OF_GENERATE = {*signature(GenerationMixin.generate).parameters, "tokenizer", "assistant_tokenizer"}
# They belong to one batch, whatever type they have.
_OF_A_BATCH = (
    "input_ids",
    "inputs",
    "attention_mask",
    "encoder_outputs",
    "past_key_values",
    "decoder_input_ids",
    "decoder_attention_mask",
)
LARGEST = 2**63 - 1  # of whole numbers in torch
_ABOVE_0 = math.ulp(0)
# Type, lowest and highest value. `generate` checks some of them, some only after the first batch, others never.
NUMBERS: dict[str, tuple[type, float, float]] = {
    **dict.fromkeys(("num_beams", "max_new_tokens", "max_length", "num_return_sequences"), (int, 1, LARGEST)),
    **dict.fromkeys(
        ("min_new_tokens", "min_length", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "top_k"),
        (int, 0, LARGEST),
    ),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"), (float, 0, 1)),
    **dict.fromkeys(
        ("temperature", "repetition_penalty", "encoder_repetition_penalty", "max_time"), (float, _ABOVE_0, math.inf)
    ),
    "length_penalty": (float, -math.inf, math.inf),
    "forced_bos_token_id": (int, 0, LARGEST),
}
# Types of further options; `generate` ignores a value of another type, or fails.
TYPES: dict[str, Any] = {
    **dict.fromkeys(("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values"), bool),
    "early_stopping": bool | Literal["never"],
    "forced_eos_token_id": int | Sequence[int],
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), Sequence[int]),
    "bad_words_ids": Sequence[Sequence[int]],
    "exponential_decay_length_penalty": Sequence[float],
    "sequence_bias": Sequence | dict,
}


def check_options(model: PreTrainedModel, options: Mapping[str, Any]) -> None:
    """Refuse options of `generate` that belong to one batch, or with which no text can be generated.

    Raises:
        MaskError: a mask that cannot be read.
        InputTypeError: a tensor, or a mask with a table for each example.
        InputError: a number out of its bounds, more tokens than the model has positions, several texts for each.
        ValueError: what the model's `generate` refuses itself, such as an unknown option.
    """
    for name, value in options.items():
        if name == "tokenizer":
            raise InputError("tokenizer must be left out: that of the model is used for stop_strings")
        if name in MASKS:
            check_mask(name, value)
        elif name in _OF_A_BATCH or isinstance(value, torch.Tensor):
            raise _of_a_batch(name)
    config = options.get("generation_config") or model.generation_config
    if not isinstance(config, GenerationConfig):
        raise InputTypeError(f"generation_config must be a GenerationConfig, got {type(config).__name__}; give one")
    chosen = {name: value for name, value in vars(config).items() if value is not None} | {
        name: value for name, value in options.items() if value is not None
    }
    for name, value in chosen.items():
        check_value(name, value)
    _check_beams(model, chosen)
    _check_lengths(model, chosen)
    for name, neutral in (("num_return_sequences", 1), ("return_dict_in_generate", False)):
        if chosen.get(name, neutral) != neutral:
            whose = name if options.get(name) is not None else f"{name} in the model's generation_config"
            raise InputError(
                f"{whose} must be left out, got {chosen[name]}: one text is written for each; call model.generate"
            )
    custom = chosen.get("custom_generate")
    if custom is None:
        _check_by_model(model, options)
    elif (check := getattr(custom, "check_settings", None)) is not None:  # another one may take any
        check(chosen)


def check_mask(name: str, value: MaskLike | None) -> None:
    """Refuse a mask that belongs to the examples of one batch.

    Raises:
        InputTypeError: a tensor, or a rule with a table for each example. MaskError: it cannot be read.
    """
    mask = as_mask(value, name)
    if isinstance(mask, TensorMask) or (isinstance(mask, Mask) and mask.is_per_example):
        raise _of_a_batch(name)


def _of_a_batch(name: str) -> InputTypeError:
    return InputTypeError(
        f"{name} must not be laid out for one batch, since batches are made here; give a rule that holds for every "
        "text, or call model.generate"
    )


def check_value(name: str, value: Any, field: str | None = None) -> None:
    """Refuse a value of an option of `generate` with which no text can be generated.

    Args:
        field: the name of the option in errors, `name` by default.

    Raises:
        InputError: with the option, the value and what was expected.
    """
    field = field or name
    if name in TYPES:
        check_type(field, value, TYPES[name])
    if name not in NUMBERS:
        return
    kind, lowest, highest = NUMBERS[name]
    check_type(field, value, kind)
    if math.isfinite(value) and lowest <= value <= highest:
        return
    expected = "a finite number"
    if highest < LARGEST:
        expected = f"a number from {lowest} to {highest}"
    elif lowest == _ABOVE_0:
        expected = "a finite number above 0"
    elif lowest != -math.inf:
        expected = f"at least {lowest}" if value < lowest else f"at most {highest}"
    raise InputError(f"{field} must be {expected}, got {value}")


def _check_by_model(model: Any, options: Mapping[str, Any]) -> None:
    """What the model's `generate` would refuse at the first batch, such as an option that nothing has."""
    own = {name: value for name, value in options.items() if name in _OF_GENERATE and value is not None}
    rest = {name: value for name, value in options.items() if name not in _OF_GENERATE}
    settings, model_kwargs = model._prepare_generation_config(options.get("generation_config"), **rest)
    model._validate_model_kwargs(dict(model_kwargs))
    model._validate_generation_mode(settings.get_generation_mode(own.get("assistant_model")), settings, own)


def _check_beams(model: PreTrainedModel, chosen: Mapping[str, Any]) -> None:
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    if chosen.get("num_beams", 1) > vocabulary:
        raise InputError(f"num_beams must be at most the vocabulary's {vocabulary}, got {chosen['num_beams']}")
    if chosen.get("num_beam_groups", 1) != 1 and "custom_generate" not in chosen:
        raise InputError(
            f"num_beam_groups must be 1, since Transformers no longer has group beam search, got "
            f"{chosen['num_beam_groups']}; leave it out, or give custom_generate"
        )


def _check_lengths(model: PreTrainedModel, chosen: Mapping[str, Any]) -> None:
    most = chosen.get("max_new_tokens")
    least = chosen.get("min_new_tokens", 0)
    if most is not None and least > most:
        raise InputError(f"min_new_tokens must be at most max_new_tokens={most}, got {least}")
    limit = longest_target(model)
    # The model does not read the last token, and max_length counts the start token.
    for name, spare in (("max_new_tokens", 0), ("max_length", 1)):
        is_overruled = name == "max_length" and most is not None
        if limit is not None and name in chosen and not is_overruled and chosen[name] > limit + spare:
            raise InputError(
                f"{name} must be at most {limit + spare} for the model's max_position_embeddings={limit}, got "
                f"{chosen[name]}; lower it"
            )
