"""The two parts of a bridge: built from their configs, or taken as they are, after everything is checked."""

import sys
from typing import Protocol

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from ..masks.fast_paths import fast_path_allowed
from ..seq2seq.current_call import CurrentCall
from ..seq2seq.mask_compiler import LayerMasks
from ..seq2seq.pretrained_parts import arguments_of
from .joined_layers import BridgeCall, find_layers, is_joined


class JoinedParts(Protocol):
    """What the two sides read of a bridge, at each call: a part may be wrapped or replaced in between."""

    encoder: PreTrainedModel
    decoder: PreTrainedModel
    encoder_masks: LayerMasks
    self_masks: LayerMasks
    current_call: CurrentCall[BridgeCall]
    training: bool


def build_decoder(config: PreTrainedConfig) -> PreTrainedModel:
    """A causal language model with random weights."""
    return AutoModelForCausalLM.from_config(config)


def check_positions(positions: torch.Tensor, length: int | None, limit: int | None, side: str) -> None:
    """Refuse an example with more tokens than a part has positions; a packed row may be longer, its examples not.

    Args:
        positions: (B or 1, L) int64. length: that of the row, where it is known. limit: of the part, if it has one.
        side: "source" or "target", for the error.

    Raises:
        ValueError: with the longest example's length.
    """
    if limit is None or length is None or length <= limit or not fast_path_allowed(positions, devices=None):
        return
    longest = int(positions.max()) + 1
    if longest > limit:
        part = "encoder" if side == "source" else "decoder"
        raise ValueError(
            f"the {side} must have at most {limit} tokens, which is what the {part} takes, got {longest}; truncate it"
        )


_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads")


def check_cache_of(decoder: PreTrainedModel) -> None:
    """Check that a decoder keeps the keys and values of the tokens before.

    Raises:
        ValueError: it is recurrent throughout, or keeps them in a way of its own.
    """
    layers = DynamicCache(config=decoder.config).layers
    attends = not layers or any(isinstance(layer, CacheLayerMixin) for layer in layers)
    module = type(decoder).__module__
    classes = [one for one in vars(sys.modules[module]).values() if isinstance(one, type) and one.__module__ == module]
    has_own = any(issubclass(one, Cache) for one in classes)
    if "past_key_values" not in arguments_of(decoder) or not attends or has_own:
        raise ValueError(
            f"decoder must have layers of attention with a cache in past_key_values, got {type(decoder).__name__}; "
            "take a causal language model of another family"
        )
    if hasattr(decoder.config, "ngram"):
        raise ValueError(
            f"decoder must predict one token at a time, got {type(decoder).__name__}, which predicts "
            f"{decoder.config.ngram}; take a causal language model of another family"
        )


def check_parts(encoder: PreTrainedModel, decoder: PreTrainedModel) -> None:
    """Check that two models can be joined.

    Raises:
        ValueError: they cannot, with the reason and what to do.
    """
    if not isinstance(encoder, PreTrainedModel) or not isinstance(decoder, PreTrainedModel):
        wrong = [type(part).__name__ for part in (encoder, decoder) if not isinstance(part, PreTrainedModel)]
        raise ValueError(f"encoder and decoder must be models of Transformers, got {', '.join(wrong)}")
    if decoder.config.is_encoder_decoder or not decoder.can_generate():
        raise ValueError(
            f"decoder must be a causal language model, got {type(decoder).__name__}; load it by "
            "AutoModelForCausalLM.from_pretrained(...)"
        )
    # Some families have one class for both, and then everything sees everything.
    if getattr(decoder.config, "is_decoder", True) is False and type(decoder.config) in MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(
            f"decoder must be causal, got {type(decoder).__name__} whose tokens see later ones; load it with "
            "is_decoder=True, or take a causal language model"
        )
    if encoder.get_output_embeddings() is not None or encoder.base_model is not encoder:
        raise ValueError(
            f"encoder must have no output layer, got {type(encoder).__name__}; load it by AutoModel.from_pretrained"
        )
    if encoder.main_input_name != "input_ids":
        raise ValueError(f"encoder must read token ids, got {type(encoder).__name__}, a model of other inputs")
    for part, config in (
        ("encoder", encoder.config.get_text_config(encoder=True)),
        ("decoder", decoder.config.get_text_config(decoder=True)),
    ):
        missing = [name for name in _SIZES if getattr(config, name, None) is None]
        if missing:
            raise ValueError(
                f"{part} must have attention layers, got {type(config).__name__}, which has no {missing[0]}; take a "
                "model of another family"
            )
    if any(map(is_joined, find_layers(decoder))):
        raise ValueError(
            f"decoder must not be part of a bridge already, got {type(decoder).__name__} of one; load it again"
        )
    check_cache_of(decoder)
    for name in ("dtype", "device"):
        of_encoder, of_decoder = getattr(encoder, name), getattr(decoder, name)
        if of_encoder != of_decoder:
            raise ValueError(
                f"encoder and decoder must have the same {name}, got {of_encoder} and {of_decoder}; load both with one"
            )
