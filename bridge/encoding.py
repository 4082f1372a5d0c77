"""The encoder of a bridge, under masks."""

from typing import Any

import torch
from transformers import PreTrainedModel

from ..masks.expressions import Mask, MaskError
from ..masks.layout import Layout, lay_out
from ..masks.rules import full
from ..masks.tensor_mask import TensorMask, describe
from ..seq2seq.encoder_output import CrossMaskEncoderOutput
from ..seq2seq.foreign_masks import ForeignMask, encoder_mask_for
from ..seq2seq.pretrained_parts import arguments_of, first_position_of, max_length_of, recording
from .mask_probe import obeys_masks
from .parts import check_positions


class EncoderSide:
    """Runs the encoder of a bridge."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.arguments = arguments_of(model.encoder)
        self.first_position = first_position_of(model.encoder)
        positions = max_length_of(model.encoder.config.get_text_config(encoder=True))
        self.max_length = None if positions is None else positions - self.first_position
        self.obeys_masks: bool | None = None

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
        check_positions(layout.positions, length, self.max_length, "source")
        mask = self.finished_mask(encoder_mask, layout, batch)
        given["attention_mask"] = attention_mask if mask is None else mask
        if segment_ids is not None or position_ids is not None or (mask is not None and self.first_position):
            given |= self.positions(layout, batch)
        output = encoder(**given, **recording(options), return_dict=True)
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
        like = torch.empty(batch, length, 0, dtype=encoder.dtype, device=device)
        mask = encoder_mask_for(encoder, compiled_masks, like)
        self.check_obeys(mask)
        return mask

    def check_obeys(self, mask: ForeignMask | None) -> None:
        """Check once that the encoder obeys finished masks; not while something compiles or observes its passes.

        Raises:
            MaskError: it does not, or fails with one.
        """
        if mask is None or self.obeys_masks or torch.compiler.is_compiling():
            return
        encoder: Any = self.model.encoder
        if any(module._forward_hooks or module._forward_pre_hooks for module in encoder.modules()):
            return
        if self.obeys_masks is None:
            try:
                self.obeys_masks = obeys_masks(encoder, tuple(mask) if isinstance(mask, dict) else ())
            except (TypeError, ValueError, RuntimeError, IndexError):
                self.obeys_masks = False
        if not self.obeys_masks:
            raise MaskError(
                f"encoder_mask must be full(), and rows must not be packed, where {type(encoder).__name__} encodes: "
                "it does not obey finished masks; take an encoder of another family"
            )

    def positions(self, layout: Layout, batch: int) -> dict[str, torch.Tensor]:
        """The encoder's argument for positions, or none where it has relative ones.

        Raises:
            MaskError: it numbers positions by itself, whatever it is told.
        """
        encoder = self.model.encoder
        if "position_ids" in self.arguments:
            return {"position_ids": (layout.positions + self.first_position).expand(batch, -1)}
        if hasattr(encoder.config, "relative_attention_num_buckets"):
            return {}
        raise MaskError(
            f"segment_ids, position_ids and encoder_mask must be left out where {type(encoder).__name__} encodes: it "
            "numbers positions by itself; give every example a row of its own"
        )
