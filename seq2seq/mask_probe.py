"""How a model of Transformers treats masks and positions: measured, because no attribute says so."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

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
    """Whether tokens have no influence where a mask hides them, and some where it shows them.

    Rounding may differ, as experts take tokens in groups; so influence is compared with that under no mask.
    """
    device = next(model.parameters()).device

    def influence(column: int, rows: list[list[int]]) -> torch.Tensor:
        """(3,) of a token on each one's outputs, under a mask."""
        allowed = torch.tensor(rows, dtype=torch.bool, device=device)[None, None]
        first, second = (compute(ids, allowed) for ids in _differing(column, vocab_size, device))
        return ((first - second).abs().amax(-1)[0] - _rounding(first)).clamp(min=0)

    with undisturbed(model):
        free = influence(0, [[1, 0, 0], [1, 1, 0], [1, 1, 1]])
        alone = influence(0, [[1, 0, 0], [0, 1, 0], [0, 1, 1]])
        shown = influence(0, [[1, 0, 0], [1, 1, 0], [1, 0, 1]])
        hidden = influence(1, [[1, 0, 0], [1, 1, 0], [1, 0, 1]])
    limit = 0.01 * float(free[1:].max())
    obeys = float(alone[1:].max()) <= limit and float(hidden[2]) <= limit
    return obeys and float(alone[0]) > 0 and float(shown[2]) > 0


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
    return _differ(first, second)


def reads_target_padding(model: PreTrainedModel) -> bool:
    """Whether padding after a target has an influence on the scores of its tokens, in an encoder-decoder for texts."""
    encoder, decoder = (cast(Any, side) for side in (model.get_encoder(), model.get_decoder()))
    pad, device = getattr(model.config.get_text_config(decoder=True), "pad_token_id", None) or 0, model.device
    sizes = [side.get_input_embeddings().num_embeddings for side in (encoder, decoder)]
    source, target = (torch.arange(size - LENGTH, size, device=device)[None] for size in sizes)
    with undisturbed(model):
        scores, of_padded = (
            model(
                input_ids=source,
                attention_mask=torch.ones_like(source),
                decoder_input_ids=nn.functional.pad(target, (0, columns), value=pad),
                use_cache=False,
            ).logits[:, :LENGTH]
            for columns in (0, LENGTH)
        )
    # Rounding differs with the number of columns.
    return float((scores - of_padded).abs().max()) > 8 * _rounding(scores)


def looks_ahead(model: nn.Module, vocab_size: int, compute: Compute) -> bool:
    """Whether a token has an influence on those before it."""
    device = next(model.parameters()).device
    with undisturbed(model):
        first, second = (compute(ids, None) for ids in _differing(LENGTH - 1, vocab_size, device))
    return _differ(first[:, :-1], second[:, :-1])


def _rounding(outputs: torch.Tensor) -> float:
    """By how much outputs may differ though nothing reached them, as experts take tokens in groups."""
    return 8 * torch.finfo(outputs.dtype).eps * float(outputs.abs().max())


def _differ(first: torch.Tensor, second: torch.Tensor) -> bool:
    return float((first - second).abs().max()) > _rounding(first)


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
