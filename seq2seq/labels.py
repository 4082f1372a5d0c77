"""What labels ask for: the decoder's inputs, and that everything fits."""

import math
from typing import Protocol

import torch
from transformers.cache_utils import Cache

from ..masks.fast_paths import fast_path_allowed
from .decoder_inputs import attention_mask_from_labels
from .loss import check_targets


class ShiftsLabels(Protocol):
    """A model whose collators call this."""

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor: ...


def inputs_from_labels(
    model: ShiftsLabels,
    labels: torch.Tensor,
    attention_mask: torch.Tensor | None,
    segment_ids: torch.Tensor | None,
    cache: Cache | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The decoder's inputs (B, T) and its attention mask (B, P + T) where labels (B, T) are given without inputs.

    Args:
        attention_mask, segment_ids: those of the call; where both are None the mask is made from the labels.
        cache: whose P tokens count as such.
    """
    check_shape(labels)
    if attention_mask is None and segment_ids is None:
        cached = 0 if cache is None else int(cache.get_seq_length())
        attention_mask = attention_mask_from_labels(labels, cached)
    return model.prepare_decoder_input_ids_from_labels(labels), attention_mask


def check_shape(labels: torch.Tensor) -> None:
    """Refuse labels that are not (B, T).

    Raises:
        ValueError: with their shape.
    """
    if labels.ndim != 2:
        raise ValueError(f"labels must be (batch, target), got {tuple(labels.shape)}; write labels[None] for one")


def check_labels(
    labels: torch.Tensor,
    inputs: torch.Tensor | None,
    logits_to_keep: int | torch.Tensor,
    vocabulary: int,
    smoothing: float,
    r_drop: float,
) -> None:
    """Check labels against what the decoder reads, before anything is computed.

    Args:
        inputs: the decoder's ids (B, T) or embeddings (B, T, E).

    Raises:
        ValueError: they do not fit, are not of this vocabulary, or under `r_drop` are not those of a batch twice.
    """
    check_shape(labels)
    if inputs is not None and labels.shape != inputs.shape[:2]:
        raise ValueError(
            f"labels must be {tuple(inputs.shape[:2])}, one for each of the decoder's inputs, got "
            f"{tuple(labels.shape)}; give -100 where the loss should not look"
        )
    if torch.is_tensor(logits_to_keep) or logits_to_keep:
        raise ValueError("logits_to_keep must be left out where labels are given: they need all logits")
    check_targets(labels, vocabulary, smoothing)
    if not 0 <= r_drop < math.inf:
        raise ValueError(f"r_drop must be a finite number from 0 up, got {r_drop}; 3 is usual, 0 is for one pass")
    if r_drop and (len(labels) % 2 or (fast_path_allowed(labels) and not torch.equal(*labels.chunk(2)))):
        raise ValueError(
            "with r_drop the batch must stand twice, one behind the other, got labels whose halves differ; "
            "concatenate each input with itself"
        )
