"""The encoder of a bridge, under masks."""

from typing import Any

import torch
from transformers import PreTrainedModel

from ..attention.backends import CompiledMask
from ..masks.expressions import Mask, MaskError
from ..masks.layout import Layout, lay_out
from ..masks.rules import full
from ..masks.tensor_mask import TensorMask, describe
from ..seq2seq.encoder_output import CrossMaskEncoderOutput
from .foreign_masks import ForeignMask, encoder_mask_for
from .mask_probe import first_position, looks_ahead, numbers_positions_by_itself, obeys_masks
from .parts import arguments_of, max_length_of, recording


class EncoderSide:
    """Runs the encoder of a bridge."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.arguments = arguments_of(model.encoder)
        self.max_length = max_length_of(model.encoder.config.get_text_config(encoder=True))
        self.first_position = first_position(model.encoder)
        self.counts_by_itself = numbers_positions_by_itself(model.encoder, self.arguments)
        self.looks_ahead: bool | None = None  # not measured yet

    def encode(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.FloatTensor | None,
        encoder_mask: Mask | TensorMask | None = None,
        *,
        attention_mask: torch.Tensor | None = None,
        segment_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        passage_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        **options: Any,
    ) -> CrossMaskEncoderOutput:
        """(B, S) ids or (B, S, E) embeddings to (B, S, hidden). Arguments as for the model, the mask by `as_mask`.

        Raises:
            ValueError: both or neither of ids and embeddings; a source that is too long; what the encoder cannot take.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, or encoder_outputs: exactly one of them")
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        batch, length = inputs.shape[:2]
        if self.max_length is not None and segment_ids is None and length > self.max_length:
            raise ValueError(
                f"the source must have at most {self.max_length} tokens, which is what the encoder takes, got "
                f"{length}; truncate it"
            )
        encoder = self.model.encoder
        given: dict[str, Any] = {"input_ids": input_ids, "inputs_embeds": inputs_embeds}
        given = {name: value for name, value in given.items() if value is not None}
        side = {"attention_mask": attention_mask, "segment_ids": segment_ids, "position_ids": position_ids}
        if token_type_ids is not None:
            if "token_type_ids" not in self.arguments:
                raise ValueError(f"token_type_ids must be left out: {type(encoder).__name__} has none")
            given["token_type_ids"] = token_type_ids
        if "encoder_mask" in self.arguments:  # an encoder of ours
            output = encoder(**given, **side, passage_ids=passage_ids, encoder_mask=encoder_mask, **options)
            return CrossMaskEncoderOutput.of(output)
        layout = lay_out(length, inputs.device, passage_ids=passage_ids, rows=batch, **side)
        mask = self.finished_mask(encoder_mask, layout, batch)
        given["attention_mask"] = attention_mask if mask is None else mask
        if segment_ids is not None or position_ids is not None or (mask is not None and self.first_position):
            given |= self.positions(layout, batch)
        output = encoder(**given, **recording(options), return_dict=True)
        if output.last_hidden_state.shape[:2] != (batch, length):
            raise ValueError(
                f"encoder must give one state for each token, got {tuple(output.last_hidden_state.shape)} from "
                f"{type(encoder).__name__} for {(batch, length)} tokens; take an encoder of another family"
            )
        return CrossMaskEncoderOutput(
            output.last_hidden_state,
            output.get("hidden_states"),
            output.get("attentions"),
            encoder_mask=describe(encoder_mask),
        )

    def finished_mask(self, encoder_mask: Mask | TensorMask | None, layout: Layout, batch: int) -> ForeignMask | None:
        """The mask for the encoder's layers, where padding alone does not say it all."""
        masks, encoder = self.model.encoder_masks, self.model.encoder
        rule = encoder_mask if isinstance(encoder_mask, Mask) else None
        distinct, _ = masks.rules(rule, self.model.training)
        if distinct == (full(),) and not layout.packed and not isinstance(encoder_mask, TensorMask):
            return None
        length, device = layout.length, layout.positions.device
        compiled_masks = masks.compile(
            encoder_mask,
            layout,
            layout,
            batch=batch,
            rows=torch.arange(length, device=device),
            seen=length,
            training=self.model.training,
            backend="sdpa",
        )
        self.check_masks()
        like = torch.empty(batch, length, 0, dtype=encoder.dtype, device=device)
        return encoder_mask_for(encoder, self.with_own(compiled_masks, length, device), like)

    def with_own(
        self, compiled_masks: list[CompiledMask], length: int, device: torch.device
    ) -> list[torch.Tensor | None]:
        """Masks (1 or B, 1 or H, S, S) of every layer, and-ed with `causal()` where the encoder does not look ahead.

        A finished mask replaces the encoder's own, so it must say that too.
        """
        masks = [mask if isinstance(mask, torch.Tensor) else None for mask in compiled_masks]
        if self.looks_ahead is not False:
            return masks
        earlier = torch.ones(1, 1, length, length, dtype=torch.bool, device=device).tril()
        joined = {id(mask): earlier if mask is None else mask & earlier for mask in masks}
        return [joined[id(mask)] for mask in masks]

    def check_masks(self) -> None:
        """Check, once, that the encoder obeys a finished mask, and find out whether it looks ahead.

        Raises:
            MaskError: it does not obey.
        """
        encoder = self.model.encoder
        config = encoder.config.get_text_config(encoder=True)
        if self.looks_ahead is not None or torch.compiler.is_compiling() or encoder.device.type == "meta":
            return

        def compute(ids: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
            given: dict[str, Any] = {}
            if allowed is not None:
                like = torch.empty(*ids.shape, 0, dtype=encoder.dtype, device=ids.device)
                given["attention_mask"] = encoder_mask_for(encoder, [allowed] * config.num_hidden_layers, like)
            states: torch.Tensor = encoder(input_ids=ids, **given, return_dict=True).last_hidden_state
            return states

        # Some have no code for finished masks at all.
        try:
            obeys = obeys_masks(encoder, config.vocab_size, compute)
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, MaskError):
                raise
            obeys = False
        if not obeys:
            raise MaskError(
                "encoder_mask must be full(), and rows must not be packed, where "
                f"{type(encoder).__name__} encodes: it "
                "does not obey finished masks; take an encoder of another family"
            )
        self.looks_ahead = looks_ahead(encoder, config.vocab_size, compute)

    def positions(self, layout: Layout, batch: int) -> dict[str, torch.Tensor]:
        """The encoder's argument for positions, or none where it has relative ones.

        Raises:
            MaskError: it numbers positions by itself, whatever it is told.
        """
        encoder = self.model.encoder
        if "position_ids" in self.arguments:
            return {"position_ids": (layout.positions + self.first_position).expand(batch, -1)}
        if not self.counts_by_itself:
            return {}
        raise MaskError(
            f"segment_ids, position_ids and encoder_mask must be left out where {type(encoder).__name__} encodes: it "
            "numbers positions by itself; give every example a row of its own"
        )
