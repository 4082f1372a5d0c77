"""What `generate()` needs to know of masks; the decoding loop itself is Transformers'."""

from dataclasses import replace

import torch
from torch import nn
from transformers import GenerationMixin

from ..masks.given import MaskLike, TensorMask, check_fit, read

MASKS = ("encoder_mask", "decoder_mask", "cross_mask")


class MaskedGenerationMixin(GenerationMixin):
    """Keeps rules and tensor masks right from the first to the last step, whatever the cache and the decoding mode."""

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        decoder_mask: MaskLike | None = None,
        cross_mask: MaskLike | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        decoder_segment_ids: torch.LongTensor | None = None,
        **kwargs,
    ) -> dict:
        """As Transformers prepares them, with this side's tensors counting the cached tokens too.

        Raises:
            MaskError: the target has outgrown a tensor mask whose last row does not repeat.
        """
        length = input_ids.shape[1]
        for name, given in (("decoder_mask", decoder_mask), ("cross_mask", cross_mask)):
            mask = read(given, name)
            # Here the length is known without asking the device; a static cache hides it from the forward pass.
            if isinstance(mask, TensorMask):
                check_fit(
                    mask,
                    name,
                    batch=input_ids.shape[0],
                    heads=self.config.num_attention_heads,
                    queries=length,
                    keys=length if name == "decoder_mask" else None,
                    growing=name == "decoder_mask",
                )
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        extra = {
            "decoder_mask": decoder_mask,
            "cross_mask": cross_mask,
            "decoder_position_ids": decoder_position_ids,
            "decoder_segment_ids": decoder_segment_ids,
        }
        return {**inputs, **{name: value for name, value in extra.items() if value is not None}}

    def _prepare_decoder_input_ids_for_generation(self, batch_size: int, *args, **kwargs) -> tuple:
        """As Transformers prepares them; padding on the left of prefixes of several lengths is seen as such."""
        decoder_input_ids, model_kwargs = super()._prepare_decoder_input_ids_for_generation(
            batch_size, *args, **kwargs
        )
        pad, start = self.config.pad_token_id, self.config.decoder_start_token_id
        if model_kwargs.get("decoder_attention_mask") is None and pad != start:
            begun = (decoder_input_ids != pad).cumsum(-1).clamp(max=1)
            if not bool(begun.all()):
                model_kwargs["decoder_attention_mask"] = begun
        return decoder_input_ids, model_kwargs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs,
    ) -> tuple[torch.LongTensor, dict]:
        """As Transformers repeats them for beams, masks read once; a tensor for the whole batch stays as it is."""
        given = {name: read(model_kwargs.pop(name), name) for name in MASKS if name in model_kwargs}
        self.model.check_blind(**given)
        if expand_size > 1:
            model_kwargs.setdefault("example_ids", self.rows_of(input_ids, model_kwargs))
        for name, mask in given.items():
            if isinstance(mask, TensorMask) and len(mask.allowed) > 1:
                given[name] = replace(mask, allowed=mask.allowed.repeat_interleave(expand_size, dim=0))
        input_ids, expanded = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return input_ids, {**expanded, **given}

    @staticmethod
    def rows_of(input_ids: torch.Tensor | None, model_kwargs: dict) -> torch.Tensor:
        """(B,) int64, the numbers of the batch's rows."""
        rows = input_ids if input_ids is not None else model_kwargs["encoder_outputs"][0]
        return torch.arange(len(rows), device=rows.device)

    @staticmethod
    def create_masks_for_generate(
        attention_mask: torch.Tensor | None, past_key_values, **kwargs
    ) -> torch.Tensor | None:
        """Leave the decoder's padding mask two-dimensional, as wide as the static cache so that shapes stay put."""
        if attention_mask is None:
            return None
        capacity = past_key_values.get_max_length()
        return nn.functional.pad(attention_mask, (0, capacity - attention_mask.shape[1]), value=1)
