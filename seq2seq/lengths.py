"""How many tokens a model takes: our own say it themselves, others in their config."""

from transformers import PreTrainedModel

from .pretrained_parts import first_position_of, is_encoder_decoder, max_length_of


def longest_source(model: PreTrainedModel) -> int | None:
    """The most source tokens that a model takes; None for any number."""
    if getattr(model, "max_source_length", None) is None and not is_encoder_decoder(model.config):
        return max_length_of(model.config, first_position_of(model))
    return _limit(model, "max_source_length")


def longest_target(model: PreTrainedModel) -> int | None:
    """The most target tokens that an encoder-decoder takes, the start token included; None for any number."""
    return _limit(model, "max_target_length")


def _limit(model: PreTrainedModel, name: str) -> int | None:
    own: int | None = getattr(model, name, None)  # None of an attached model, whose config says it
    return getattr(model.config, "max_position_embeddings", None) if own is None else own
