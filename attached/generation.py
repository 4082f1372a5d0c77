"""What `generate()` needs to know of masks on an attached model.

A source has a row for every hypothesis here, as Transformers repeats it, and the decoder is causal by itself. What
`MaskedGenerationMixin` does for shared sources and for decoders that may look ahead is therefore passed over.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteriaList
from transformers.cache_utils import Cache
from transformers.generation.candidate_generator import CandidateGenerator
from transformers.masking_utils import create_masks_for_generate

from ..masks.expressions import Mask
from ..masks.tensor_mask import TensorMask, as_mask
from ..seq2seq.call_checks import check_not_packed
from ..seq2seq.generation import MASKS, MaskedGenerationMixin, _WithinMasks
from ..seq2seq.mask_compiler import LayerMasks
from .attachment import CALL_ARGUMENTS, Attachment, encoder_mask_of

OWN_METHODS = ("_prepare_decoder_input_ids_for_generation", "_sample", "_beam_search")
"""What an attached model does as its own class does it, and not as `MaskedGenerationMixin`."""


class AttachedGenerationMixin(MaskedGenerationMixin):
    """Keeps masks right from the first to the last step of the model's own `generate()`."""

    attachment: Attachment

    @property
    def mask_compilers(self) -> tuple[LayerMasks, LayerMasks, LayerMasks]:
        masks = self.attachment.masks
        return masks["encoder"], masks["decoder"], masks["cross"]

    def check_blind(self, **call_masks: Mask | TensorMask | None) -> None:
        self.attachment.check_blind(**call_masks)

    @property
    def max_target_length(self) -> int | None:
        return None  # the model says so itself, if it does

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        check_not_packed(model_kwargs)
        own: Any = super(MaskedGenerationMixin, self)
        own._validate_model_kwargs(model_kwargs)

    def _prepare_text_encoder_decoder_kwargs_for_generation(
        self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """As Transformers does, with the encoder's mask in force."""
        given = {name: model_kwargs.pop(name) for name in CALL_ARGUMENTS if name in model_kwargs}
        with self.attachment.call(given):
            model_kwargs = super()._prepare_text_encoder_decoder_kwargs_for_generation(
                inputs_tensor, model_kwargs, *args, **kwargs
            )
        return {**model_kwargs, **given}

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        """As Transformers repeats rows for beams. Masks are read once, and repeated where they have a row for each."""
        given = {name: as_mask(model_kwargs.pop(name), name) for name in MASKS if name in model_kwargs}
        encoder_mask = encoder_mask_of(model_kwargs.get("encoder_outputs"), given.pop("encoder_mask", None))
        self.check_blind(**given, encoder_mask=encoder_mask)
        if expand_size > 1:
            rows = input_ids if input_ids is not None else model_kwargs["encoder_outputs"][0]
            model_kwargs.setdefault("example_ids", torch.arange(len(rows), device=rows.device))
        for name, mask in given.items():
            if isinstance(mask, TensorMask) and len(mask.allowed) > 1:
                given[name] = replace(mask, allowed=mask.allowed.repeat_interleave(expand_size, dim=0))
        input_ids, model_kwargs = super(MaskedGenerationMixin, self)._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return input_ids, {**model_kwargs, **given}

    def _assisted_decoding(
        self,
        input_ids: torch.LongTensor,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        inputs_tensor: torch.Tensor | None = None,  # named, or Transformers keeps the source from the draft
        **kwargs: Any,
    ) -> Any:
        """As Transformers does; only what is accepted of a draft has to keep within a tensor mask."""
        masks: dict[str, Any] = {name: mask for name in MASKS if isinstance(mask := kwargs.get(name), TensorMask)}
        if masks:
            kwargs |= {name: replace(mask, repeat_last=True) for name, mask in masks.items()}
            within = _WithinMasks(partial(self.check_tensor_masks, len(input_ids), **masks))
            stopping_criteria = StoppingCriteriaList([*stopping_criteria, within])
        return super(MaskedGenerationMixin, self)._assisted_decoding(
            input_ids,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            inputs_tensor=inputs_tensor,
            **kwargs,
        )

    def _get_candidate_generator(
        self, *, model_kwargs: dict[str, Any], assistant_model: PreTrainedModel | None = None, **kwargs: Any
    ) -> CandidateGenerator:
        """As Transformers does; a draft model that takes no masks proposes without them."""
        if assistant_model is not None and not isinstance(assistant_model, MaskedGenerationMixin):
            model_kwargs = {name: value for name, value in model_kwargs.items() if name not in CALL_ARGUMENTS}
        return super()._get_candidate_generator(model_kwargs=model_kwargs, assistant_model=assistant_model, **kwargs)

    def create_masks_for_generate(
        self,
        config: Any,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        past_key_values: Cache,
        **kwargs: Any,
    ) -> Any:
        """As Transformers does for a static cache; padding stays (B, T), since positions are counted by it."""
        if attention_mask is not None:
            capacity = past_key_values.get_max_length()
            return nn.functional.pad(attention_mask, (0, capacity - attention_mask.shape[1]), value=1)
        make = getattr(super(MaskedGenerationMixin, self), "create_masks_for_generate", create_masks_for_generate)
        return make(config, inputs_embeds, attention_mask, past_key_values, **kwargs)
