"""Ids that are no batch of tokens, or not in a vocabulary, of which torch only says that an index is out of range."""

from typing import Any

import torch
from transformers import PreTrainedModel

from ..masks.fast_paths import is_observed


def check_tokens(side: str, name: str, tokens: Any) -> None:
    """Refuse ids or embeddings without tokens.

    Args:
        side: the class of the network that takes them, for the error. name: "ids" or "inputs_embeds".

    Raises:
        ValueError: it is not a tensor, or it is empty.
    """
    if not isinstance(tokens, torch.Tensor):
        raise ValueError(
            f"the {side}'s {name} must be a torch tensor, got {type(tokens).__name__}; write torch.as_tensor(...)"
        )
    shape = tuple(tokens.shape)
    if 0 in shape[:2]:
        raise ValueError(
            f"{side}: an input of shape {shape} has no tokens; leave empty batches out, and let an empty text have "
            "its end token"
        )


def check_batch_of_ids(side: str, ids: Any) -> None:
    """Refuse ids that are not (B, L) integers, at least one; `side` is as in `check_tokens`. Raises ValueError."""
    check_tokens(side, "ids", ids)
    if ids.ndim != 2:
        raise ValueError(
            f"the {side}'s ids must be (batch, length), got {tuple(ids.shape)}; give a single text as ids[None]"
        )
    if ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"the {side}'s ids must be int64, got {ids.dtype}; write ids.long()")


def check_range(name: str, side: str, vocab_size: int, ids: torch.Tensor) -> None:
    """Refuse ids outside of a vocabulary.

    Args:
        name: of the argument. side: as in `check_tokens`. ids: (B, L), at least one.

    Raises:
        ValueError: with the lowest and the highest.
    """
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"{name} must be from 0 to {vocab_size - 1}, the vocabulary of {side}, got {low} to {high}; use the "
            "tokenizer that it was trained with"
        )


def check_ids(name: str, side: PreTrainedModel, ids: torch.Tensor | None) -> None:
    """Say which ids an embedding does not have, after it has failed: calls that succeed are not looked at.

    On an accelerator there is no error to follow up: the device fails, and stays so; see `check_ids_on_accelerator`.

    Args:
        name: of the argument, for the error. side: whose embedding it is. ids: (B, L) that it was given, if any.

    Raises:
        ValueError: ids outside of the vocabulary.
    """
    if ids is not None and ids.numel():
        embeddings: Any = side.get_input_embeddings()
        check_range(name, type(side).__name__, embeddings.weight.shape[0], ids)


def check_ids_on_accelerator(name: str, side: PreTrainedModel, ids: Any) -> None:
    """`check_ids` before an accelerator reads them, which an id without an embedding stops for the whole process.

    The host waits for the device, so it is done once in a `generate()`, and not in every pass. Elsewhere than on an
    accelerator, and for what are no ids, nothing is done.
    """
    if not isinstance(ids, torch.Tensor) or ids.device.type in ("cpu", "meta") or ids.is_floating_point():
        return
    if not is_observed():
        check_ids(name, side, ids)
