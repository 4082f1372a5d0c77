"""The encoder of a bridge, under masks."""

from typing import Any

import torch

from ..masks.expressions import Mask
from ..masks.layout import Layout, lay_out
from ..masks.rules import full
from ..masks.tensor_mask import TensorMask, describe
from ..seq2seq.encoder_output import CrossMaskEncoderOutput
from ..seq2seq.foreign_encoder import ForeignEncoder
from ..seq2seq.foreign_masks import ForeignMask
from ..seq2seq.pretrained_parts import recording
from ..seq2seq.token_ids import check_ids
from .parts import JoinedParts, check_positions


class EncoderSide:
    """Runs the encoder of a bridge."""

    def __init__(self, model: JoinedParts):
        self.model = model
        self.foreign = ForeignEncoder(model.encoder)

    @property
    def max_length(self) -> int | None:
        return self.foreign.max_length

    def encode(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        encoder_mask: Mask | TensorMask | None = None,
        *,
        attention_mask: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        passage_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        **options: Any,
    ) -> CrossMaskEncoderOutput:
        """(B, S) ids or (B, S, E) embeddings to (B, S, hidden). Arguments as for the model, the mask by `as_mask`.

        Raises:
            ValueError: both or neither of ids and embeddings; a source that is too long; what the encoder cannot take.
        """
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        if inputs is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("give either input_ids or inputs_embeds, or encoder_outputs: exactly one of them")
        batch, length = inputs.shape[:2]
        encoder = self.model.encoder
        given: dict[str, Any] = {"input_ids": input_ids, "inputs_embeds": inputs_embeds}
        given = {name: value for name, value in given.items() if value is not None}
        side = {"attention_mask": attention_mask, "segment_ids": segment_ids, "position_ids": position_ids}
        if token_type_ids is not None:
            if "token_type_ids" not in self.foreign.arguments:
                raise ValueError(f"token_type_ids must be left out: {type(encoder).__name__} has none")
            given["token_type_ids"] = token_type_ids
        if "encoder_mask" in self.foreign.arguments:  # an encoder of ours
            output = encoder(**given, **side, passage_ids=passage_ids, encoder_mask=encoder_mask, **options)
            return CrossMaskEncoderOutput.of(output)
        layout = lay_out(length, inputs.device, passage_ids=passage_ids, rows=batch, **side)
        self.foreign.check_padding(attention_mask)
        check_positions(layout.positions, length, self.max_length, "source")
        mask = self.finished_mask(encoder_mask, layout, inputs)
        given["attention_mask"] = attention_mask if mask is None else mask
        # Left alone, some count positions by a mask, which they then take to be padding, and some count padding.
        takes_positions, counts_ids = "position_ids" in self.foreign.arguments, self.foreign.counts_ids
        are_given = segment_ids is not None or position_ids is not None
        may_differ = mask is not None or (attention_mask is not None and not counts_ids)
        if are_given or (may_differ and takes_positions) or (mask is not None and counts_ids):
            given |= self.foreign.positions(layout, batch)
        try:
            output = encoder(**given, **recording(options), return_dict=True)
        except IndexError:
            check_ids("input_ids", encoder, input_ids)
            raise
        states, width = output.get("last_hidden_state"), encoder.config.get_text_config(encoder=True).hidden_size
        if states is None or states.shape != (batch, length, width):
            got = "none" if states is None else tuple(states.shape)
            raise ValueError(
                f"encoder must give one state for each token, {(batch, length, width)}, got {got} "
                f"from {type(encoder).__name__}; take an encoder of another family"
            )
        return CrossMaskEncoderOutput(
            states,
            output.get("hidden_states"),
            output.get("attentions"),
            encoder_mask=describe(encoder_mask),
        )

    def finished_mask(
        self, encoder_mask: Mask | TensorMask | None, layout: Layout, inputs: torch.Tensor
    ) -> ForeignMask | None:
        """The mask for the encoder's layers, where padding alone does not say it all."""
        masks, training = self.model.encoder_masks, self.model.training
        if not layout.packed and not masks.adds_to(full(), encoder_mask, training):
            return None
        compiled_masks = masks.compile(
            encoder_mask,
            layout,
            layout,
            batch=len(inputs),
            rows=torch.arange(layout.length, device=inputs.device),
            seen=layout.length,
            training=training,
            backend="sdpa",
        )
        return self.foreign.mask(compiled_masks, inputs)
