"""The config of the encoder below a head."""

import copy
from typing import Any

from transformers import AutoConfig, BertConfig, PreTrainedConfig

from ..configuration.crossmask import CrossMaskConfig
from ..masks.limits import brief


def read_encoder_config(given: Any) -> PreTrainedConfig:
    """The config of an encoder, a copy of what was given.

    Raises:
        ValueError: it is not a config, names no model that Transformers knows, or has no hidden size.
    """
    if given is None:
        return BertConfig()
    if isinstance(given, PreTrainedConfig):
        config = copy.deepcopy(given)
    elif isinstance(given, dict) and given.get("model_type"):
        fields = {name: value for name, value in given.items() if name != "model_type"}
        if given["model_type"] == CrossMaskConfig.model_type:  # not registered where this is remote code
            config = CrossMaskConfig(**fields)
        else:
            config = AutoConfig.for_model(given["model_type"], **fields)
    else:
        raise ValueError(
            f"encoder must be a config, or a dictionary with model_type, got {brief(given)}; write "
            "encoder=AutoConfig.from_pretrained(name)"
        )
    if not isinstance(getattr(config, "hidden_size", None), int):
        raise ValueError(
            f"encoder must be a text encoder with one hidden_size, got a {type(config).__name__} without; give the "
            "config of its text model"
        )
    return config
