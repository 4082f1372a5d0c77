"""The two parts of a bridge: built from their configs, or taken as they are, after everything is checked."""

import inspect
from typing import Any

from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicCache
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

from .joined_layers import find_layers


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with random weights; of an encoder-decoder, its encoder."""
    return encoder_of(AutoModel.from_config(config))


def build_decoder(config: PreTrainedConfig) -> PreTrainedModel:
    """A causal language model with random weights."""
    return AutoModelForCausalLM.from_config(config)


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of an encoder-decoder, or a model that is one itself."""
    # Only then: what an encoder calls its encoder is a part of it.
    return model.get_encoder() if is_encoder_decoder(model.config) else model


def is_encoder_decoder(config: PreTrainedConfig) -> bool:
    return bool(config.is_encoder_decoder) or type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING


def arguments_of(model: PreTrainedModel) -> frozenset[str]:
    """The names of the arguments that a model's `forward` takes."""
    return frozenset(inspect.signature(model.forward).parameters)


def max_length_of(config: PreTrainedConfig) -> int | None:
    """The longest sequence of a model, None where its config names none."""
    length: int | None = getattr(config, "max_position_embeddings", None)
    return length


def recording(options: dict[str, Any]) -> dict[str, Any]:
    """Of a call's options, those that ask a part for more outputs."""
    names = ("output_attentions", "output_hidden_states")
    return {name: options[name] for name in names if options.get(name) is not None}


def check_cache_of(decoder: PreTrainedModel) -> None:
    """Check that a decoder keeps the keys and values of the tokens before.

    Raises:
        ValueError: it is recurrent throughout, or keeps them in a way of its own.
    """
    layers = DynamicCache(config=decoder.config).layers
    attends = not layers or any(isinstance(layer, CacheLayerMixin) for layer in layers)
    if "past_key_values" not in arguments_of(decoder) or not attends:
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
    if encoder.get_output_embeddings() is not None and not is_encoder_decoder(encoder.config):
        raise ValueError(
            f"encoder must have no output layer, got {type(encoder).__name__}; load it by AutoModel.from_pretrained"
        )
    find_layers(decoder)
    check_cache_of(decoder)
    for name in ("dtype", "device"):
        of_encoder, of_decoder = getattr(encoder, name), getattr(decoder, name)
        if of_encoder != of_decoder:
            raise ValueError(
                f"encoder and decoder must have the same {name}, got {of_encoder} and {of_decoder}; load both with one"
            )
