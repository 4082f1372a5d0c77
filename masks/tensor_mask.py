"""Masks that a caller passes: a mask, its text, or a boolean tensor, whose indices are those of the batch's tokens."""

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
        allowed: (B, S), (B, T, S) or (B, H, T, S) bool. repeat_last: whether generation may go on after the last row,
        which is then repeated, and for a decoder mask the
            last column too.
    """

    allowed: torch.Tensor
    repeat_last: bool = False

    @property
    def as_4d(self) -> torch.Tensor:
        """(1 or B, 1 or H, 1 or T, S) bool: a size of 1 is for all heads, or for all queries."""
        match self.allowed.ndim:
            case 2:
                return self.allowed[:, None, None]
            case 3:
                return self.allowed[:, None]
        return self.allowed


def tensor(allowed: torch.Tensor, *, repeat_last: bool = False) -> TensorMask:
    """A boolean tensor as a mask, checked, with a choice of what generation does after the last row.

    Args:
        allowed: (B, S), (B, T, S) or (B, H, T, S), bool or integers 0 and 1; True is allowed.
        repeat_last: repeat the last row instead of raising an error.

    Raises:
        MaskError: `allowed` is not a tensor, has another number of dimensions, is neither bool nor integer, or has
            integers other than 0 and 1.
    """
    if not isinstance(allowed, torch.Tensor):
        raise MaskError(
            f"a tensor mask must be a torch tensor, got {type(allowed).__name__}; write torch.as_tensor(...)"
        )
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
            wrong = allowed[(allowed != 0) & (allowed != 1)][0].item()
            raise MaskError(
                f"a tensor mask of {allowed.dtype} must hold 0 and 1 only, got {wrong}; compare it to get booleans"
            )
        allowed = allowed != 0
    return TensorMask(allowed, repeat_last)


MaskLike = Mask | str | torch.Tensor | TensorMask


def as_mask(mask: MaskLike | None, name: str = "mask") -> Mask | TensorMask | None:
    """What a caller passed as a mask, a tensor mask or None.

    Args:
        name: of the argument, for the error.

    Raises:
        MaskError: it is neither a mask, nor its text, nor a boolean tensor; the message starts with `name`.
    """
    try:
        if mask is None or isinstance(mask, (Mask, TensorMask)):
            return mask
        if isinstance(mask, torch.Tensor):
            return tensor(mask)
        if isinstance(mask, str):
            return parse(mask)
        if is_foreign(mask, TensorMask):
            foreign: Any = mask  # its class is not this module's
            return TensorMask(foreign.allowed, foreign.repeat_last)
        if is_foreign(mask, Mask):
            return read_foreign(mask)
    except MaskError as error:
        raise MaskError(f"{name}: {error}") from error
    fixes = {"ndarray": "; write torch.as_tensor(mask)", "list": "; write torch.as_tensor(mask)"}
    fixes["dict"] = "; write layers({...}) for masks of layers, heads({...}) for masks of heads"
    fix = fixes.get(type(mask).__name__, "")
    raise MaskError(f"{name} must be a mask, its text or a boolean tensor, got {type(mask).__name__}{fix}")


def describe(mask: Mask | TensorMask | None) -> Mask | str | None:
    """A call's mask for a report: its text, the mask itself if the text would be too long, or a tensor's shape."""
    if isinstance(mask, TensorMask):
        return f"a tensor of shape {tuple(mask.allowed.shape)}"
    # First by the extent: to write a long table takes time. A compiler can follow neither.
    if mask is None or torch.compiler.is_compiling() or mask.extent.characters > TEXT_LIMIT:
        return mask
    text = mask.text()
    return text if len(text) <= TEXT_LIMIT else mask


def read_foreign(mask: Any) -> Mask:
    """A mask that comes from another copy of this code, by way of its text.

    Raises:
        MaskError: it has rules that are registered in that copy only.
    """
    try:
        return parse(str(mask))
    except MaskError as error:
        raise MaskError(
            f"a mask must be made by the copy of crossmask that reads it, or have rules that both know, got one of "
            f"{type(mask).__module__}: {error}; import crossmask and register your rules before you load the model"
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
    has_all_rows: bool = False,
) -> None:
    """Check that the sizes of a tensor mask fit the attention that it is for.

    Args:
        queries: the number of rows that are needed, for cached tokens too; None if only the device has it.
        keys: the number of columns that are needed, likewise.
        may_grow: whether columns are decoder tokens, of which there are more at each step of generation.
        has_all_rows: whether rows are source tokens, whose number is final.

    Raises:
        MaskError: a size does not fit; the message says how to fix it.
    """
    shape = tuple(mask.allowed.shape)
    if shape[0] not in (1, batch):
        raise MaskError(f"{name} must be for the {batch} examples of the batch, or for 1, got {shape[0]} in {shape}")
    if mask.allowed.ndim == 4 and shape[1] not in (1, heads):
        raise MaskError(f"{name} must be for the {heads} heads of the model, or for 1, got {shape[1]} in {shape}")
    if has_all_rows and mask.allowed.ndim > 2 and shape[-2] != queries:
        raise MaskError(f"{name} must have a row for each of {queries} source tokens, got {shape[-2]} in {shape}")
    if queries is not None and mask.allowed.ndim > 2 and shape[-2] < queries and not mask.repeat_last:
        raise MaskError(
            f"{name} must have a row for each of {queries} decoder tokens, got {shape[-2]} in {shape}; give a rule, "
            "limit max_new_tokens, or write masks.tensor(mask, repeat_last=True) to repeat the last row"
        )
    if keys is None or (may_grow and (shape[-1] >= keys or mask.repeat_last)):
        return
    if shape[-1] != keys:
        fix = "; write masks.tensor(mask, repeat_last=True) to repeat the last column" if may_grow else ""
        raise MaskError(
            f"{name} must have a column for each of {keys} tokens to attend to, got {shape[-1]} in {shape}{fix}"
        )


def rows_for(mask: TensorMask, *, rows: torch.Tensor, columns: int) -> torch.Tensor:
    """The rows of a tensor mask for some queries: (1 or B, 1 or H, T or 1, S) bool.

    Args:
        rows: (T,) int64, the indices of the queries among the decoder's tokens, counted from the start token.
        columns: S, the number of keys.
    """
    allowed = mask.as_4d.to(rows.device)
    if mask.allowed.ndim > 2:
        allowed = allowed.index_select(-2, rows.clamp(max=allowed.shape[-2] - 1))
    if allowed.shape[-1] != columns:
        index = torch.arange(columns, device=rows.device).clamp(max=allowed.shape[-1] - 1)
        allowed = allowed.index_select(-1, index)
    return allowed
