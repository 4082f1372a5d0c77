"""What an attention backend is: the masks that it supports, the form that it compiles them to, and how it attends.

Letters: B batch, S source length, T target length, H query heads, D head width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..masks.expressions import Mask
from ..masks.fast_paths import is_observed
from ..masks.layout import Layout
from ..masks.rules.positional import full

AttentionResult = tuple[torch.Tensor, torch.Tensor | None]


@dataclass(frozen=True)
class MaskRequest:
    """A mask to compile, and the attention that it is for.

    Attributes:
        rule: asked about positions inside segments.
        query, key: the layouts of T queries and S keys.
        tensor_mask: (1 or B, 1 or H, T or 1, S) bool, and-ed with the rule.
        heads: H.
        batch: B, which layouts that are the same in every row do not tell.
        beams_per_source: G, how many rows of queries share each row of keys, as the hypotheses of a beam search do.
            Above 1 attention has B / G rows, in which the queries of G hypotheses stand one after the other.
        additive: whether scores are additive (Bahdanau et al. 2015), not scaled dot products.
    """

    rule: Mask
    query: Layout
    key: Layout
    tensor_mask: torch.Tensor | None = None
    heads: int = 1
    batch: int = 1
    beams_per_source: int = 1
    additive: bool = False

    @property
    def device(self) -> torch.device:
        return self.query.positions.device

    @property
    def allows_all(self) -> bool:
        """Whether nothing is forbidden; attention then gets None instead of a mask."""
        segments = (self.query.segments, self.key.segments)
        return self.tensor_mask is None and segments == (None, None) and self.rule == full()


class AttentionBackend:
    """One way to compute attention. A subclass has `compile` and `attend`; `register_backend` makes it known.

    Attributes:
        name: what `attn_implementation` says.
        fallback: the backend that takes what this one does not support, or None.
        mask_types: the types that `compile` returns and `attend` takes.
        additive_scores: whether `attend` computes additive scores too.
        shared_beams: whether it computes with queries of several hypotheses in a row (`beams_per_source`).
        traceable: whether `compile` looks at no tensor's values on the host, so that a tracer can follow it.
    """

    name: str
    fallback: str | None = "sdpa"
    mask_types: tuple[type, ...] = (torch.Tensor,)
    additive_scores = False
    shared_beams = False
    traceable = False

    def supports(self, request: MaskRequest) -> str | None:
        """Why this backend cannot run the mask, so that its fallback is asked, or None where it can."""
        if request.beams_per_source > 1 and not self.shared_beams:
            return "hypotheses that share a source's keys need a mask of several hypotheses in a row"
        if request.additive and not self.additive_scores:
            return "it computes scaled dot products, not additive scores"
        if not self.traceable and is_observed():
            return "its masks are compiled by values on the host, which a tracer cannot ask"
        return None

    def variant(self, name: str) -> "AttentionBackend | None":
        """The backend for a name that none is registered under, where this one knows it: another version, say."""
        return None

    def fallback_for(self, request: MaskRequest) -> str | None:
        """The backend to ask for a mask that this one does not support."""
        return self.fallback

    def compile(self, request: MaskRequest) -> object:
        """The mask as `attend` takes it, one of `mask_types`. Never asked where everything is allowed.

        Raises:
            MaskError: the mask does not fit, or is one that this backend refuses instead of leaving it to another.
        """
        raise NotImplementedError

    def takes(self, query: torch.Tensor, compiled_mask: object, additive: bool) -> bool:
        """Whether `attend` computes with such a mask; else the fallback is asked.

        Args:
            query: (B, H, T, D).
            compiled_mask: what some backend compiled; None where everything is allowed.
        """
        fits = compiled_mask is None or isinstance(compiled_mask, self.mask_types)
        return fits and (self.additive_scores or not additive)

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        compiled_mask: Any,
        *,
        additive: bool = False,
        **kwargs: Any,
    ) -> AttentionResult:
        """Attention; a query with nothing to see gets zero.

        Args:
            module: has `num_key_value_groups`, `training`, `config`, and `score_vector` (H, D) for additive scores.
            query: (B, H, T, D). key, value: (B, H / groups, S, D).
            compiled_mask: one of `mask_types`, or None where everything is allowed.
            additive: whether scores are additive.
            kwargs: `scaling` of the dot product, `dropout` of the weights, and what Transformers passes on.

        Returns:
            (B, T, H, D), and the weights (B, H, T, S), or None where the backend keeps them to itself.
        """
        raise NotImplementedError
