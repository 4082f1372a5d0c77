"""Ids that a vocabulary does not have, of which torch only says that an index is out of range."""

from typing import Any

import torch
from transformers import PreTrainedModel


def check_ids(name: str, side: PreTrainedModel, ids: torch.Tensor | None) -> None:
    """Say which ids an embedding does not have, after it has failed: calls that succeed are not looked at.

    On an accelerator there is no error to follow up: the device stops by itself.

    Args:
        name: of the argument, for the error. side: whose embedding it is. ids: (B, L) that it was given, if any.

    Raises:
        ValueError: ids outside of the vocabulary.
    """
    if ids is None or not ids.numel():
        return
    embeddings: Any = side.get_input_embeddings()
    low, high, rows = int(ids.min()), int(ids.max()), embeddings.weight.shape[0]
    if low < 0 or high >= rows:
        raise ValueError(
            f"{name} must be from 0 to {rows - 1}, the vocabulary of {type(side).__name__}, got {low} to {high}; use "
            "the tokenizer that it was trained with"
        )
