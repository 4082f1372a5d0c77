"""Cross-entropy over the vocabulary, also without ever holding the logits of the whole batch."""

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .decoder_inputs import IGNORED

CHUNK_ELEMENTS = 2**22  # logits at a time: 16 MiB in fp32, small enough for caches and for allocators to reuse


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """The mean over labels that count, or the sum over `num_items_in_batch` where that is given; 0 where none counts.

    Args:
        logits: (B, T, vocabulary). labels: (B, T) int64, aligned with the logits; -100 is ignored.
        label_smoothing: the weight of the uniform distribution in the target (Szegedy et al. 2016).
    """
    total = nn.functional.cross_entropy(
        logits.flatten(0, -2).float(),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return total / _count(labels, num_items_in_batch)


@torch.compiler.disable  # the number of rows is another in every batch, and chunks are products already
def linear_cross_entropy(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """`cross_entropy(hidden_states @ weight.T, ...)`, on the labels that count alone and a few rows at a time.

    Loss and gradients are computed together, so that the logits of a chunk are gone before those of the next exist
    (the idea of Wijmans et al. 2024, https://arxiv.org/abs/2411.09009, without a kernel of its own).

    Args:
        hidden_states: (B, T, hidden). weight: (vocabulary, hidden). labels: (B, T) int64, -100 is ignored.
    """
    counts = labels != IGNORED
    total = _LinearCrossEntropy.apply(hidden_states[counts], weight, labels[counts], label_smoothing)
    return total / _count(labels, num_items_in_batch)


def _count(labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor | int:
    if num_items_in_batch is None:
        num_items_in_batch = (labels != IGNORED).sum()
    if not torch.is_tensor(num_items_in_batch):
        return max(num_items_in_batch, 1)
    return num_items_in_batch.to(labels.device).clamp(min=1)


class _LinearCrossEntropy(torch.autograd.Function):
    """The sum of the losses of N rows."""

    @staticmethod
    def forward(ctx, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, smoothing: float):
        kind, device = hidden.dtype, hidden.device.type
        if torch.is_autocast_enabled(device):
            kind = torch.get_autocast_dtype(device)
        vocabulary = weight.shape[0]
        rows = max(CHUNK_ELEMENTS // vocabulary, 1)
        hidden_low, weight_low = hidden.to(kind), weight.to(kind)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden_low)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        space = grad_weight.new_empty(2, min(rows, len(labels)), vocabulary)  # fresh pages for each chunk cost time
        for start in range(0, len(labels), rows):
            part = hidden_low[start : start + rows]
            target = labels[start : start + rows, None]
            scores, grad = space[:, : len(part)]
            scores.copy_(part @ weight_low.T)
            # d loss / d scores = softmax(scores) - target distribution
            torch.softmax(scores, -1, out=grad)
            # The highest score says what was subtracted. (logsumexp takes five times as long as softmax on CPU.)
            log_sum = scores.amax(-1, keepdim=True) - grad.amax(-1, keepdim=True).log()
            expected = (1 - smoothing) * scores.gather(-1, target)
            if smoothing:
                expected = expected + smoothing * scores.mean(-1, keepdim=True)
                grad -= smoothing / vocabulary
            total += (log_sum - expected).sum()
            grad.scatter_add_(-1, target, torch.full_like(target, smoothing - 1, dtype=grad.dtype))
            low = grad.to(kind)
            grad_hidden[start : start + rows] = low @ weight_low
            grad_weight += low.T @ part
        ctx.save_for_backward(grad_hidden.to(hidden.dtype), grad_weight.to(weight.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor):
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad, grad_weight * grad, None, None
