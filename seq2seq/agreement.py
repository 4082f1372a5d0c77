"""Cross-entropy of two passes over the same batch, and how far their outputs are apart (R-Drop).

Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks", https://arxiv.org/abs/2106.14448.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..masks.fast_paths import fast_path_allowed
from .decoder_inputs import IGNORED
from .distillation import Distillation, Targets
from .linear_loss import SummedLoss, cached_parts, full_dtype, linear_loss
from .loss import check_targets, count_targets, cross_entropy, linear_cross_entropy


def loss_functions(
    labels: torch.Tensor, r_drop: float, distillation: Distillation | None = None
) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]:
    """`cross_entropy` and `linear_cross_entropy` for these labels, or with an `r_drop` what takes their place.

    The labels are then (2B, T), the second half the same as the first, as are the logits or hidden states. A
    `distillation` is that of the first half.
    """
    options: dict[str, Any] = {"labels": labels, "distillation": distillation}
    if not r_drop:
        return partial(cross_entropy, **options), partial(linear_cross_entropy, **options)
    options |= {"labels": labels[: len(labels) // 2], "alpha": r_drop}
    return partial(agreeing_cross_entropy, **options), partial(agreeing_linear_cross_entropy, **options)


def agreeing_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
    alpha: float = 1.0,
    distillation: Distillation | None = None,
) -> torch.Tensor:
    """The loss of a batch of B examples that stands twice in the logits, each time under another dropout.

    It is half of the paper's, so that it stands beside the loss of one pass: the mean cross-entropy of both, and
    alpha / 4 times the divergence of each from the other. Both are sums over the labels that count, divided by the
    number of these or by `num_items_in_batch`.

    Args:
        logits: (2B, T, vocabulary). labels: (B, T) int64, aligned with the logits; -100 is ignored.
        alpha: the weight of the paper, which has 1 to 5.
        distillation: what a teacher predicts for the B examples, for a share of both targets.

    Raises:
        ValueError, TypeError: as in `check_targets`, and for logits of another number of rows.
    """
    _check_rows("logits", logits, labels)
    check_targets(labels, logits.shape[-1], label_smoothing)
    if fast_path_allowed(logits, labels, devices=None):
        loss, rows = _loss_of(labels, label_smoothing, alpha, distillation)
        total = _OfLogits.apply(logits.flatten(0, -2), rows, loss, torch.is_grad_enabled())
    else:  # in shapes that do not depend on the labels, for tracers
        loss = _Agreement(Targets(labels.flatten().clamp(min=0), label_smoothing, distillation), alpha)
        each = loss.of_rows(logits.unflatten(0, (2, -1)).flatten(1, 2))
        total = each.where(labels.flatten() != IGNORED, 0).sum()
    return total / (2 * count_targets(labels, num_items_in_batch))


def agreeing_linear_cross_entropy(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
    alpha: float = 1.0,
    distillation: Distillation | None = None,
) -> torch.Tensor:
    """`agreeing_cross_entropy(hidden_states @ weight.T, ...)`, on the labels that count alone, some rows at a time.

    Args:
        hidden_states: (2B, T, hidden). weight: (vocabulary, hidden). labels: (B, T) int64; -100 is ignored.

    Raises:
        ValueError, TypeError: as in `agreeing_cross_entropy`.
    """
    if not fast_path_allowed(hidden_states, weight, labels, devices=None):
        logits = nn.functional.linear(hidden_states, weight)
        return agreeing_cross_entropy(logits, labels, num_items_in_batch, label_smoothing, alpha, distillation)
    _check_rows("hidden_states", hidden_states, labels)
    check_targets(labels, weight.shape[0], label_smoothing)
    loss, rows = _loss_of(labels, label_smoothing, alpha, distillation)
    total = linear_loss(hidden_states.flatten(0, -2)[rows], weight, loss)
    return total / (2 * count_targets(labels, num_items_in_batch))


def _check_rows(name: str, states: torch.Tensor, labels: torch.Tensor) -> None:
    if states.shape[:-1] != (2 * labels.shape[0], *labels.shape[1:]):
        raise ValueError(
            f"{name} must have the labels' shape {tuple(labels.shape)} with twice the rows, got "
            f"{tuple(states.shape)}; put the batch behind itself"
        )


def _loss_of(
    labels: torch.Tensor, smoothing: float, alpha: float, distillation: Distillation | None
) -> tuple[SummedLoss, torch.Tensor]:
    """The loss of the N labels that count, and where both passes have them among 2B * T rows: (2, N) int64."""
    counts = labels.flatten() != IGNORED
    first = counts.nonzero()[:, 0]
    targets = Targets(labels.flatten()[counts], smoothing, distillation, first)
    return _Agreement(targets, alpha), torch.stack([first, first + len(counts)])


class _Agreement(SummedLoss):
    """The paper's loss of two passes."""

    def __init__(self, targets: Targets, alpha: float) -> None:
        self.targets, self.alpha = targets, alpha

    def plain(self, logits: torch.Tensor) -> torch.Tensor:
        return self.of_rows(logits).sum()

    def of_rows(self, logits: torch.Tensor) -> torch.Tensor:
        """The loss of each label, (N,). logits: (2, N, vocabulary)."""
        first, second = logits.to(full_dtype(logits.dtype)).log_softmax(-1)
        # Both divergences at once: sum of p (log p - log q) and of q (log q - log p)
        apart = ((first.exp() - second.exp()) * (first - second)).sum(-1)
        targets = self.targets.of(first)
        return self.alpha / 2 * apart - targets.expected(first) - targets.expected(second)

    def in_place(self, logits: torch.Tensor, part: slice, differentiable: bool) -> torch.Tensor:
        weight = self.alpha / 2
        first, second = logits.to(full_dtype(logits.dtype)).log_softmax(-1)
        targets = self.targets.of(first, part)
        gap = first - second
        both = first.exp(), second.exp()
        apart = both[0] - both[1]
        total = weight * (apart * gap).sum()
        for one in (first, second):
            total -= targets.expected(one).sum()
        if differentiable:
            # d/d scores of sum (p - q) (log p - log q) = p (gap - p . gap) + p - q for p, and the like for q
            for grad, own, sign in zip(logits, both, (1, -1), strict=True):
                to_other = (own * gap).sum(-1, keepdim=True)
                own_grad = gap.sub(to_other).mul_(sign * weight).add_(1).mul_(own)
                targets.subtract_from(own_grad.add_(apart, alpha=sign * weight))
                grad.copy_(own_grad)
        return total


