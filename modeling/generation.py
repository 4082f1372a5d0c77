"""What `generate()` needs to know of masks; the decoding loop itself is Transformers'."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from transformers import GenerationMixin, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import EncoderDecoderCache
from transformers.generation.utils import GenerateEncoderDecoderOutput

from ..masks.given import MaskLike, TensorMask, check_fit, read

MASKS = ("encoder_mask", "decoder_mask", "cross_mask")
SOURCE = ("encoder_outputs", "attention_mask", "position_ids", "passage_ids")


class MaskedGenerationMixin(GenerationMixin):
    """Keeps rules and tensor masks right from the first to the last step, whatever the cache and the decoding mode."""

    def _validate_model_kwargs(self, model_kwargs: dict) -> None:
        for name in ("segment_ids", "decoder_segment_ids"):
            if model_kwargs.get(name) is not None:
                raise ValueError(
                    f"generate() takes one example a row, so it has no use for {name}: give every example a row of "
                    "its own, padded, with an attention_mask"
                )
        super()._validate_model_kwargs(model_kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        decoder_mask: MaskLike | None = None,
        cross_mask: MaskLike | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        **kwargs,
    ) -> dict:
        """As Transformers prepares them, with this side's tensors counting the cached tokens too.

        Raises:
            MaskError: the target has outgrown a tensor mask whose last row does not repeat.
        """
        # Here the length is known without asking the device; a static cache hides it from the forward pass.
        self.check_room(*input_ids.shape, decoder_mask=decoder_mask, cross_mask=cross_mask)
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        extra = {
            "decoder_mask": decoder_mask,
            "cross_mask": cross_mask,
            "decoder_position_ids": decoder_position_ids,
        }
        return {**inputs, **{name: value for name, value in extra.items() if value is not None}}

    def check_room(self, batch: int, length: int, **given: MaskLike | None) -> None:
        """Check that tensor masks of the target's side, by name, reach as far as its tokens.

        Raises:
            MaskError: the target has outgrown one whose last row does not repeat.
        """
        for name, value in given.items():
            mask, growing = read(value, name), name == "decoder_mask"
            if isinstance(mask, TensorMask):
                check_fit(
                    mask,
                    name,
                    batch=batch,
                    heads=self.config.num_attention_heads,
                    queries=length,
                    keys=length if growing else None,
                    growing=growing,
                )

    def _assisted_decoding(
        self,
        input_ids: torch.LongTensor,
        stopping_criteria: StoppingCriteriaList,
        inputs_tensor: torch.Tensor | None = None,  # named, or Transformers keeps the source from the draft
        **kwargs,
    ) -> GenerateEncoderDecoderOutput | torch.LongTensor:
        """As Transformers does; only what is accepted of a draft has to keep within a tensor mask."""
        given = {name: kwargs.get(name) for name in ("decoder_mask", "cross_mask")}
        tensors = {name: mask for name, mask in given.items() if isinstance(mask, TensorMask)}
        kwargs |= {name: replace(mask, repeat_last=True) for name, mask in tensors.items()}
        if kwargs.get("decoder_attention_mask") is None:
            # Only by its length does Transformers see that a draft goes on from its cache, and not from nothing.
            kwargs["decoder_attention_mask"] = torch.ones_like(input_ids)
        within = _WithinMasks(partial(self.check_room, len(input_ids), **tensors))
        stopping_criteria = StoppingCriteriaList([*stopping_criteria, within])
        return super()._assisted_decoding(
            input_ids, stopping_criteria=stopping_criteria, inputs_tensor=inputs_tensor, **kwargs
        )

    def _prepare_decoder_input_ids_for_generation(
        self, batch_size: int, model_input_name: str, model_kwargs: dict, *args, **kwargs
    ) -> tuple[torch.LongTensor, dict]:
        """As Transformers prepares them; padding on the left of prefixes is seen as such."""
        prefix = model_kwargs.get("decoder_input_ids")
        decoder_input_ids, model_kwargs = super()._prepare_decoder_input_ids_for_generation(
            batch_size, model_input_name, model_kwargs, *args, **kwargs
        )
        pad, start = self.config.pad_token_id, self.config.decoder_start_token_id
        grown = prefix is not None and decoder_input_ids.shape[1] > prefix.shape[1]
        if grown and pad != start and bool((prefix[:, 0] == pad).all()):
            # No row begins with a start token, so all were given one; but they begin with padding.
            decoder_input_ids = decoder_input_ids[:, 1:]
            if model_kwargs.get("decoder_attention_mask") is not None:
                model_kwargs["decoder_attention_mask"] = model_kwargs["decoder_attention_mask"][:, 1:]
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
        """As Transformers repeats rows for beams, masks read once; of the source, each example keeps one row."""
        given = {name: read(model_kwargs.pop(name), name) for name in MASKS if name in model_kwargs}
        self.model.check_blind(**given)
        if expand_size > 1:
            model_kwargs.setdefault("example_ids", self.rows_of(input_ids, model_kwargs))
        source = {name: model_kwargs.pop(name) for name in SOURCE if name in model_kwargs}
        for name, mask in given.items():
            if isinstance(mask, TensorMask) and len(mask.allowed) > 1:
                given[name] = replace(mask, allowed=mask.allowed.repeat_interleave(expand_size, dim=0))
        input_ids, expanded = super()._expand_inputs_for_generation(expand_size, False, input_ids, **model_kwargs)
        return input_ids, {**expanded, **source, **given}

    @staticmethod
    def _reorder_cache(past_key_values: EncoderDecoderCache, beam_idx: torch.LongTensor) -> EncoderDecoderCache:
        """Put the hypotheses' own keys and values in the order of the beams; the source's are not theirs."""
        past_key_values.self_attention_cache.reorder_cache(beam_idx)
        return past_key_values

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


class _WithinMasks(StoppingCriteria):
    """Stops nothing, but checks the tensor masks against what the decoder has read of the tokens accepted so far."""

    def __init__(self, check: Callable[[int], None]):
        self.check = check

    def __call__(self, input_ids: torch.LongTensor, scores: tuple | None, **kwargs) -> torch.BoolTensor:
        self.check(input_ids.shape[1] - 1)  # nobody has read the last one yet
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
