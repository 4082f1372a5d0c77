"""What `audit` is called with, checked before anything is run."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
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


def check_model(model: nn.Module) -> None:
    """Refuse what is not an encoder-decoder with weights."""
    if not hasattr(model, "get_encoder") or not hasattr(model, "get_decoder") or model.get_encoder() is model:
        raise InputTypeError(f"audit: expected an encoder-decoder of Transformers, got {type(model).__name__}")
    if next(model.parameters()).is_meta:
        raise InputError("audit: the model is on the meta device and has no weights; load it")


def check_batch(model: nn.Module, batch: Mapping[str, Any]) -> None:
    """Refuse a batch that the model cannot run, or that influence cannot be measured in."""
    if not isinstance(batch, Mapping):
        raise InputTypeError(
            f"audit: the batch must be a mapping of arguments, got {type(batch).__name__}; pass a dict"
        )
    for name, fix in _REFUSED.items():
        if batch.get(name) is not None:
            raise InputError(f"audit: a batch with {name} cannot be audited from token to output; {fix}")
    if batch.get("input_ids") is None:
        raise InputError("audit: the batch has no input_ids, from which influence is measured; pass them")
    if batch.get("decoder_input_ids") is None and batch.get("labels") is None:
        raise InputError("audit: the batch has neither decoder_input_ids nor labels; pass one of them")
    for name, side in (("input_ids", "encoder"), ("decoder_input_ids", "decoder"), ("labels", "decoder")):
        if batch.get(name) is not None:
            stack = model.get_encoder() if side == "encoder" else model.get_decoder()
            _check_ids(name, batch[name], stack.get_input_embeddings())
    for name in ("attention_mask", "decoder_attention_mask", *_IDS):
        _check_tensor(name, batch.get(name))


def check_method(model: nn.Module, method: Any, dtype: Any, methods: Mapping[str, Any]) -> None:
    """Refuse a way of measuring that there is not, or that the model cannot run in."""
    if not isinstance(method, str) or method not in methods:
        raise InputError(f"audit: method must be one of {', '.join(map(repr, methods))}, got {method!r}")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"audit: dtype must be a floating point type such as torch.float64, or None, got {dtype!r}")
    name = model.config._attn_implementation
    on_cpu = next(model.parameters()).device.type == "cpu"
    # On CPU FlexAttention has no backward, and gradients go another way.
    flex = name == "flex_attention" and not (on_cpu and method == "gradient")
    if dtype == torch.float64 and (flex or is_flash_attention_requested(requested_attention_implementation=name)):
        raise InputError(f"audit: {name} does not run in float64; pass dtype=None to run the model as it is")


def check_rest(tokenizer: Any, seed: Any) -> None:
    """Refuse a tokenizer that cannot decode, and a seed that is not a whole number."""
    if tokenizer is not None and not hasattr(tokenizer, "decode"):
        raise InputTypeError(f"audit: tokenizer must be a tokenizer or None, got {type(tokenizer).__name__}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise InputError(f"audit: seed must be a whole number of 64 bits, got {seed!r}")


def _check_tensor(name: str, given: Any) -> None:
    if given is not None and not isinstance(given, torch.Tensor):
        raise InputTypeError(f"audit: {name} must be a tensor, got {type(given).__name__}; write torch.as_tensor(...)")


def _check_ids(name: str, ids: Any, embeddings: nn.Module) -> None:
    _check_tensor(name, ids)
    if ids.ndim != 2 or ids.numel() == 0 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise InputError(
            f"audit: {name} must be whole numbers of shape (batch, tokens) and not empty, got {tuple(ids.shape)} of "
            f"{ids.dtype}"
        )
    known = ids[ids != IGNORED] if name == "labels" else ids
    count = getattr(embeddings, "num_embeddings", None)
    if count is not None and known.numel() and not 0 <= int(known.min()) <= int(known.max()) < count:
        raise InputError(
            f"audit: {name} must be ids from 0 to {count - 1}, got {int(known.min())} to {int(known.max())}"
        )
