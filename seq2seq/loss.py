"""Cross-entropy over the vocabulary, also without ever holding the logits of the whole batch."""

import torch
from torch import nn

from ..masks.fast_paths import fast_path_allowed
from .decoder_inputs import IGNORED
from .distillation import Distillation, Targets
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
    distillation: Distillation | None = None,
) -> torch.Tensor:
    """The mean over labels that count, or the sum over `num_items_in_batch` where that is given; 0 where none counts.

    Args:
        logits: (B, T, vocabulary). labels: (B, T) int64, aligned with the logits; -100 is ignored.
        label_smoothing: the weight of the uniform distribution in the target (Szegedy et al. 2016), from 0 to 1.
        distillation: what a teacher predicts, for a share of the target.

    Raises:
        ValueError, TypeError: as in `check_targets`.
    """
    check_targets(labels, logits.shape[-1], label_smoothing)
    if distillation is None:
        total = _plain_sum(logits, labels, label_smoothing)
    else:  # in shapes that do not depend on the labels, for tracers
        targets = Targets(labels.flatten().clamp(min=0), label_smoothing, distillation)
        total = _of_targets(logits.flatten(0, -2), targets).where(labels.flatten() != IGNORED, 0).sum()
    return total / count_targets(labels, num_items_in_batch)


def linear_cross_entropy(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
    distillation: Distillation | None = None,
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
        return cross_entropy(logits, labels, num_items_in_batch, label_smoothing, distillation)
    check_targets(labels, weight.shape[0], label_smoothing)
    counts = labels != IGNORED
    targets = Targets(labels[counts], label_smoothing, distillation, counts.flatten().nonzero()[:, 0])
    total = linear_loss(hidden_states[counts][None], weight, _CrossEntropy(targets))
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


def _of_targets(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """The loss of each of N labels, (N,). logits: (N, vocabulary)."""
    log_probabilities = logits.to(full_dtype(logits.dtype)).log_softmax(-1)
    return -targets.of(log_probabilities).expected(log_probabilities)


class _CrossEntropy(SummedLoss):
    """That of one pass."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets

    def plain(self, logits: torch.Tensor) -> torch.Tensor:
        if self.targets.distillation is None:
            return _plain_sum(logits, self.targets.labels, self.targets.smoothing)
        return _of_targets(logits[0], self.targets).sum()

    def in_place(self, logits: torch.Tensor, part: slice, differentiable: bool) -> torch.Tensor:
        scores = logits[0].to(full_dtype(logits.dtype))
        targets = self.targets.of(scores, part)
        # d loss / d scores = softmax(scores) - target distribution
        grad = torch.softmax(scores, -1)
        # The highest score says what was subtracted. (logsumexp takes five times as long as softmax on CPU.)
        log_sum = scores.amax(-1) - grad.amax(-1).log()
        total = (log_sum - targets.expected(scores)).sum()
        if differentiable:
            targets.subtract_from(grad)
            logits[0].copy_(grad)
        return total
