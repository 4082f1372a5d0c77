"""What a causal language model must compute, tried on the model itself before it is trained."""

import inspect

import torch
from transformers import PreTrainedModel

from ..utils.errors import InputError


def check_causal(model: PreTrainedModel) -> None:
    """Refuse a model whose logits depend on tokens that come later, such as a BERT that is not a decoder.

    Raises:
        InputError: with how to fix it.
    """
    ids = torch.arange(5, 13, device=model.device)[None] % model.config.vocab_size
    other = ids.clone()
    other[:, -1] = 4
    if not _equal(_logits(model, ids)[:, :-1], _logits(model, other)[:, :-1]):
        raise InputError(
            f"a {model.config.model_type} model of these fields is not causal, its logits depend on later tokens; set "
            "model.is_decoder to true, or give another model_type"
        )


def check_packing(model: PreTrainedModel) -> None:
    """Refuse a model in which packed texts see one another: it does not tell them apart by their positions.

    Raises:
        InputError: with how to fix it.
    """
    ids = torch.arange(5, 13, device=model.device)[None] % model.config.vocab_size
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]], device=model.device)
    parameters = inspect.signature(model.forward).parameters
    takes_positions = "position_ids" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_positions or not _equal(
        _logits(model, ids, position_ids=positions)[:, 3:], _logits(model, ids[:, 3:])
    ):
        raise InputError(
            f"batching must be examples or buckets for a {model.config.model_type} model: packed texts would see one "
            "another, because it does not tell them apart by position_ids"
        )


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    training = model.training
    try:
        return model.eval()(input_ids=ids, use_cache=False, **inputs).logits
    finally:
        model.train(training)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether logits are equal but for rounding."""
    return bool((one - other).abs().max() <= torch.finfo(one.dtype).eps ** 0.5 * one.abs().max())
