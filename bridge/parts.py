"""The two parts of a bridge: built from their configs, or taken as they are, after everything is checked."""

from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ..seq2seq.pretrained_parts import is_encoder_decoder
from .joined_layers import find_layers


def build_decoder(config: PreTrainedConfig) -> PreTrainedModel:
    """A causal language model with random weights."""
    return AutoModelForCausalLM.from_config(config)


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
    for name in ("dtype", "device"):
        of_encoder, of_decoder = getattr(encoder, name), getattr(decoder, name)
        if of_encoder != of_decoder:
            raise ValueError(
                f"encoder and decoder must have the same {name}, got {of_encoder} and {of_decoder}; load both with one"
            )
