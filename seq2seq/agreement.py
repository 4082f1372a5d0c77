"""Cross-entropy of two passes over the same batch, and how far their outputs are apart (R-Drop).

Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks", https://arxiv.org/abs/2106.14448.
"""

from typing import Any

import torch

from ..masks.fast_paths import fast_path_allowed
from .decoder_inputs import IGNORED
from .loss import check_targets, count_targets, full_dtype

CHUNK_ELEMENTS = 2**19  # logits of both passes at a time: what is computed of them then stays in the cache


def agreeing_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
    alpha: float = 1.0,
) -> torch.Tensor:
    """The loss of a batch of B examples that stands twice in the logits, each time under another dropout.

    It is half of the paper's, so that it stands beside the loss of one pass: the mean cross-entropy of both, and
    alpha / 4 times the divergence of each from the other. Both are sums over the labels that count, divided by the
    number of these or by `num_items_in_batch`.

    Args:
        logits: (2B, T, vocabulary). labels: (B, T) int64, aligned with the logits; -100 is ignored.
        alpha: the weight of the paper, which has 1 to 5.

    Raises:
        ValueError, TypeError: as in `check_targets`, and for logits of another number of rows.
    """
    if logits.shape[:-1] != (2 * labels.shape[0], *labels.shape[1:]):
        raise ValueError(
            f"logits must have the labels' shape {tuple(labels.shape)} with twice the rows, got "
            f"{tuple(logits.shape)}; put the batch behind itself"
        )
    check_targets(labels, logits.shape[-1], label_smoothing)
    counts = labels.flatten() != IGNORED
    rows, targets = counts.nonzero()[:, 0], labels.flatten()[counts]
    flat = logits.flatten(0, -2)
    if fast_path_allowed(logits, labels, devices=None):
        total = _AgreeingCrossEntropy.apply(flat, rows, targets, label_smoothing, alpha, torch.is_grad_enabled())
    else:
        total = _plain_sum(flat, rows, targets, label_smoothing, alpha)
    return total / (2 * count_targets(labels, num_items_in_batch))


def _plain_sum(
    logits: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor, smoothing: float, alpha: float
) -> torch.Tensor:
    first, second = (_log_probabilities(logits, half) for half in _halves(logits, rows))
    expected = sum(_expected(one, targets[:, None], smoothing) for one in (first, second))
    # Both divergences at once: sum of p (log p - log q) and of q (log q - log p)
    return alpha / 2 * ((first.exp() - second.exp()) * (first - second)).sum() - expected


def _expected(log_probabilities: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """The log-probability of the smoothed targets (N, 1), summed."""
    expected = (1 - smoothing) * log_probabilities.gather(-1, targets).sum()
    return expected + smoothing * log_probabilities.mean(-1).sum() if smoothing else expected


def _halves(logits: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return rows, rows + len(logits) // 2


def _log_probabilities(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return logits[rows].to(full_dtype(logits.dtype)).log_softmax(-1)


class _AgreeingCrossEntropy(torch.autograd.Function):
    """`_plain_sum` and its gradient, a few rows at a time."""

    @staticmethod
    def forward(
        ctx,
        logits: torch.Tensor,
        rows: torch.Tensor,
        targets: torch.Tensor,
        smoothing: float,
        alpha: float,
        differentiable: bool,
    ) -> torch.Tensor:
        vocabulary, full = logits.shape[-1], full_dtype(logits.dtype)
        # float16 would lose what is small before the loss is scaled.
        kept = full if logits.dtype == torch.float16 else logits.dtype
        grad = torch.zeros_like(logits, dtype=kept) if ctx.needs_input_grad[0] and differentiable else None
        total = torch.zeros((), dtype=full, device=logits.device)
        size = max(CHUNK_ELEMENTS // vocabulary // 2, 1)
        for part, target in zip(rows.split(size), targets[:, None].split(size), strict=True):
            halves = _halves(logits, part)
            first, second = (_log_probabilities(logits, half) for half in halves)
            gap = first - second
            both = first.exp(), second.exp()
            apart = both[0] - both[1]
            for one in (first, second):
                total -= _expected(one, target, smoothing)
            total += alpha / 2 * (apart * gap).sum()
            if grad is None:
                continue
            # d/d scores of sum (p - q) (log p - log q) = p (gap - p . gap) + p - q for p, and the like for q
            for half, own, sign in zip(halves, both, (1, -1), strict=True):
                to_other = (own * gap).sum(-1, keepdim=True)
                own_grad = gap.sub(to_other).mul_(sign * alpha / 2).add_(1).mul_(own)
                own_grad.add_(apart, alpha=sign * alpha / 2).sub_(smoothing / vocabulary)
                own_grad.scatter_add_(-1, target, torch.full_like(target, smoothing - 1, dtype=own_grad.dtype))
                grad[half] = own_grad.to(kept)
        ctx.smoothing, ctx.alpha = smoothing, alpha
        ctx.save_for_backward(logits, rows, targets, grad)
        return total

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> Any:
        logits, rows, targets, saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # under create_graph: the plain computation, whose gradient can be differentiated
            total = _plain_sum(logits, rows, targets, ctx.smoothing, ctx.alpha)
            (found,) = torch.autograd.grad(total, logits, grad, create_graph=True)
        else:
            found = (saved * grad).to(logits.dtype)
        return found, None, None, None, None, None