class _OfLogits(torch.autograd.Function):
    """`loss.plain(logits[rows])` and its gradient, a few rows at a time. logits: (rows, vocabulary)."""

    @staticmethod
    def forward(ctx, logits: torch.Tensor, rows: torch.Tensor, loss: SummedLoss, differentiable: bool) -> torch.Tensor:
        full = full_dtype(logits.dtype)
        # float16 would lose what is small before the loss is scaled.
        kept = full if logits.dtype == torch.float16 else logits.dtype
        grad = torch.zeros_like(logits, dtype=kept) if ctx.needs_input_grad[0] and differentiable else None
        total = torch.zeros((), dtype=full, device=logits.device)
        for part in cached_parts(rows.shape[1], 2 * logits.shape[-1], logits.device):
            some = logits[rows[:, part]].to(kept)
            total += loss.in_place(some, part, grad is not None)
            if grad is not None:
                grad[rows[:, part]] = some
        ctx.loss = loss
        ctx.save_for_backward(logits, rows, grad)
        return total

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> Any:
        logits, rows, saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # under create_graph: the plain computation, whose gradient can be differentiated
            (found,) = torch.autograd.grad(ctx.loss.plain(logits[rows]), logits, grad, create_graph=True)
        else:
            found = (saved * grad).to(logits.dtype)
        return found, None, None, None
