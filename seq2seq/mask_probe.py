"""How a model of Transformers treats masks and positions: measured, because no attribute says so."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

LENGTH = 3
Compute = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Ids (1, 3) under a mask (1, 1, 3, 3) bool, or under none, to outputs (1, 3, any)."""

_OWN_POSITIONS = re.compile(r"(?<!relative_)(?<!relative)(?:position|pos_emb)", re.IGNORECASE)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, nothing is drawn at random, no gradients are kept and no hooks run; afterwards all is as before."""
    training = [module for module in model.modules() if module.training]
    hooks = [
        (hooks, dict(hooks))
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        if hooks and not any(map(_is_of_torch, hooks.values()))
    ]
    for module in training:
        module.training = False
    for of_module, _ in hooks:
        of_module.clear()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
        for of_module, kept in hooks:
            of_module.update(kept)


def _is_of_torch(hook: Callable) -> bool:
    """Whether PyTorch needs a hook to compute at all, as it does where it shards parameters."""
    return (getattr(hook, "__module__", None) or "").startswith("torch.distributed")


def obeys_masks(model: nn.Module, vocab_size: int, compute: Compute) -> bool:
    """Whether a token that is hidden from the others has no influence on them, and has some on itself.

    Rounding may differ, as experts take tokens in groups; so influence is compared with that under no mask.
    """
    device = next(model.parameters()).device
    allowed = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1]], dtype=torch.bool, device=device)[None, None]
    with undisturbed(model):
        masked, unmasked = (
            [compute(ids, mask) for ids in _differing(0, vocab_size, device)]
            for mask in (allowed, torch.ones_like(allowed).tril())
        )
    hidden, free = (float((a[:, 1:] - b[:, 1:]).abs().max()) for a, b in (masked, unmasked))
    rounding = 2 * torch.finfo(masked[0].dtype).eps * float(masked[0].abs().max())
    return hidden <= max(0.1 * free, rounding) and not torch.equal(masked[0][:, 0], masked[1][:, 0])


def takes_masks_of_heads(model: nn.Module, heads: int, compute: Compute) -> bool:
    """Whether a model takes a mask (1, H, 3, 3) that is not the same for all heads."""
    device = next(model.parameters()).device
    allowed = torch.ones(1, heads, LENGTH, LENGTH, dtype=torch.bool, device=device).tril()
    allowed[:, 0] &= torch.eye(LENGTH, dtype=torch.bool, device=device)
    ids = torch.arange(LENGTH, device=device)[None]
    try:
        with undisturbed(model):
            compute(ids, allowed)
    except (ValueError, RuntimeError):  # of another shape than its own
        return False
    return True


def reads_first_token(model: nn.Module, vocab_size: int, compute: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether the first of three tokens has an influence on the others, in outputs (1, 3, any) of ids (1, 3)."""
    device = next(model.parameters()).device
    with undisturbed(model):
        first, second = (compute(ids)[:, 1:] for ids in _differing(0, vocab_size, device))
    rounding = 2 * torch.finfo(first.dtype).eps * float(first.abs().max())
    return float((first - second).abs().max()) > rounding


def looks_ahead(model: nn.Module, vocab_size: int, compute: Compute) -> bool:
    """Whether a token has an influence on those before it."""
    device = next(model.parameters()).device
    with undisturbed(model):
        first, second = (compute(ids, None) for ids in _differing(LENGTH - 1, vocab_size, device))
    return not torch.equal(first[:, :-1], second[:, :-1])


def _differing(column: int, vocab_size: int, device: torch.device) -> list[torch.Tensor]:
    """Two rows of ids that differ in one column; the last ids of a vocabulary are seldom special."""
    rows = torch.arange(vocab_size - LENGTH, vocab_size, device=device).expand(2, 1, -1).clone()
    rows[1, 0, column] = vocab_size - LENGTH - 1
    return list(rows)


def numbers_positions_by_itself(model: PreTrainedModel, arguments: frozenset[str]) -> bool:
    """Whether absolute positions are counted from a row's first column, whatever the model is told.

    Args:
        arguments: of its `forward`.
    """
    if "position_ids" in arguments:
        return False
    names = [name for named in (model.named_modules(), model.named_parameters()) for name, _ in named]
    return any(map(_OWN_POSITIONS.search, [*names, *(type(module).__name__ for module in model.modules())]))
