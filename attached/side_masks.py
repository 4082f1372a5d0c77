"""The compiled masks of one side, as they are handed to its attention, and how they join the model's own.

Letters: B batch, S keys, T queries, H heads. Masks are boolean, True = allowed; the model's own may be additive.
"""

from dataclasses import dataclass, field

import torch

from ..attention.dense import open_empty_rows
from ..masks.expressions import Mask, MaskError
from ..masks.scope import Scope

KEYWORD = "crossmask"
"""The keyword by which a side's masks reach its attention."""


@dataclass(eq=False)
class Joined:
    """The mask to attend under, and what it was made from.

    Attributes:
        mask: (B, 1 or H, T, S), boolean, or to be added to the scores. On an accelerator a query with nothing to see
            sees everything under it, as in `open_empty_rows`.
        allowed: (B, 1 or H, T, S) bool.
    """

    mask: torch.Tensor
    allowed: torch.Tensor
    _seeing: torch.Tensor | None = None

    def seeing(self) -> torch.Tensor:
        """Which queries may see any key, (B, 1 or H, T, 1) bool."""
        if self._seeing is None:
            self._seeing = self.allowed.any(dim=-1, keepdim=True)
        return self._seeing


@dataclass
class SideMasks:
    """The masks of an encoder's or a decoder's layers.

    Attributes:
        of_scope: for each scope and layer (1 or B, 1 or H, T, S) bool, or None where everything is allowed.
        made_under: the call's encoder mask, as `describe` has it.
        joined: what was joined last, since neighbouring layers have the same masks.
    """

    of_scope: dict[Scope, list[torch.Tensor | None]]
    made_under: Mask | str | None = None
    joined: list[tuple[torch.Tensor | None, torch.Tensor, Joined]] = field(default_factory=list)

    def of_layer(self, scope: Scope, layer: int) -> torch.Tensor | None:
        masks = self.of_scope.get(scope)
        return None if masks is None else masks[layer]

    def of_merged_layer(self, layer: int, queries: int, keys: int) -> torch.Tensor | None:
        """The mask of attention whose keys are the target's followed by the source's, `keys` in all."""
        decoder, cross = self.of_layer("decoder", layer), self.of_layer("cross", layer)
        if decoder is None and cross is None:
            return None
        width = sum(mask.shape[-1] for mask in (decoder, cross) if mask is not None)
        device = next(mask.device for mask in (decoder, cross) if mask is not None)
        rest = torch.ones(1, 1, queries, keys - width, dtype=torch.bool, device=device)
        parts = [rest if mask is None else mask for mask in (decoder, cross)]
        batch, heads = (max(part.shape[axis] for part in parts) for axis in (0, 1))
        return torch.cat([part.expand(batch, heads, queries, -1) for part in parts], dim=-1)

    def join(self, own: torch.Tensor | None, allowed: torch.Tensor, query: torch.Tensor, additive: bool) -> Joined:
        """The mask to attend under: ours and the model's own.

        Args:
            own: the model's own mask, boolean or additive, or None. allowed: ours.
            query: (B, H, T, D), whose dtype an additive mask has.
            additive: whether the attention function adds its mask to the scores.
        """
        compiling = torch.compiler.is_compiling()
        for known_own, known_allowed, known in () if compiling else self.joined:
            if known_own is own and known_allowed is allowed:
                return known
        joined = join_masks(own, allowed, query, additive)
        if not compiling:
            self.joined = [*self.joined[-3:], (own, allowed, joined)]
        return joined


def join_masks(own: torch.Tensor | None, allowed: torch.Tensor, query: torch.Tensor, additive: bool) -> Joined:
    """As `SideMasks.join`.

    Raises:
        MaskError: a mask for another number of heads.
    """
    if allowed.shape[1] not in (1, query.shape[1]):
        raise MaskError(
            f"a mask must be for the {query.shape[1]} heads of this attention, or for 1, got {allowed.shape[1]}"
        )
    # Half, so that the sum with a score cannot overflow; and finite where a model computes its softmax in float32.
    lowest = max(torch.finfo(query.dtype).min, torch.finfo(torch.float32).min) / 2
    bias = None
    if own is not None:
        own = own[..., : allowed.shape[-1]]
        if own.dtype == torch.bool:
            allowed = allowed & own
        else:
            bias, allowed = own, allowed & (own > lowest)
    opened, seeing = open_empty_rows(allowed, query.device)
    if bias is None and not additive:
        return Joined(allowed if opened is None else opened, allowed, seeing)
    bias = torch.zeros((), dtype=query.dtype, device=query.device) if bias is None else bias.to(query.dtype)
    mask = torch.where(allowed, bias, lowest)
    return Joined(mask if seeing is None else mask.masked_fill(~seeing, 0.0), allowed, seeing)
