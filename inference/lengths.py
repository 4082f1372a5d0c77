"""How many tokens a model takes: our own say it themselves, others in their config."""

from transformers import PreTrainedModel


def longest_source(model: PreTrainedModel) -> int | None:
    """The most source tokens that an encoder-decoder takes; None for any number."""
    of_config = getattr(model.config, "max_position_embeddings", None)
    return getattr(model, "max_source_length", of_config)


def longest_target(model: PreTrainedModel) -> int | None:
    """The most target tokens that an encoder-decoder takes, the start token included; None for any number."""
    of_config = getattr(model.config, "max_position_embeddings", None)
    return getattr(model, "max_target_length", of_config)
