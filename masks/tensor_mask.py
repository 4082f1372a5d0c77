"""Masks given at call time: a mask value, its text, or a tensor over the batch as it is laid out."""

from dataclasses import dataclass
from typing import Any

import torch

from .expressions import Mask, MaskError
from .fast_paths import fast_path_allowed
from .foreign import is_foreign
from .limits import TEXT_LIMIT
from .rules import parse


@dataclass(frozen=True, eq=False)
class TensorMask:
    """A boolean tensor over the batch: rows are decoder tokens counted from the start token, columns source tokens.

    Attributes:
        allowed: (B, S), (B, T, S) or (B, H, T, S) bool.
        repeat_last: whether generation may run past the last row, which then repeats (for a mask of the decoder's own
            attention the last column repeats too).
    """

    allowed: torch.Tensor
    repeat_last: bool = False

    @property
    def as_4d(self) -> torch.Tensor:
        """(1 or B, 1 or H, 1 or T, S) bool: a size of 1 holds for all heads, or for all queries."""
        match self.allowed.ndim:
            case 2:
                return self.allowed[:, None, None]
            case 3:
                return self.allowed[:, None]
        return self.allowed


def tensor(allowed: torch.Tensor, *, repeat_last: bool = False) -> TensorMask:
    """Check a tensor mask, and say what happens where generation runs past its last row.

    Args:
        allowed: (B, S), (B, T, S) or (B, H, T, S), bool or integers 0 and 1; True is allowed.
        repeat_last: let the last row repeat instead of raising an error.

    Raises:
        MaskError: not a tensor, a wrong number of dimensions, a dtype that is not yes or no, or integers other than 0
            and 1.
    """
    if not isinstance(allowed, torch.Tensor):
        raise MaskError(f"expected a torch tensor, got {type(allowed).__name__}; write torch.as_tensor(...)")
    if allowed.ndim not in (2, 3, 4):
        shapes = "(batch, source), (batch, target, source) or (batch, heads, target, source)"
        raise MaskError(f"a tensor mask must be {shapes}, got {tuple(allowed.shape)}")
    if allowed.is_floating_point() or allowed.is_complex():
        raise MaskError(
            f"a tensor mask must be boolean with True = allowed, got {allowed.dtype}; "
            "write `mask > 0.5` for ones and zeros, `mask == 0` for an additive mask"
        )
    if allowed.dtype != torch.bool:
        if fast_path_allowed(allowed, devices=None) and not bool(((allowed == 0) | (allowed == 1)).all()):
            raise MaskError(f"a tensor mask of {allowed.dtype} must hold 0 and 1 only; compare it to get booleans")
        allowed = allowed != 0
    return TensorMask(allowed, repeat_last)


MaskLike = Mask | str | torch.Tensor | TensorMask


def as_mask(mask: MaskLike | None, name: str = "mask") -> Mask | TensorMask | None:
    """What a caller passed, checked: a rule, a tensor mask or None.

    Raises:
        MaskError: it is none of them, or cannot be read; the message starts with `name`.
    """
    try:
        if mask is None or isinstance(mask, Mask | TensorMask):
            return mask
        if is_foreign(mask, TensorMask):
            foreign: Any = mask  # no type of this copy's
            return TensorMask(foreign.allowed, foreign.repeat_last)
        if is_foreign(mask, Mask):
            return read_foreign(mask)
        if isinstance(mask, torch.Tensor):
            return tensor(mask)
        if isinstance(mask, str):
            return parse(mask)
    except MaskError as error:
        raise MaskError(f"{name}: {error}") from error
    fixes = {"ndarray": "; write torch.as_tensor(mask)", "list": "; write torch.as_tensor(mask)"}
    fixes["dict"] = "; write layers({...}) for masks of layers, heads({...}) for masks of heads"
    fix = fixes.get(type(mask).__name__, "")
    raise MaskError(f"{name}: expected a mask, its text or a boolean tensor, got {type(mask).__name__}{fix}")


def describe(mask: Mask | TensorMask | None) -> Mask | str | None:
    """A call's mask in words: a rule's text, or the rule itself where no text may be so long; a tensor's shape."""
    if isinstance(mask, TensorMask):
        return f"a tensor of shape {tuple(mask.allowed.shape)}"
    # The extent is known at once; writing a long table takes time. A compiler can follow neither.
    if mask is None or torch.compiler.is_compiling() or mask.extent.characters > TEXT_LIMIT:
        return mask
    text = mask.text()
    return text if len(text) <= TEXT_LIMIT else mask


def read_foreign(mask: Any) -> Mask:
    """A mask of another copy of this code, through its text.

    Raises:
        MaskError: it has rules that are registered in that copy only.
    """
    try:
        return parse(str(mask))
    except MaskError as error:
        raise MaskError(
            f"this mask is of another copy of crossmask ({type(mask).__module__}), and cannot be read here: {error}; "
            "import crossmask and register your rules before you load the model"
        ) from error


def check_fit(
    mask: TensorMask,
    name: str,
    *,
    batch: int,
    heads: int,
    queries: int | None,
    keys: int | None,
    may_grow: bool,
    whole: bool = False,
) -> None:
    """Check a tensor mask against the attention that it is for.

    Args:
        queries: how many rows are needed, cached tokens included; None if only the device knows.
        keys: how many columns are needed, likewise.
        may_grow: whether columns are decoder tokens, which grow in number as rows do.
        whole: whether rows are source tokens, which are all there at once.

    Raises:
        MaskError: a size that does not fit, and how to fix it.
    """
    shape = tuple(mask.allowed.shape)
    if shape[0] not in (1, batch):
        raise MaskError(f"{name}: {shape} is a mask for {shape[0]} examples, but the batch has {batch}")
    if mask.allowed.ndim == 4 and shape[1] not in (1, heads):
        raise MaskError(f"{name}: {shape} is a mask for {shape[1]} heads, but the model has {heads}")
    if whole and mask.allowed.ndim > 2 and shape[-2] != queries:
        raise MaskError(f"{name}: {shape} has {shape[-2]} rows, but there are {queries} source tokens")
    if queries is not None and mask.allowed.ndim > 2 and shape[-2] < queries and not mask.repeat_last:
        raise MaskError(
            f"{name}: {shape} has rows for {shape[-2]} decoder tokens, but {queries} are needed; give a rule, limit "
            "max_new_tokens, or write masks.tensor(mask, repeat_last=True) to let the last row repeat"
        )
    if keys is None or (may_grow and (shape[-1] >= keys or mask.repeat_last)):
        return
    if shape[-1] != keys:
        fix = "; write masks.tensor(mask, repeat_last=True) to let the last column repeat" if may_grow else ""
        raise MaskError(f"{name}: {shape} has {shape[-1]} columns, but there are {keys} tokens to attend to{fix}")


def rows_for(mask: TensorMask, *, rows: torch.Tensor, columns: int) -> torch.Tensor:
    """The part of a tensor mask that belongs to these rows: (1 or B, 1 or H, T or 1, S) bool.

    Args:
        rows: (T,) int64, the decoder indices of the queries, counted from the start token.
        columns: S, the number of keys.
    """
    allowed = mask.as_4d.to(rows.device)
    if mask.allowed.ndim > 2:
        allowed = allowed.index_select(-2, rows.clamp(max=allowed.shape[-2] - 1))
    if allowed.shape[-1] != columns:
        index = torch.arange(columns, device=rows.device).clamp(max=allowed.shape[-1] - 1)
        allowed = allowed.index_select(-1, index)
    return allowed
