"""The decoder of a bridge, under masks."""

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from ..masks.expressions import Mask, MaskError
from ..masks.rules import causal
from ..masks.target_layout import TargetLayout
from ..masks.tensor_mask import TensorMask
from ..seq2seq.foreign_masks import decoder_mask_for
from ..seq2seq.mask_probe import numbers_positions_by_itself, obeys_masks, reads_first_token, takes_masks_of_heads
from ..seq2seq.pretrained_parts import arguments_of, first_position_of, max_length_of, recording
from ..seq2seq.token_ids import check_ids
from .parts import JoinedParts, check_positions


class DecoderSide:
    """Runs the causal language model of a bridge."""

    def __init__(self, model: JoinedParts):
        self.model = model
        self.arguments = arguments_of(model.decoder)
        config = model.decoder.config.get_text_config(decoder=True)
        self.first_position = first_position_of(model.decoder)
        self.max_length = max_length_of(config, self.first_position)
        self.counts_by_itself = numbers_positions_by_itself(model.decoder, self.arguments)
        self.obeys_masks: bool | None = None  # not measured yet
        kinds = getattr(config, "layers_block_type", None) or getattr(config, "layer_types", None) or ()
        self.has_recurrent_layers = any("linear" in kind or "attention" not in kind for kind in kinds)
        self.reads_padding: bool | None = None  # not measured yet
        self.takes_heads: bool | None = None  # likewise
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
            if any(isinstance(mask, torch.Tensor) and mask.shape[1] > 1 for mask in compiled_masks):
                self.check_masks_of_heads()
            like = torch.empty(batch, length, 0, dtype=decoder.dtype, device=target.rows.device)
            given["attention_mask"] = decoder_mask_for(decoder, compiled_masks, like, attention_mask, past_key_values)
        elif attention_mask is not None:
            given["attention_mask"] = attention_mask
        if "position_ids" in self.arguments:
            given["position_ids"] = (target.query.positions + self.first_position).expand(batch, -1)
        if "logits_to_keep" in self.arguments:
            given["logits_to_keep"] = logits_to_keep
        given |= {"past_key_values": past_key_values, "use_cache": past_key_values is not None}
        try:
            output = decoder(**given, **recording(options), return_dict=True)
        except IndexError:
            check_ids("decoder_input_ids", decoder, input_ids)
            raise
        if "logits_to_keep" not in self.arguments:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            output["logits"] = output.logits[:, kept]
        return output

    def check_numbering(self, target: TargetLayout, attention_mask: torch.Tensor | None) -> None:
        """Check that the decoder counts the target's positions, and reads no padding before the target.

        Raises:
            MaskError: it does not, as rows are packed or padded on the left, or it reads padding.
        """
        # Asked before the padding is looked at, which waits for the device.
        reads_padding = attention_mask is not None and self.has_recurrent_layers and self.measure_padding()
        if not self.counts_by_itself and not reads_padding:
            return
        padded = attention_mask is not None and not torch.compiler.is_compiling() and not attention_mask[:, 0].all()
        name = type(self.model.decoder).__name__
        if self.counts_by_itself and (target.key.packed or padded):
            raise MaskError(
                f"targets must not be packed nor padded on the left where {name} decodes: it numbers positions by "
                "itself; give every example a row of its own, padded on the right"
            )
        if padded and reads_padding:
            raise MaskError(
                f"targets must not be padded on the left where {name} decodes: its recurrent layers read the padding; "
                "pad on the right"
            )

    def measured(self, name: str, measure: Callable[[], bool]) -> bool | None:
        """An attribute that is measured once; None where nothing can be measured, as something compiles."""
        value: bool | None = getattr(self, name)
        if value is None and not torch.compiler.is_compiling() and self.model.decoder.device.type != "meta":
            value = measure()
            setattr(self, name, value)
        return value

    def measure_padding(self) -> bool:
        """Whether padding on the left has an influence on the tokens after it; measured once."""
        decoder = self.model.decoder
        vocab_size = decoder.config.get_text_config(decoder=True).vocab_size
        shown = torch.tensor([[0, 1, 1]], device=decoder.device)

        def compute(ids: torch.Tensor) -> torch.Tensor:
            with self.model.current_call.of(None):
                logits: torch.Tensor = decoder(input_ids=ids, attention_mask=shown, use_cache=False).logits
            return logits

        return bool(self.measured("reads_padding", lambda: reads_first_token(decoder, vocab_size, compute)))

    def check_masks(self) -> None:
        """Check, once, that the decoder obeys a finished mask.

        Raises:
            MaskError: it does not.
        """
        decoder = self.model.decoder
        vocab_size = decoder.config.get_text_config(decoder=True).vocab_size
        if self.measured("obeys_masks", lambda: obeys_masks(decoder, vocab_size, self.logits_under)) is False:
            raise MaskError(
                f"decoder_mask must be causal(), and rows must not be packed, where {type(decoder).__name__} decodes: "
                "it does not obey finished masks; take a decoder of another family"
            )

    def check_masks_of_heads(self) -> None:
        """Check, once, that the decoder takes a finished mask for each head.

        Raises:
            MaskError: it does not.
        """
        decoder = self.model.decoder
        heads = decoder.config.get_text_config(decoder=True).num_attention_heads
        if self.measured("takes_heads", lambda: takes_masks_of_heads(decoder, heads, self.logits_under)) is False:
            raise MaskError(
                f"decoder_mask must be the same for all heads where {type(decoder).__name__} decodes: it "
                "takes no mask for single heads; give one without heads(...), or a tensor with 1 in place of H"
            )

    def logits_under(self, ids: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """The decoder's own logits (B, T, vocabulary) of ids (B, T) under a mask (1, 1 or H, T, T) bool."""
        decoder = self.model.decoder
        layers = decoder.config.get_text_config(decoder=True).num_hidden_layers
        like = torch.empty(*ids.shape, 0, dtype=decoder.dtype, device=ids.device)
        options: dict[str, Any] = {
            "attention_mask": decoder_mask_for(decoder, [allowed] * layers, like, None, None),
            "use_cache": False,
        }
        if "position_ids" in self.arguments:
            options["position_ids"] = torch.arange(ids.shape[1], device=ids.device)[None] + self.first_position
        with self.model.current_call.of(None):
            logits: torch.Tensor = decoder(input_ids=ids, **options).logits
        return logits

    def needs_finished_mask(self, decoder_mask: Mask | TensorMask | None, target: TargetLayout) -> bool:
        """Whether something is forbidden beside later tokens and padding."""
        return target.key.packed or self.model.self_masks.adds_to(causal(), decoder_mask, self.model.training)
