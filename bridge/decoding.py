"""The decoder of a bridge, under masks."""

from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from ..masks.expressions import Mask, MaskError
from ..masks.rules import causal
from ..masks.target_layout import TargetLayout
from ..masks.tensor_mask import TensorMask
from ..seq2seq.foreign_masks import decoder_mask_for
from ..seq2seq.mask_probe import numbers_positions_by_itself, obeys_masks
from ..seq2seq.pretrained_parts import arguments_of, first_position_of, max_length_of, recording
from .parts import JoinedParts, check_positions


class DecoderSide:
    """Runs the causal language model of a bridge."""

    def __init__(self, model: JoinedParts):
        self.model = model
        self.arguments = arguments_of(model.decoder)
        config = model.decoder.config.get_text_config(decoder=True)
        self.first_position = first_position_of(model.decoder)
        positions = max_length_of(config)
        self.max_length = None if positions is None else positions - self.first_position
        self.counts_by_itself = numbers_positions_by_itself(model.decoder, self.arguments)
        self.obeys_masks: bool | None = None  # not measured yet
        self.uses_cache = getattr(config, "use_cache", True)

    def decode(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.FloatTensor | None,
        target: TargetLayout,
        decoder_mask: Mask | TensorMask | None,
        *,
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None,
        logits_to_keep: int | torch.Tensor = 0,
        **options: Any,
    ) -> ModelOutput:
        """The decoder's output for T new tokens, with logits (B, T or those to keep, vocabulary).

        Args:
            input_ids, inputs_embeds: (B, T) or (B, T, E).
            target: how they are laid out. decoder_mask: as `as_mask` has it.
            attention_mask: (B, P + T). past_key_values: the decoder's own cache.
        """
        decoder = self.model.decoder
        given: dict[str, Any] = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        batch, length = (input_ids if inputs_embeds is None else inputs_embeds).shape[:2]
        check_positions(target.query.positions, target.seen, self.max_length, "target")
        self.check_numbering(target, attention_mask)
        if self.needs_finished_mask(decoder_mask, target):
            self.check_masks()
            compiled_masks = self.model.self_masks.compile_target(
                decoder_mask, target, batch=batch, training=self.model.training, backend="sdpa"
            )
            like = torch.empty(batch, length, 0, dtype=decoder.dtype, device=target.rows.device)
            given["attention_mask"] = decoder_mask_for(decoder, compiled_masks, like, attention_mask, past_key_values)
        elif attention_mask is not None:
            given["attention_mask"] = attention_mask
        if "position_ids" in self.arguments:
            given["position_ids"] = (target.query.positions + self.first_position).expand(batch, -1)
        if "logits_to_keep" in self.arguments:
            given["logits_to_keep"] = logits_to_keep
        given |= {"past_key_values": past_key_values, "use_cache": past_key_values is not None}
        output = decoder(**given, **recording(options), return_dict=True)
        if "logits_to_keep" not in self.arguments:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            output["logits"] = output.logits[:, kept]
        return output

    def check_numbering(self, target: TargetLayout, attention_mask: torch.Tensor | None) -> None:
        """Check that a decoder which counts positions by itself counts those of the target.

        Raises:
            MaskError: it does not, as rows are packed or padded on the left.
        """
        if not self.counts_by_itself:
            return
        padded = attention_mask is not None and not torch.compiler.is_compiling() and not attention_mask[:, 0].all()
        if target.key.packed or padded:
            raise MaskError(
                "targets must not be packed nor padded on the left where "
                f"{type(self.model.decoder).__name__} decodes: "
                "it numbers positions by itself; give every example a row of its own, padded on the right"
            )

    def check_masks(self) -> None:
        """Check, once, that the decoder obeys a finished mask.

        Raises:
            MaskError: it does not.
        """
        decoder = self.model.decoder
        if self.obeys_masks is None and not torch.compiler.is_compiling() and decoder.device.type != "meta":
            config = decoder.config.get_text_config(decoder=True)

            def compute(ids: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
                like = torch.empty(*ids.shape, 0, dtype=decoder.dtype, device=ids.device)
                mask = decoder_mask_for(decoder, [allowed] * config.num_hidden_layers, like, None, None)
                options: dict[str, Any] = {"attention_mask": mask, "use_cache": False}
                if "position_ids" in self.arguments:
                    options["position_ids"] = torch.arange(ids.shape[1], device=ids.device)[None] + self.first_position
                with self.model.current_call.of(None):
                    logits: torch.Tensor = decoder(input_ids=ids, **options).logits
                return logits

            self.obeys_masks = obeys_masks(decoder, config.vocab_size, compute)
        if self.obeys_masks is False:
            raise MaskError(
                f"decoder_mask must be causal(), and rows must not be packed, where {type(decoder).__name__} decodes: "
                "it does not obey finished masks; take a decoder of another family"
            )

    def needs_finished_mask(self, decoder_mask: Mask | TensorMask | None, target: TargetLayout) -> bool:
        """Whether something is forbidden beside later tokens and padding."""
        return target.key.packed or self.model.self_masks.adds_to(causal(), decoder_mask, self.model.training)
