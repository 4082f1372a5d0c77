"""A text encoder of Transformers under masks: what it takes, how it counts positions, whether it obeys.

Letters: B batch, S source length, H heads.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ..attention.backends import CompiledMask
from ..masks.expressions import MaskError
from ..masks.fast_paths import is_observed
from ..masks.layout import Layout, lay_out
from .foreign_masks import ForeignMask, encoder_mask_for
from .mask_probe import looks_ahead, numbers_positions_by_itself, obeys_masks
from .pretrained_parts import arguments_of, first_position_of, max_length_of, module_with_positions


class ForeignEncoder:
    """What is known of an encoder: read from its code and config, or measured once, at the first finished mask.

    Attributes:
        arguments: the names of those of its `forward`.
        counts_ids: whether it counts ids that are not padding where it is told no positions.
        first_position: the number of the first token's position where it does so, else 0.
        max_length: how many tokens it takes, None where its config names no limit.
        counts_by_itself: whether it counts positions from a row's first column, whatever it is told.
        looks_ahead: whether a token has an influence on those before it; None until it is measured.
    """

    def __init__(self, encoder: PreTrainedModel):
        self.encoder = encoder
        self.arguments = arguments_of(encoder)
        self.first_position = first_position_of(encoder)
        self.counts_ids = self.first_position > 0
        self.numbered = module_with_positions(encoder)
        self.max_length = max_length_of(encoder.config.get_text_config(encoder=True), self.first_position)
        self.counts_by_itself = numbers_positions_by_itself(encoder, self.arguments)
        self.looks_ahead: bool | None = None

    @property
    def name(self) -> str:
        return type(self.encoder).__name__

    def mask(self, compiled_masks: Sequence[CompiledMask], inputs: torch.Tensor) -> ForeignMask | None:
        """The finished mask of all layers, None where everything is allowed.

        Args:
            compiled_masks: of each layer, (1 or B, 1 or H, S, S) bool, or None where it allows everything.
            inputs: (B, S) or (B, S, E), of whose shape and device the mask is for.

        Raises:
            MaskError: the encoder does not obey it, or cannot tell the layers apart.
        """
        self._check_obedience()
        masks = [mask if isinstance(mask, torch.Tensor) else None for mask in compiled_masks]
        return self._finished(self._and_own(masks, inputs), inputs)

    def positions(self, layout: Layout, batch: int) -> dict[str, torch.Tensor]:
        """The encoder's argument for positions, none where it has relative ones.

        Raises:
            MaskError: it counts positions by itself, whatever it is told.
        """
        if "position_ids" in self.arguments:
            positions = layout.positions
            if self.numbered is not None and not self.counts_ids:  # a few number tokens from 2
                positions = self.numbered.position_ids.flatten()[positions]
            return {"position_ids": (positions + self.first_position).expand(batch, -1)}
        if not self.counts_by_itself:
            return {}
        # Those that count tokens which are not padding would read their positions from a finished mask.
        names = "segment_ids, position_ids and encoder_mask" if self.counts_ids else "segment_ids and position_ids"
        raise MaskError(
            f"{names} must be left out where {self.name} encodes: it numbers positions by itself; give every example "
            "a row of its own, or take another encoder"
        )

    def check_padding(self, attention_mask: torch.Tensor | None) -> None:
        """Check that the encoder counts a source's positions from its first token.

        Raises:
            MaskError: it does not, as rows are padded on the left.
        """
        if attention_mask is None or not self.counts_by_itself or is_observed():
            return
        if bool(((attention_mask[:, 0] == 0) & attention_mask.any(-1)).any()):
            raise MaskError(
                f"sources must not be padded on the left where {self.name} encodes: it numbers positions by "
                "itself; pad on the right"
            )

    def _finished(self, masks: Sequence[torch.Tensor | None], inputs: torch.Tensor) -> ForeignMask | None:
        like = torch.empty(*inputs.shape[:2], 0, dtype=self.encoder.dtype, device=inputs.device)
        return encoder_mask_for(self.encoder, masks, like)

    def _and_own(self, masks: list[torch.Tensor | None], inputs: torch.Tensor) -> list[torch.Tensor | None]:
        """And-ed with `causal()` where the encoder does not look ahead: a finished mask replaces its own."""
        if self.looks_ahead is not False:
            return masks
        length = inputs.shape[1]
        earlier = torch.ones(1, 1, length, length, dtype=torch.bool, device=inputs.device).tril()
        # Layers that share a mask go on sharing one.
        joined = {id(mask): earlier if mask is None else mask & earlier for mask in masks}
        return [joined[id(mask)] for mask in masks]

    def _check_obedience(self) -> None:
        """Measure, once, whether the encoder obeys a finished mask, and whether it looks ahead.

        Raises:
            MaskError: it does not obey.
        """
        encoder = self.encoder
        if self.looks_ahead is not None or encoder.device.type == "meta":
            return
        if torch.compiler.is_compiling():
            code = vars(sys.modules[type(encoder).__module__])
            if "create_causal_mask" in code and "create_bidirectional_mask" not in code:
                raise MaskError(
                    f"{self.name}'s masks must be measured before it is compiled; run one call under a mask without "
                    "torch.compile"
                )
            return
        config = encoder.config.get_text_config(encoder=True)

        def compute(ids: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
            options: dict[str, Any] = {}
            if allowed is not None:
                options["attention_mask"] = self._finished([allowed] * config.num_hidden_layers, ids)
                if "position_ids" in self.arguments:
                    options |= self.positions(lay_out(ids.shape[1], ids.device), len(ids))
            states: torch.Tensor = encoder(input_ids=ids, **options, return_dict=True).last_hidden_state
            return states

        try:
            obeys = obeys_masks(encoder, config.vocab_size, compute)
        except MaskError:
            raise
        except (
            AssertionError,
            AttributeError,
            TypeError,
            ValueError,
            RuntimeError,
            IndexError,
        ):  # it has no code for finished masks at all
            obeys = False
        if not obeys:
            raise MaskError(
                f"encoder_mask must be full(), and rows must not be packed, where {self.name} encodes: it does not "
                "obey finished masks; take an encoder of another family"
            )
        self.looks_ahead = looks_ahead(encoder, config.vocab_size, compute)
