"""What `generate()` needs to know where several rows of the target share one row of the source.

Beams are then not given a copy of their source each, and a cache that a call returns has to be put in order. The
decoder may also look ahead, which it must not in the steps of `generate()`.
"""

from inspect import signature
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, StoppingCriteriaList
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput, logging

from ..masks.expressions import Mask
from ..masks.tensor_mask import TensorMask
from .beam_sharing import keep_returned, repeat_source, repeat_target, select_returned
from .cache import as_wide_as_cache, check_cache, is_recurrent, keys_and_values, layers_with_keys, read_cache
from .call_checks import check_keywords, keywords_of
from .decoder_inputs import begin_after_padding
from .encoder_output import CrossMaskEncoderOutput
from .prefix_masks import closed_ahead
from .unfinished_rows import NotingStoppingCriteria, UnfinishedRowsMixin, loop

logger = logging.get_logger(__name__)

SOURCE = ("attention_mask", "position_ids", "passage_ids")


class SharedSourceGenerationMixin(UnfinishedRowsMixin):
    """Generation by a network of this package: beams share their source, and calls are checked.

    One row of the source may serve several rows of the target in a model's `forward`.
    """

    def encoder_mask_of(
        self, encoder_outputs: BaseModelOutput | tuple, encoder_mask: Mask | TensorMask | None
    ) -> Mask | TensorMask | None:
        return CrossMaskEncoderOutput.of(encoder_outputs).made_under(encoder_mask)

    def _validate_model_kwargs(self, model_kwargs: dict) -> None:
        known = keywords_of(type(self).forward) | set(signature(GenerationMixin.generate).parameters)
        check_keywords({name: value for name, value in model_kwargs.items() if value is not None}, known, ValueError)
        super()._validate_model_kwargs(model_kwargs)

    def _prepare_generated_length(self, generation_config: GenerationConfig, *args, **kwargs) -> GenerationConfig:
        """As Transformers computes it, but within the positions: a step beyond them would fail at its turn.

        Raises:
            ValueError: the shortest target that is asked for has more tokens than there are positions.
        """
        settings = super()._prepare_generated_length(generation_config, *args, **kwargs)
        limit, asked = self.max_target_length, settings.max_length
        if limit is None:
            return settings
        most = limit + 1  # the last token is never read, so it needs no position
        if settings.min_length > most:
            raise ValueError(
                f"max_position_embeddings={limit} allows no target of at least {settings.min_length} tokens; "
                "lower min_new_tokens or min_length, and max_new_tokens with it"
            )
        if asked > most:
            settings.max_length = most
            name, more = "max_length", asked
            if settings.max_new_tokens is not None:
                name, more, most = "max_new_tokens", settings.max_new_tokens, most - asked + settings.max_new_tokens
            logger.warning_once(
                f"{name}={more} goes beyond max_position_embeddings={limit}: generation stops at {name}={most}; give "
                "at most that"
            )
        return settings

    def _assisted_decoding(
        self,
        input_ids: torch.LongTensor,
        *args,
        generation_config: GenerationConfig,
        inputs_tensor: torch.Tensor | None = None,  # named, or Transformers keeps the source from the draft
        **kwargs,
    ) -> Any:
        """As for every model with masks; a draft that is read in one pass does not see its later tokens."""
        kwargs["decoder_mask"] = closed_ahead(input_ids, **kwargs)
        if kwargs.get("decoder_attention_mask") is None:
            # Only by its length does Transformers see that a draft goes on from its cache, and not from nothing.
            kwargs["decoder_attention_mask"] = torch.ones_like(input_ids)
        kwargs |= {"generation_config": generation_config, "inputs_tensor": inputs_tensor}
        outputs = super()._assisted_decoding(input_ids, *args, **kwargs)
        return _finished(outputs, generation_config)

    def _prepare_decoder_input_ids_for_generation(
        self,
        batch_size: int,
        model_input_name: str,
        model_kwargs: dict,
        decoder_start_token_id: torch.Tensor,
        device: torch.device | None = None,
    ) -> tuple[torch.LongTensor, dict]:
        """As Transformers prepares them; padding on the left of prefixes is seen as such.

        Raises:
            ValueError: a cache to go on from, without the tokens that are in it.
        """
        prefix, cache = model_kwargs.get("decoder_input_ids"), model_kwargs.get("past_key_values")
        check_cache(cache)
        cached = 0 if cache is None else int(cache.get_seq_length())
        if cached and (prefix is None or prefix.shape[1] <= cached):
            raise ValueError(
                f"past_key_values hold {cached} target tokens, so decoder_input_ids must be all tokens so far and at "
                f"least one more, got {0 if prefix is None else prefix.shape[1]}; give the sequences as generate() "
                "returned them"
            )
        if cached:
            select_returned(cache, len(prefix))
        decoder_input_ids: Any
        decoder_input_ids, model_kwargs = super()._prepare_decoder_input_ids_for_generation(
            batch_size, model_input_name, model_kwargs, decoder_start_token_id, device
        )
        pad, starts = (
            self.config.pad_token_id,
            decoder_start_token_id.reshape(-1, 1),
        )  # of the call, for all or for each
        pad_is_start = pad is not None and bool((starts == pad).any())
        if prefix is not None and not cached:
            mask = model_kwargs.get("decoder_attention_mask")
            if mask is not None and pad_is_start and decoder_input_ids.shape == prefix.shape:
                # Transformers takes padding on the left for start tokens.
                decoder_input_ids = torch.cat([starts.expand(len(prefix), 1), prefix], dim=-1)
                mask = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=-1)
            if decoder_input_ids.shape != prefix.shape and (mask is not None or not (pad is None or pad_is_start)):
                shown = prefix != pad if mask is None else mask[:, 1:] > 0
                decoder_input_ids, shown = begin_after_padding(
                    decoder_input_ids, shown, int(starts[0]) if pad is None else pad
                )
                if mask is not None:
                    model_kwargs["decoder_attention_mask"] = shown.to(mask.dtype)
        if model_kwargs.get("decoder_attention_mask") is None and pad is not None and not pad_is_start:
            begun = (decoder_input_ids != pad).cumsum(-1).clamp(max=1)
            if not bool(begun.all()):
                model_kwargs["decoder_attention_mask"] = begun
        if model_kwargs.get("decoder_attention_mask") is None and cached:
            # Only by its length does Transformers see how many of the tokens are in the cache.
            model_kwargs["decoder_attention_mask"] = torch.ones_like(decoder_input_ids)
        return decoder_input_ids, model_kwargs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs,
    ) -> tuple[torch.LongTensor, dict]:
        """As for every model with masks; of the source, each example keeps one row."""
        model_kwargs["encoder_outputs"] = CrossMaskEncoderOutput.of(model_kwargs["encoder_outputs"])
        source = {name: model_kwargs.pop(name) for name in SOURCE if name in model_kwargs}
        # False, since Transformers then leaves the encoder's output as it is.
        input_ids, expanded = super()._expand_inputs_for_generation(expand_size, False, input_ids, **model_kwargs)
        if expand_size > 1 and (cache := expanded.get("past_key_values")) is not None:
            repeat_target(cache, len(expanded["example_ids"]))
        return input_ids, {**expanded, **source}

    def _sample(
        self,
        input_ids: torch.LongTensor,
        *args,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **kwargs,
    ):
        """As Transformers does. On CPU, rows that have ended are left out of the steps, unless the cache is kept."""
        unfinished_rows = self.unfinished_rows(input_ids, generation_config, **kwargs)
        if kwargs.get("use_cache") is False and kwargs.get("past_key_values") is None:
            kwargs["decoder_mask"] = closed_ahead(input_ids, **kwargs)
        if unfinished_rows is not None:
            stopping_criteria = NotingStoppingCriteria(stopping_criteria, unfinished_rows)
        kwargs |= {"stopping_criteria": stopping_criteria, "generation_config": generation_config}
        with loop.of(unfinished_rows):
            outputs = super()._sample(input_ids, *args, **kwargs)
        return _finished(outputs, generation_config)

    def _beam_search(self, input_ids: torch.LongTensor, *args, generation_config: GenerationConfig, **kwargs):
        """As Transformers does. Of the cache, each example's first rows are those of its returned sequences."""
        recurrent = False
        if kwargs.get("use_cache") is False and kwargs.get("past_key_values") is None:
            kwargs["decoder_mask"] = closed_ahead(input_ids, **kwargs)
        elif generation_config.return_dict_in_generate and kwargs.get("past_key_values") is not None:
            cache = read_cache(kwargs["past_key_values"], wanted=False)
            kwargs["past_key_values"] = cache
            # Recurrent states before the last step are gone, so there is nothing to go on from.
            recurrent = is_recurrent(cache.self_attention_cache)
            if not recurrent:
                cache.last_rows = []
        with loop.of(self.unfinished_rows(input_ids, generation_config, **kwargs)):
            outputs: Any = super()._beam_search(input_ids, *args, generation_config=generation_config, **kwargs)
        if recurrent:
            outputs.past_key_values = None
        if isinstance(outputs, ModelOutput) and hasattr(outputs.past_key_values, "last_rows"):
            keep_returned(outputs.past_key_values, outputs.beam_indices, len(kwargs["encoder_outputs"][0]))
        return _finished(outputs, generation_config)

    @staticmethod
    def _reorder_cache(past_key_values: EncoderDecoderCache, beam_idx: torch.LongTensor) -> EncoderDecoderCache:
        """Put the hypotheses' own keys and values in the order of the beams; the source's are not theirs."""
        if hasattr(past_key_values, "last_rows"):
            past_key_values.last_rows = [
                keys_and_values(layer) for layer in layers_with_keys(past_key_values.self_attention_cache)
            ]
        rows = beam_idx if loop.now is None else loop.now.places_of(beam_idx)
        past_key_values.self_attention_cache.reorder_cache(rows)
        return past_key_values

    @staticmethod
    def create_masks_for_generate(
        attention_mask: torch.Tensor | None, past_key_values, **kwargs
    ) -> torch.Tensor | None:
        """Leave the decoder's padding mask two-dimensional, as wide as the static cache so that shapes stay put."""
        return None if attention_mask is None else as_wide_as_cache(attention_mask, past_key_values)


def _finished(outputs: torch.Tensor | ModelOutput, settings: GenerationConfig) -> torch.Tensor | ModelOutput:
    """What a decoding loop returned, with a cache that has a row for every row of the target, and the call's ends.

    Attributes that are set:
        special_token_ids: the call's padding, and the set of tokens that end a sequence.
    """
    if isinstance(outputs, ModelOutput):
        pad, end = settings._pad_token_tensor, settings._eos_token_tensor
        ends: set[int] = set() if end is None else set(end.flatten().tolist())
        outputs.special_token_ids = (None if pad is None else int(pad), ends)
        if outputs.get("past_key_values") is not None:
            outputs.past_key_values = repeat_source(outputs.past_key_values)
    return outputs
