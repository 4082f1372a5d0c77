"""The arguments of `audit`, checked before anything is run."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.generic import is_flash_attention_requested

from ..seq2seq.decoder_inputs import IGNORED
from ..utils.errors import InputError, InputTypeError

_REFUSED = {
    "encoder_outputs": "give the source's input_ids",
    "past_key_values": "give the whole target at once",
    "inputs_embeds": "give input_ids",
    "decoder_inputs_embeds": "give decoder_input_ids",
    "example_ids": "give one row for each example",
}
_IDS = ("segment_ids", "decoder_segment_ids", "position_ids", "decoder_position_ids", "passage_ids")


def check_model(model: PreTrainedModel) -> None:
    """Check that the model is an encoder-decoder with weights.

    Raises:
        TypeError: it is not an encoder-decoder.
        ValueError: it has no weights.
    """
    if not hasattr(model, "get_encoder") or not hasattr(model, "get_decoder") or model.get_encoder() is model:
        raise InputTypeError(
            f"audit: the model must be an encoder-decoder of Transformers, got {type(model).__name__}"
        )
    if next(model.parameters()).is_meta:
        raise InputError("audit: the model must have weights, got one on the meta device; load it")


def check_batch(model: PreTrainedModel, batch: Mapping[str, Any]) -> None:
    """Check that the model can run the batch, and that influence can be measured in it.

    Raises:
        TypeError: the batch is not a mapping, or an argument is not a tensor.
        ValueError: an argument is missing, or has no meaning in an audit.
    """
    if not isinstance(batch, Mapping):
        raise InputTypeError(
            f"audit: the batch must be a mapping of arguments, got {type(batch).__name__}; pass a dict"
        )
    for name, fix in _REFUSED.items():
        if batch.get(name) is not None:
            raise InputError(f"audit: the batch must go from tokens to outputs in one pass, got {name}; {fix}")
    if batch.get("input_ids") is None:
        raise InputError("audit: the batch must have input_ids, from which influence is measured, got none; pass them")
    if batch.get("decoder_input_ids") is None and batch.get("labels") is None:
        raise InputError("audit: the batch must have decoder_input_ids or labels, got neither; pass one of them")
    for name, side in (("input_ids", "encoder"), ("decoder_input_ids", "decoder"), ("labels", "decoder")):
        if batch.get(name) is not None:
            stack = model.get_encoder() if side == "encoder" else model.get_decoder()
            _check_ids(name, batch[name], stack.get_input_embeddings())
    for name in ("attention_mask", "decoder_attention_mask", *_IDS):
        _check_tensor(name, batch.get(name))


def check_method(model: PreTrainedModel, method: Any, dtype: Any, methods: Mapping[str, Any]) -> None:
    """Check that the method exists, and that the model runs in the dtype.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(method, str) or method not in methods:
        raise InputError(f"audit: method must be one of {', '.join(map(repr, methods))}, got {method!r}")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"audit: dtype must be a floating point type such as torch.float64, or None, got {dtype!r}")
    name = model.config._attn_implementation
    on_cpu = next(model.parameters()).device.type == "cpu"
    # On CPU FlexAttention has no backward, and another backend computes gradients.
    flex = name == "flex_attention" and not (on_cpu and method == "gradient")
    if dtype == torch.float64 and (flex or is_flash_attention_requested(requested_attention_implementation=name)):
        raise InputError(
            f"audit: dtype must be one that {name} runs in, got torch.float64; pass dtype=None to run the model as it "
            "is"
        )


def check_rest(tokenizer: Any, seed: Any) -> None:
    """Check that the tokenizer can decode, and that the seed is an integer.

    Raises:
        TypeError: the tokenizer cannot.
        ValueError: the seed is not.
    """
    if tokenizer is not None and not hasattr(tokenizer, "decode"):
        raise InputTypeError(f"audit: tokenizer must be a tokenizer or None, got {type(tokenizer).__name__}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise InputError(f"audit: seed must be an integer of 64 bits, got {seed!r}")


def _check_tensor(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, torch.Tensor):
        raise InputTypeError(f"audit: {name} must be a tensor, got {type(value).__name__}; write torch.as_tensor(...)")


def _check_ids(name: str, ids: Any, embeddings: nn.Module) -> None:
    _check_tensor(name, ids)
    if ids.ndim != 2 or ids.numel() == 0 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise InputError(
            f"audit: {name} must be integers of shape (batch, tokens) and not empty, got {tuple(ids.shape)} of "
            f"{ids.dtype}"
        )
    embedded = ids[ids != IGNORED] if name == "labels" else ids
    count = getattr(embeddings, "num_embeddings", None)
    if count is not None and embedded.numel() and not 0 <= int(embedded.min()) <= int(embedded.max()) < count:
        raise InputError(
            f"audit: {name} must be ids from 0 to {count - 1}, got {int(embedded.min())} to {int(embedded.max())}"
        )
