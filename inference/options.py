"""Options of `generate`, held against what they may be before the first step."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from ..masks import MaskLike, TensorMask
from ..masks.expressions import Mask
from ..masks.tensor_mask import as_mask
from ..utils.errors import InputError, InputTypeError
from ..utils.type_checks import check_type

MASKS = ("encoder_mask", "decoder_mask", "cross_mask")
# Laid out for one batch, whatever type they have.
_OF_A_BATCH = (
    "input_ids",
    "inputs",
    "attention_mask",
    "encoder_outputs",
    "past_key_values",
    "decoder_input_ids",
    "decoder_attention_mask",
)
# Type, lowest and highest value. `generate` checks some of them, some only after the first batch.
_BOUNDS: dict[str, tuple[type, float, float]] = {
    **dict.fromkeys(("num_beams", "max_new_tokens", "max_length"), (int, 1, math.inf)),
    **dict.fromkeys(("min_new_tokens", "min_length", "no_repeat_ngram_size", "top_k"), (int, 0, math.inf)),
    "top_p": (float, 0, 1),
    **dict.fromkeys(("temperature", "repetition_penalty"), (float, math.ulp(0), math.inf)),
    "length_penalty": (float, -math.inf, math.inf),
}


def check_options(model: PreTrainedModel, options: Mapping[str, Any]) -> None:
    """Refuse options of `generate` that are laid out for one batch, or that no text can be made with.

    Raises:
        MaskError: a mask that cannot be read.
        InputTypeError: a tensor, or a mask with a table for each example.
        InputError: a number out of its bounds, more tokens than the model has positions, more than one text each.
    """
    for name, value in options.items():
        if name in MASKS:
            check_mask(name, value)
        elif name in _OF_A_BATCH or isinstance(value, torch.Tensor):
            raise _of_a_batch(name)
    config = options.get("generation_config") or model.generation_config
    if not isinstance(config, GenerationConfig):
        raise InputTypeError(f"generation_config must be a GenerationConfig, got {type(config).__name__}")
    chosen = {name: value for name, value in vars(config).items() if value is not None} | {
        name: value for name, value in options.items() if value is not None
    }
    for name, (kind, lowest, highest) in _BOUNDS.items():
        if name in chosen:
            _check_number(name, chosen[name], kind, lowest, highest)
    _check_beams(model, chosen)
    _check_lengths(model, chosen)
    if chosen.get("num_return_sequences", 1) != 1 or chosen.get("return_dict_in_generate"):
        raise InputError(
            "translate_batch gives one text for each text: for num_return_sequences or return_dict_in_generate call "
            "model.generate"
        )


def check_mask(name: str, value: MaskLike | None) -> None:
    """Refuse a mask that is laid out for the examples of one batch.

    Raises:
        InputTypeError: a tensor, or a rule with a table for each example. MaskError: it cannot be read.
    """
    mask = as_mask(value, name)
    if isinstance(mask, TensorMask) or (isinstance(mask, Mask) and mask.is_per_example):
        raise _of_a_batch(name)


def _of_a_batch(name: str) -> InputTypeError:
    return InputTypeError(
        f"{name} is laid out for the examples of one batch, and translate_batch makes batches of its own: "
        "give a rule that holds for every text, or call model.generate"
    )


def _check_number(name: str, value: Any, kind: type, lowest: float, highest: float) -> None:
    check_type(name, value, kind)
    if not math.isfinite(value) or not lowest <= value <= highest:
        expected = "a finite number"
        if highest != math.inf:
            expected = f"a number from {lowest} to {highest}"
        elif lowest == math.ulp(0):
            expected = "a finite number above 0"
        elif lowest != -math.inf:
            expected = f"at least {lowest}"
        raise InputError(f"{name} must be {expected}, got {value}")


def _check_beams(model: PreTrainedModel, chosen: Mapping[str, Any]) -> None:
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    if chosen.get("num_beams", 1) > vocabulary:
        raise InputError(f"num_beams must be at most the vocabulary of {vocabulary}, got {chosen['num_beams']}")
    if chosen.get("num_beam_groups", 1) != 1 and "custom_generate" not in chosen:
        raise InputError(
            f"num_beam_groups must be 1, got {chosen['num_beam_groups']}: Transformers no longer has group beam "
            "search; leave it out, or give custom_generate"
        )


def _check_lengths(model: PreTrainedModel, chosen: Mapping[str, Any]) -> None:
    most = chosen.get("max_new_tokens")
    least = chosen.get("min_new_tokens", 0)
    if most is not None and least > most:
        raise InputError(f"min_new_tokens must be at most max_new_tokens={most}, got {least}")
    limit = getattr(model.config, "max_position_embeddings", None)
    # The last token is never read; a length counts the start token.
    for name, spare in (("max_new_tokens", 0), ("max_length", 1)):
        overruled = name == "max_length" and most is not None
        if limit is not None and name in chosen and not overruled and chosen[name] > limit + spare:
            raise InputError(
                f"{name} must be at most {limit + spare}, got {chosen[name]}: the model has "
                f"max_position_embeddings={limit}"
            )
