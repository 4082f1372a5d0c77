"""What an attention backend is: the masks that it supports, the form to which it compiles them, and how it attends.

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
        rule: the mask, which is asked about positions inside of segments.
        query, key: the layouts of T queries and S keys.
        tensor_mask: (1 or B, 1 or H, T or 1, S) bool, and-ed with the rule.
        heads: H.
        batch: B, which cannot be told from layouts that are the same in every row.
        beams_per_source: G, the number of rows of queries that share a row of keys, as the beams of a source do. If it
            is above 1, attention has B / G rows, each with the queries of G beams one after the other.
        additive: whether scores are additive (Bahdanau et al. 2015) instead of scaled dot products.
        head_dim: the width of a head, None where it is not known.
    """

    rule: Mask
    query: Layout
    key: Layout
    tensor_mask: torch.Tensor | None = None
    heads: int = 1
    batch: int = 1
    beams_per_source: int = 1
    additive: bool = False
    head_dim: int | None = None

    @property
    def device(self) -> torch.device:
        return self.query.positions.device

    @property
    def allows_all(self) -> bool:
        """Whether nothing is forbidden; attention then gets None instead of a mask."""
        tensors = (self.tensor_mask, self.query.segments, self.key.segments)
        return all(tensor is None for tensor in tensors) and self.rule == full()


class AttentionBackend:
    """A way to compute attention. A subclass has `compile` and `attend`; `register_backend` makes it known.

    Attributes:
        name: its name in `attn_implementation`.
        fallback: the name of the backend for masks that this one does not support, or None.
        mask_types: the types that `compile` returns and `attend` takes.
        additive_scores: whether `attend` computes additive scores too.
        shared_beams: whether it takes the queries of several beams in a row (`beams_per_source`).
        traceable: whether `compile` reads no values of tensors on the host, so that a tracer can follow it.
    """

    name: str
    fallback: str | None = "sdpa"
    mask_types: tuple[type, ...] = (torch.Tensor,)
    additive_scores = False
    shared_beams = False
    traceable = False

    def supports(self, request: MaskRequest) -> str | None:
        """None if this backend can run the mask, else the reason why its fallback is asked."""
        if request.beams_per_source > 1 and not self.shared_beams:
            return "it does not take the queries of several beams in a row"
        if request.additive and not self.additive_scores:
            return "it computes scaled dot products, not additive scores"
        if not self.traceable and is_observed():
            return "it compiles masks by values on the host, which a tracer does not have"
        return None

    def variant(self, name: str) -> "AttentionBackend | None":
        """The backend for a name that is not registered but that this one knows, such as another version, or None."""
        return None

    def fallback_for(self, request: MaskRequest) -> str | None:
        """The name of the backend to ask about a mask that this one does not support."""
        return self.fallback

    def compile(self, request: MaskRequest) -> object:
        """The mask as `attend` takes it, of one of `mask_types`. Not called for masks that allow everything.

        Raises:
            MaskError: the mask does not fit the batch, or this backend refuses it instead of leaving it to another.
        """
        raise NotImplementedError

    def takes(self, query: torch.Tensor, compiled_mask: object, additive: bool) -> bool:
        """Whether `attend` computes with such a mask; if not, the fallback is asked.

        Args:
            query: (B, H, T, D).
            compiled_mask: what a backend compiled; None if everything is allowed.
            additive: whether scores are additive.
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
        """Attention. A query that may see no key gets zero.

        Args:
            module: has `num_key_value_groups`, `training`, `config`, and `score_vector` (H, D) for additive scores.
            query: (B, H, T, D). key, value: (B, H / groups, S, D).
            compiled_mask: of one of `mask_types`, or None if everything is allowed.
            additive: whether scores are additive.
            kwargs: `scaling` of the dot product, `dropout` of the weights, and further arguments of Transformers.

        Returns:
            (B, T, H, D), and the weights (B, H, T, S), or None if the backend does not return them.
        """
        raise NotImplementedError
