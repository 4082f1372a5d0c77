"""What `generate()` needs to know of masks on an attached model, which does the rest as its own class does it.

A source has a row for every hypothesis here, as Transformers repeats it, and the decoder is causal by itself.
"""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation.candidate_generator import CandidateGenerator
from transformers.masking_utils import create_masks_for_generate

from ..masks.expressions import Mask
from ..masks.tensor_mask import TensorMask
from ..seq2seq.cache import as_wide_as_cache
from ..seq2seq.generation import MaskedGenerationMixin
from ..seq2seq.mask_compiler import LayerMasks
from .attachment import CALL_ARGUMENTS, Attachment, encoder_mask_of
from .index_errors import check_indices


class AttachedGenerationMixin(MaskedGenerationMixin):
    """Keeps masks right from the first to the last step of the model's own `generate()`."""

    attachment: Attachment

    @property
    def mask_compilers(self) -> tuple[LayerMasks, LayerMasks, LayerMasks]:
        masks = self.attachment.masks
        return masks["encoder"], masks["decoder"], masks["cross"]

    def encoder_mask_of(
        self, encoder_outputs: Any, encoder_mask: Mask | TensorMask | None
    ) -> Mask | TensorMask | None:
        return encoder_mask_of(encoder_outputs, encoder_mask)

    def check_blind(self, **call_masks: Mask | TensorMask | None) -> None:
        self.attachment.check_blind(**call_masks)

    def _prepare_text_encoder_decoder_kwargs_for_generation(
        self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """As Transformers does, with the encoder's mask in force."""
        given = {name: model_kwargs.pop(name) for name in CALL_ARGUMENTS if name in model_kwargs}
        with self.attachment.call(given):
            try:
                model_kwargs = super()._prepare_text_encoder_decoder_kwargs_for_generation(
                    inputs_tensor, model_kwargs, *args, **kwargs
                )
            except IndexError:
                check_indices(self, {self.main_input_name: inputs_tensor})
                raise
        return {**model_kwargs, **given}

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
            return as_wide_as_cache(attention_mask, past_key_values)
        make = getattr(super(), "create_masks_for_generate", create_masks_for_generate)
        return make(config, inputs_embeds, attention_mask, past_key_values, **kwargs)
