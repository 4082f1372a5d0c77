"""Models of Transformers as parts of ours: which part of one encodes, what it takes, how it counts positions."""

import inspect
from typing import Any

from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

_COUNTING = "create_position_ids_from_input_ids"
_LENGTHS = ("max_position_embeddings", "max_seq_len")  # MPT has the latter
_RECORDED = ("output_attentions", "output_hidden_states")


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with random weights; of an encoder-decoder, its encoder."""
    return encoder_of(AutoModel.from_config(config))


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of an encoder-decoder, or a model that is one itself."""
    # Only then: what an encoder calls its encoder is a part of it.
    return model.get_encoder() if isinstance(model, PreTrainedModel) and is_encoder_decoder(model.config) else model


def is_encoder_decoder(config: PreTrainedConfig) -> bool:
    return bool(config.is_encoder_decoder) or type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING


def arguments_of(model: PreTrainedModel) -> frozenset[str]:
    """The names of the arguments that a model's `forward` takes."""
    return frozenset(inspect.signature(model.forward).parameters)


def max_length_of(config: PreTrainedConfig, first_position: int) -> int | None:
    """The longest sequence of a model that counts from `first_position`, None where its config names none."""
    named = (getattr(config, name, None) for name in _LENGTHS)
    # XLNet's is -1: it takes any length.
    positions = next((value for value in named if value is not None and value > 0), None)
    return None if positions is None else positions - first_position


def first_position_of(model: nn.Module) -> int:
    """The number of the first position: RoBERTa and models like it count from after the padding's id, others from 0.

    They count ids that are not padding, which would tell of a hidden token whether it is one.
    """
    for module in model.modules():
        for function in (type(module).forward, getattr(type(module), _COUNTING, None)):
            code = getattr(inspect.unwrap(function) if function else None, "__code__", None)
            if code is not None and _COUNTING in code.co_names:
                padding: int | None = getattr(module, "padding_idx", None)
                return 0 if padding is None else padding + 1
    return 0


def module_with_positions(model: nn.Module) -> Any:
    """The module that numbers a model's tokens by its buffer `position_ids`, (1, L) or (L,); None without one."""
    modules = [module for module in model.modules() if "position_ids" in dict(module.named_buffers(recurse=False))]
    return modules[0] if len(modules) == 1 else None


def recording(options: dict[str, Any]) -> dict[str, Any]:
    """Of a call's options, those that ask a part for more outputs."""
    return {name: options[name] for name in _RECORDED if options.get(name) is not None}


def recording_of(config: PreTrainedConfig, options: dict[str, Any]) -> dict[str, bool]:
    """The outputs that a config asks for, where the call does not say."""
    return {name: True for name in _RECORDED if options.get(name) is None and getattr(config, name, False)}
