"""Cross-entropy over the vocabulary, also without ever holding the logits of the whole batch."""

import torch
from torch import nn

from ..masks.fast_paths import fast_path_allowed
from .decoder_inputs import IGNORED

CHUNK_ELEMENTS = 2**22  # logits at a time: 16 MiB in fp32, small enough for caches and for allocators to reuse
FP16_ROWS = 1024  # at a time in float16, where a sum over more rows may pass the largest number


def check_targets(labels: torch.Tensor, vocabulary: int, label_smoothing: float = 0.0) -> None:
    """Check what the loss is asked to compare with. Labels are looked at on CPU only, and never under a tracer.

    Args:
        labels: int64 of any shape. vocabulary: the number of logits for each.

    Raises:
        TypeError: labels that are not int64. ValueError: a label that is neither -100 nor one of the vocabulary, or a
            smoothing outside of 0 to 1.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"smoothing must be from 0 to 1, got {label_smoothing}; 0 switches it off, 0.1 is usual")
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

    Loss and gradients are computed together, so that the logits of a chunk are gone before those of the next exist
    (the idea of Wijmans et al. 2024, https://arxiv.org/abs/2411.09009, without a kernel of its own). What needs no
    gradient gets none computed. Under a tracer, and with tensors that are not ordinary ones, it is the plain product.

    Args:
        hidden_states: (B, T, hidden). weight: (vocabulary, hidden). labels: (B, T) int64, -100 is ignored.

    Raises:
        ValueError, TypeError: as in `check_targets`.
    """
    if not fast_path_allowed(hidden_states, weight, labels, devices=None):
        logits = nn.functional.linear(hidden_states, weight)
        return cross_entropy(logits, labels, num_items_in_batch, label_smoothing)
    check_targets(labels, weight.shape[0], label_smoothing)
    kind, device = hidden_states.dtype, hidden_states.device.type
    if torch.is_autocast_enabled(device) and kind != torch.float64:  # which autocast leaves alone
        kind = torch.get_autocast_dtype(device)
    counts = labels != IGNORED
    total = _LinearCrossEntropy.apply(
        hidden_states[counts], weight, labels[counts], label_smoothing, kind, torch.is_grad_enabled()
    )
    return total / count_targets(labels, num_items_in_batch)


def _plain_sum(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    return nn.functional.cross_entropy(
        logits.flatten(0, -2).to(full_dtype(logits.dtype)),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )


def full_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are made in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def count_targets(labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor | int:
    """What a summed loss is divided by: the number given, or that of the labels that count; at least 1."""
    if num_items_in_batch is None:
        num_items_in_batch = (labels != IGNORED).sum()
    if not torch.is_tensor(num_items_in_batch):
        return max(num_items_in_batch, 1)
    return num_items_in_batch.to(labels.device).clamp(min=1)


class _LinearCrossEntropy(torch.autograd.Function):
    """The sum of the losses of N rows."""

    @staticmethod
    def forward(
        ctx,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        smoothing: float,
        kind: torch.dtype,
        differentiable: bool,
    ) -> torch.Tensor:
        ctx.smoothing, ctx.kind = smoothing, kind
        wanted = [needed and differentiable for needed in ctx.needs_input_grad[:2]]
        total, *grads = _in_chunks(hidden.to(kind), weight.to(kind), labels, smoothing, *wanted)
        ctx.save_for_backward(hidden, weight, labels, *grads)
        return total

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        hidden, weight, labels, *grads = ctx.saved_tensors
        if torch.is_grad_enabled():  # under create_graph: the plain computation, whose gradient can be differentiated
            inputs = [tensor for tensor, saved in zip((hidden, weight), grads, strict=True) if saved is not None]
            with torch.autocast(hidden.device.type, enabled=False):
                logits = hidden.to(ctx.kind) @ weight.to(ctx.kind).T
                total = _plain_sum(logits, labels, ctx.smoothing)
            twice = iter(torch.autograd.grad(total, inputs, grad, create_graph=True))
            return *(None if saved is None else next(twice) for saved in grads), None, None, None, None
        scaled = (None if saved is None else saved * grad for saved in grads)
        sides = zip(scaled, (hidden, weight), strict=True)
        cast = (None if new is None else new.to(tensor.dtype) for new, tensor in sides)
        return *cast, None, None, None, None


def _in_chunks(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, smoothing: float, *wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """The sum of the losses of N rows, and its gradients with respect to hidden states and weight where wanted.

    Args:
        hidden: (N, hidden). weight: (vocabulary, hidden), of the same dtype. labels: (N,) int64.
    """
    vocabulary, full = weight.shape[0], full_dtype(hidden.dtype)
    rows = max(CHUNK_ELEMENTS // vocabulary, 1)
    if hidden.dtype == torch.float16:
        rows = min(rows, FP16_ROWS)
    total = torch.zeros((), dtype=full, device=hidden.device)
    grad_hidden = torch.empty_like(hidden) if wanted[0] else None
    grad_weight = torch.zeros_like(weight, dtype=full) if wanted[1] else None
    space = total.new_empty(2, min(rows, len(labels)), vocabulary)  # fresh pages for each chunk cost time
    for start in range(0, len(labels), rows):
        part = hidden[start : start + rows]
        target = labels[start : start + rows, None]
        scores, grad = space[:, : len(part)]
        scores.copy_(part @ weight.T)
        # d loss / d scores = softmax(scores) - target distribution
        torch.softmax(scores, -1, out=grad)
        # The highest score says what was subtracted. (logsumexp takes five times as long as softmax on CPU.)
        log_sum = scores.amax(-1, keepdim=True) - grad.amax(-1, keepdim=True).log()
        expected = (1 - smoothing) * scores.gather(-1, target)
        if smoothing:
            expected = expected + smoothing * scores.mean(-1, keepdim=True)
        total += (log_sum - expected).sum()
        if not any(wanted):
            continue
        if smoothing:
            grad -= smoothing / vocabulary
        grad.scatter_add_(-1, target, torch.full_like(target, smoothing - 1, dtype=grad.dtype))
        low = grad.to(hidden.dtype)
        if grad_hidden is not None:
            grad_hidden[start : start + rows] = low @ weight
        if grad_weight is not None:
            grad_weight += low.T @ part
    return total, grad_hidden, grad_weight
