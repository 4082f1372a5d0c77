"""What `generate()` needs to know of masks; the decoding loop itself is Transformers'."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import signature

import torch
from torch import nn
from transformers import GenerationConfig, GenerationMixin, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import EncoderDecoderCache
from transformers.generation.utils import GenerateEncoderDecoderOutput
from transformers.utils import ModelOutput, logging

from ..masks.expressions import Mask
from ..masks.scope import SCOPES
from ..masks.tensor_mask import MaskLike, TensorMask, as_mask, check_fit
from .beam_sharing import keep_returned, repeat_source, repeat_target, select_returned
from .cache import check_cache, is_recurrent, read_cache
from .call_checks import check_keywords, check_not_packed, keywords_of
from .encoder_output import CrossMaskEncoderOutput
from .mask_compiler import LayerMasks, check_blind
from .prefix_masks import closed_ahead

logger = logging.get_logger(__name__)

MASKS = tuple(f"{scope}_mask" for scope in SCOPES)
SOURCE = ("encoder_outputs", "attention_mask", "position_ids", "passage_ids")


class MaskedGenerationMixin(GenerationMixin):
    """Keeps rules and tensor masks right from the first to the last step, whatever the cache and the decoding mode.

    A model says what its masks are (`mask_compilers`) and how long its targets may be (`max_target_length`). Its
    encoder takes `encoder_mask`, its `forward` the others and `example_ids`, and one row of the source may
    serve several rows of the target.
    """

    @property
    def mask_compilers(self) -> tuple[LayerMasks, LayerMasks, LayerMasks]:
        """The masks of the encoder, of the decoder and of the interactive attention."""
        raise NotImplementedError

    @property
    def max_target_length(self) -> int | None:
        """The most tokens that the decoder reads, the start token included; None for any number."""
        raise NotImplementedError

    def check_blind(self, **call_masks: Mask | TensorMask | None) -> None:
        """Check that spans which are blind in one of the call's masks, or the config's, are so wherever it counts.

        Args:
            call_masks: by name, as `as_mask` reads them.

        Raises:
            MaskError: something could read one.
        """
        check_blind(*self.mask_compilers, **call_masks)

    def _validate_model_kwargs(self, model_kwargs: dict) -> None:
        check_not_packed(model_kwargs)
        known = keywords_of(type(self).forward) | set(signature(GenerationMixin.generate).parameters)
        check_keywords({name: value for name, value in model_kwargs.items() if value is not None}, known, ValueError)
        super()._validate_model_kwargs(model_kwargs)

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs
    ) -> tuple[GenerationConfig, dict]:
        """As Transformers merges the settings.

        Raises:
            ValueError: a number of sequences that is not one.
        """
        settings, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        for name in ("num_beams", "num_return_sequences"):
            value = getattr(settings, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        return settings, model_kwargs

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

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        encoder_mask: MaskLike | None = None,
        decoder_mask: MaskLike | None = None,
        cross_mask: MaskLike | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        **kwargs,
    ) -> dict:
        """As Transformers prepares them, with this side's tensors counting the cached tokens too.

        The source is encoded by now, so `encoder_mask` is left out.

        Raises:
            MaskError: the target has outgrown a tensor mask whose last row does not repeat.
        """
        # Here the length is known without asking the device; a static cache hides it from the forward pass.
        self.check_tensor_masks(*input_ids.shape, decoder_mask=decoder_mask, cross_mask=cross_mask)
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        extra = {
            "decoder_mask": decoder_mask,
            "cross_mask": cross_mask,
            "decoder_position_ids": decoder_position_ids,
        }
        return {**inputs, **{name: value for name, value in extra.items() if value is not None}}

    def check_tensor_masks(self, batch: int, length: int, **call_masks: MaskLike | None) -> None:
        """Check that tensor masks of the target's side, by name, reach as far as its tokens.

        Raises:
            MaskError: the target has outgrown one whose last row does not repeat.
        """
        heads = {f"{masks.scope}_mask": masks.heads for masks in self.mask_compilers}
        for name, value in call_masks.items():
            mask, may_grow = as_mask(value, name), name == "decoder_mask"
            if isinstance(mask, TensorMask):
                check_fit(
                    mask,
                    name,
                    batch=batch,
                    heads=heads[name],
                    queries=length,
                    keys=length if may_grow else None,
                    may_grow=may_grow,
                )

    def _assisted_decoding(
        self,
        input_ids: torch.LongTensor,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        inputs_tensor: torch.Tensor | None = None,  # named, or Transformers keeps the source from the draft
        **kwargs,
    ) -> GenerateEncoderDecoderOutput | torch.LongTensor:
        """As Transformers does; only what is accepted of a draft has to keep within a tensor mask."""
        kwargs["decoder_mask"] = closed_ahead(input_ids, **kwargs)
        call_masks = {name: kwargs.get(name) for name in ("decoder_mask", "cross_mask")}
        tensors = {name: mask for name, mask in call_masks.items() if isinstance(mask, TensorMask)}
        kwargs |= {name: replace(mask, repeat_last=True) for name, mask in tensors.items()}
        if kwargs.get("decoder_attention_mask") is None:
            # Only by its length does Transformers see that a draft goes on from its cache, and not from nothing.
            kwargs["decoder_attention_mask"] = torch.ones_like(input_ids)
        within = _WithinMasks(partial(self.check_tensor_masks, len(input_ids), **tensors))
        stopping_criteria = StoppingCriteriaList([*stopping_criteria, within])
        kwargs |= {"generation_config": generation_config, "inputs_tensor": inputs_tensor}
        outputs = super()._assisted_decoding(input_ids, stopping_criteria=stopping_criteria, **kwargs)
        return _finished(outputs, generation_config)

    def _prepare_decoder_input_ids_for_generation(
        self, batch_size: int, model_input_name: str, model_kwargs: dict, *args, **kwargs
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
        """As Transformers repeats rows for beams, masks read once; of the source, each example keeps one row."""
        call_masks = {name: as_mask(model_kwargs.pop(name), name) for name in MASKS if name in model_kwargs}
        model_kwargs["encoder_outputs"] = encoded = CrossMaskEncoderOutput.of(model_kwargs["encoder_outputs"])
        self.check_blind(**{**call_masks, "encoder_mask": encoded.made_under(call_masks.get("encoder_mask"))})
        if expand_size > 1:
            model_kwargs.setdefault("example_ids", self.rows_of(input_ids, model_kwargs))
            if (cache := model_kwargs.get("past_key_values")) is not None:
                repeat_target(cache, expand_size * len(model_kwargs["example_ids"]))
        source = {name: model_kwargs.pop(name) for name in SOURCE if name in model_kwargs}
        for name, mask in call_masks.items():
            if name != "encoder_mask" and isinstance(mask, TensorMask) and len(mask.allowed) > 1:
                call_masks[name] = replace(mask, allowed=mask.allowed.repeat_interleave(expand_size, dim=0))
        input_ids, expanded = super()._expand_inputs_for_generation(expand_size, False, input_ids, **model_kwargs)
        return input_ids, {**expanded, **source, **call_masks}

    def _sample(self, input_ids: torch.LongTensor, *args, generation_config: GenerationConfig, **kwargs):
        if kwargs.get("use_cache") is False and kwargs.get("past_key_values") is None:
            kwargs["decoder_mask"] = closed_ahead(input_ids, **kwargs)
        outputs = super()._sample(input_ids, *args, generation_config=generation_config, **kwargs)
        return _finished(outputs, generation_config)

    def _beam_search(self, input_ids: torch.LongTensor, *args, generation_config: GenerationConfig, **kwargs):
        """As Transformers does. Of the cache, each example's first rows are those of its returned sequences."""
        recurrent = False
        if kwargs.get("use_cache") is False and kwargs.get("past_key_values") is None:
            kwargs["decoder_mask"] = closed_ahead(input_ids, **kwargs)
        elif generation_config.return_dict_in_generate and kwargs.get("past_key_values") is not None:
            cache = read_cache(kwargs["past_key_values"], self.config, wanted=False)
            kwargs["past_key_values"] = cache
            # Recurrent states before the last step are gone, so there is nothing to go on from.
            recurrent = is_recurrent(cache.self_attention_cache)
            if not recurrent:
                cache.last_rows = []
        outputs = super()._beam_search(input_ids, *args, generation_config=generation_config, **kwargs)
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
                (layer.keys, layer.values) for layer in past_key_values.self_attention_cache.layers
            ]
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


def _finished(outputs: torch.Tensor | ModelOutput, settings: GenerationConfig) -> torch.Tensor | ModelOutput:
    """What a decoding loop returned, with a cache that has a row for every row of the target, and the call's ends.

    Attributes that are set:
        special_token_ids: the call's padding, and the set of tokens that end a sequence.
    """
    if isinstance(outputs, ModelOutput):
        pad, ends = settings._pad_token_tensor, settings._eos_token_tensor
        ends = set() if ends is None else set(ends.flatten().tolist())
        outputs.special_token_ids = (None if pad is None else int(pad), ends)
        if outputs.get("past_key_values") is not None:
            outputs.past_key_values = repeat_source(outputs.past_key_values)
    return outputs


class _WithinMasks(StoppingCriteria):
    """Stops nothing, but checks the tensor masks against what the decoder has read of the tokens accepted so far."""

    def __init__(self, check: Callable[[int], None]):
        self.check = check

    def __call__(self, input_ids: torch.LongTensor, scores: tuple | None, **kwargs) -> torch.BoolTensor:
        self.check(input_ids.shape[1] - 1)  # nobody has read the last one yet
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
