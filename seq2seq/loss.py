"""Cross-entropy over the vocabulary, also without ever holding the logits of the whole batch."""

import torch
from torch import nn

from ..masks.fast_paths import fast_path_allowed
from .decoder_inputs import IGNORED
from .linear_loss import SummedLoss, full_dtype, linear_loss


def check_targets(labels: torch.Tensor, vocabulary: int, label_smoothing: float = 0.0) -> None:
    """Check what the loss is asked to compare with. Labels are looked at on CPU only, and never under a tracer.

    Args:
        labels: int64 of any shape. vocabulary: the number of logits for each.

    Raises:
        TypeError: labels that are not int64. ValueError: a label that is neither -100 nor one of the vocabulary, or a
            smoothing outside of 0 to 1.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label smoothing must be from 0 to 1, got {label_smoothing}; 0 is none, 0.1 is usual")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}; write labels.long()")
    if not fast_path_allowed(labels) or not labels.numel():
        return
    wrong = labels.masked_select(((labels < 0) & (labels != IGNORED)) | (labels >= vocabulary))
    if len(wrong):
        raise ValueError(
            f"labels must be from 0 to {vocabulary - 1}, or {IGNORED} to be ignored, got {wrong[0].item()}; check "
            "that the tokenizer is the model's, and pad labels with -100"
        )


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """The mean over labels that count, or the sum over `num_items_in_batch` where that is given; 0 where none counts.

    Args:
        logits: (B, T, vocabulary). labels: (B, T) int64, aligned with the logits; -100 is ignored.
        label_smoothing: the weight of the uniform distribution in the target (Szegedy et al. 2016), from 0 to 1.

    Raises:
        ValueError, TypeError: as in `check_targets`.
    """
    check_targets(labels, logits.shape[-1], label_smoothing)
    return _plain_sum(logits, labels, label_smoothing) / count_targets(labels, num_items_in_batch)


def linear_cross_entropy(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """`cross_entropy(hidden_states @ weight.T, ...)`, on the labels that count alone and a few rows at a time.

    Under a tracer, and with tensors that are not ordinary ones, it is the plain product (`linear_loss.py`).

    Args:
        hidden_states: (B, T, hidden). weight: (vocabulary, hidden). labels: (B, T) int64, -100 is ignored.

    Raises:
        ValueError, TypeError: as in `check_targets`.
    """
    if not fast_path_allowed(hidden_states, weight, labels, devices=None):
        logits = nn.functional.linear(hidden_states, weight)
        return cross_entropy(logits, labels, num_items_in_batch, label_smoothing)
    check_targets(labels, weight.shape[0], label_smoothing)
    counts = labels != IGNORED
    total = linear_loss(hidden_states[counts][None], weight, _CrossEntropy(labels[counts], label_smoothing))
    return total / count_targets(labels, num_items_in_batch)


def _plain_sum(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    return nn.functional.cross_entropy(
        logits.flatten(0, -2).to(full_dtype(logits.dtype)),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )


def count_targets(labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor | int:
    """What a summed loss is divided by: the number given, or that of the labels that count; at least 1."""
    if num_items_in_batch is None:
        num_items_in_batch = (labels != IGNORED).sum()
    if not torch.is_tensor(num_items_in_batch):
        return max(num_items_in_batch, 1)
    return num_items_in_batch.to(labels.device).clamp(min=1)


class _CrossEntropy(SummedLoss):
    """That of one pass. labels: (N,) int64."""

    def __init__(self, labels: torch.Tensor, smoothing: float) -> None:
        self.labels, self.smoothing = labels, smoothing

    def plain(self, logits: torch.Tensor) -> torch.Tensor:
        return _plain_sum(logits, self.labels, self.smoothing)

    def in_place(self, logits: torch.Tensor, part: slice, differentiable: bool) -> torch.Tensor:
        target, smoothing = self.labels[part, None], self.smoothing
        scores = logits[0].to(full_dtype(logits.dtype))
        # d loss / d scores = softmax(scores) - target distribution
        grad = torch.softmax(scores, -1)
        # The highest score says what was subtracted. (logsumexp takes five times as long as softmax on CPU.)
        log_sum = scores.amax(-1, keepdim=True) - grad.amax(-1, keepdim=True).log()
        expected = (1 - smoothing) * scores.gather(-1, target)
        if smoothing:
            expected = expected + smoothing * scores.mean(-1, keepdim=True)
        if differentiable:
            if smoothing:
                grad -= smoothing / scores.shape[-1]
            grad.scatter_add_(-1, target, torch.full_like(target, smoothing - 1, dtype=grad.dtype))
            logits[0].copy_(grad)
        return (log_sum - expected).sum()
