"""A loss of `hidden @ weight.T`, without ever holding the logits of the whole batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch

CHUNK_ELEMENTS = 2**22  # logits at a time in products: enough to be fast, and small enough for allocators to reuse
CACHED_ELEMENTS = 2**19  # logits at a time elsewhere on CPU: what is computed of them then stays in the cache
FP16_ROWS = 1024  # at a time in float16, where a sum over more rows may pass the largest number


class SummedLoss(ABC):
    """A loss of the logits of N labels, summed over them. It may compare the logits of several passes, P of them."""

    @abstractmethod
    def plain(self, logits: torch.Tensor) -> torch.Tensor:
        """The loss, in operations that can be differentiated twice. logits: (P, N, vocabulary)."""

    @abstractmethod
    def in_place(self, logits: torch.Tensor, part: slice, differentiable: bool) -> torch.Tensor:
        """The loss of the labels that `part` names, in `full_dtype`; outside of autograd.

        Args:
            logits: (P, n, vocabulary), of these labels. Where `differentiable`, they become the loss's gradient.
        """


def full_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are made in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def cached_parts(labels: int, elements: int, device: torch.device) -> Iterator[slice]:
    """Slices of the labels, each with `elements` logits. On an accelerator small slices would only be more calls."""
    return _parts(labels, (CACHED_ELEMENTS if device.type == "cpu" else CHUNK_ELEMENTS) // elements)


def chunk_rows(vocabulary: int) -> int:
    """How many rows of logits are made by one product."""
    return max(CHUNK_ELEMENTS // vocabulary, 1)


def _parts(labels: int, size: int) -> Iterator[slice]:
    size = max(size, 1)
    return (slice(start, min(start + size, labels)) for start in range(0, labels, size))


def linear_loss(hidden_states: torch.Tensor, weight: torch.Tensor, loss: SummedLoss) -> torch.Tensor:
    """`loss.plain(hidden_states @ weight.T)`, some rows at a time.

    Loss and gradients are computed together, so that the logits of a chunk are gone before those of the next exist
    (the idea of Wijmans et al. 2024, https://arxiv.org/abs/2411.09009, without a kernel of its own). What needs no
    gradient gets none computed. Under autocast the products are in its dtype.

    Args:
        hidden_states: (P, N, hidden), of labels that count alone. weight: (vocabulary, hidden).
    """
    kind, device = hidden_states.dtype, hidden_states.device.type
    if torch.is_autocast_enabled(device) and kind != torch.float64:  # which autocast leaves alone
        kind = torch.get_autocast_dtype(device)
    return _LinearLoss.apply(hidden_states, weight, loss, kind, torch.is_grad_enabled())


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        loss: SummedLoss,
        kind: torch.dtype,
        differentiable: bool,
    ) -> torch.Tensor:
        ctx.loss, ctx.kind = loss, kind
        wanted = [needed and differentiable for needed in ctx.needs_input_grad[:2]]
        total, *grads = _in_chunks(hidden.to(kind), weight.to(kind), loss, *wanted)
        ctx.save_for_backward(hidden, weight, *grads)
        return total

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        hidden, weight, *grads = ctx.saved_tensors
        if torch.is_grad_enabled():  # under create_graph: the plain computation, whose gradient can be differentiated
            inputs = [tensor for tensor, saved in zip((hidden, weight), grads, strict=True) if saved is not None]
            with torch.autocast(hidden.device.type, enabled=False):
                total = ctx.loss.plain(hidden.to(ctx.kind) @ weight.to(ctx.kind).T)
            twice = iter(torch.autograd.grad(total, inputs, grad, create_graph=True))
            return *(None if saved is None else next(twice) for saved in grads), None, None, None
        scaled = (None if saved is None else saved * grad for saved in grads)
        sides = zip(scaled, (hidden, weight), strict=True)
        cast = (None if new is None else new.to(tensor.dtype) for new, tensor in sides)
        return *cast, None, None, None


def _in_chunks(
    hidden: torch.Tensor, weight: torch.Tensor, loss: SummedLoss, *wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """The loss of N labels, and its gradients with respect to hidden states and weight where wanted.

    Args:
        hidden: (P, N, hidden). weight: (vocabulary, hidden), of the same dtype.
    """
    (passes, labels, _), vocabulary = hidden.shape, weight.shape[0]
    rows = chunk_rows(vocabulary)
    if hidden.dtype == torch.float16:
        rows = min(rows, FP16_ROWS)
    total = torch.zeros((), dtype=full_dtype(hidden.dtype), device=hidden.device)
    grad_hidden = torch.empty_like(hidden) if wanted[0] else None
    grad_weight = torch.zeros_like(weight, dtype=full_dtype(weight.dtype)) if wanted[1] else None
    # Fresh pages for each chunk cost time.
    space = hidden.new_empty(passes * min(max(rows // passes, 1), labels), vocabulary)
    of_chunk = torch.empty_like(weight) if wanted[1] else None
    for outer in _parts(labels, rows // passes):
        part = hidden[:, outer].flatten(0, 1)
        logits = torch.mm(part, weight.T, out=space[: len(part)])
        of_passes = logits.unflatten(0, (passes, -1))
        for inner in cached_parts(of_passes.shape[1], passes * vocabulary, logits.device):
            place = slice(outer.start + inner.start, outer.start + inner.stop)
            total += loss.in_place(of_passes[:, inner], place, any(wanted))
        if grad_hidden is not None:
            grad_hidden[:, outer] = (logits @ weight).unflatten(0, (passes, -1))
        if grad_weight is not None:
            grad_weight += torch.mm(logits.T, part, out=of_chunk)
    return total, grad_hidden, grad_weight
