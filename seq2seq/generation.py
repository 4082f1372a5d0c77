"""What `generate()` needs to know of masks; the decoding loop itself is Transformers'."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from transformers import GenerationConfig, GenerationMixin, StoppingCriteria, StoppingCriteriaList

from ..masks.expressions import Mask, MaskError
from ..masks.scope import SCOPES
from ..masks.tensor_mask import MaskLike, TensorMask, as_mask, check_fit
from .call_checks import check_not_packed
from .encoder_output import CrossMaskEncoderOutput
from .mask_compiler import LayerMasks, check_blind
from .token_ids import check_ids_on_accelerator

MASKS = tuple(f"{scope}_mask" for scope in SCOPES)


class MaskedGenerationMixin(GenerationMixin):
    """Keeps rules and tensor masks right from the first to the last step, whatever the cache and the decoding mode.

    A model says what its masks are (`mask_compilers`), under which of them a source was encoded (`encoder_mask_of`),
    and how long its targets may be (`max_target_length`). Its `forward` takes the masks, and `example_ids`.
    """

    config: Any  # each model has a class of its own
    generation_config: GenerationConfig
    main_input_name: str
    forward: Callable[..., Any]
    get_encoder: Callable[[], Any]
    get_decoder: Callable[[], Any]

    @property
    def mask_compilers(self) -> tuple[LayerMasks, LayerMasks, LayerMasks]:
        """The masks of the encoder, of the decoder and of the interactive attention."""
        raise NotImplementedError

    @property
    def max_target_length(self) -> int | None:
        """The most tokens that the decoder reads, the start token included; None for any number."""
        raise NotImplementedError

    def encoder_mask_of(
        self, encoder_outputs: Any, encoder_mask: Mask | TensorMask | None
    ) -> Mask | TensorMask | None:
        """The mask of a call under which a source was encoded.

        Args:
            encoder_outputs: of the encoder. encoder_mask: the call's, as `as_mask` reads it.

        Raises:
            ValueError: the output was made under another mask than the call's, which would have no effect.
        """
        raise NotImplementedError

    def check_blind(self, **call_masks: Mask | TensorMask | None) -> None:
        """Check that spans which are blind in one of the call's masks, or the config's, are so wherever it counts.

        Args:
            call_masks: by name, as `as_mask` reads them.

        Raises:
            MaskError: something could read one.
        """
        encoder, decoder, cross = self.mask_compilers
        check_blind(encoder, decoder, cross, **call_masks)

    def _validate_model_kwargs(self, model_kwargs: dict) -> None:
        check_not_packed(model_kwargs)
        mask = model_kwargs.get("attention_mask")
        if mask is not None and not isinstance(mask, torch.Tensor):
            raise MaskError(
                f"the attention mask must be a torch tensor, got {type(mask).__name__}; write torch.as_tensor(...)"
            )
        prompts = model_kwargs.get("decoder_input_ids")
        check_ids_on_accelerator("decoder_input_ids", self.get_decoder(), prompts)
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

    def _maybe_initialize_input_ids_for_generation(
        self, inputs: torch.Tensor | None, bos_token_id: torch.Tensor | None, model_kwargs: dict[str, Any]
    ) -> torch.LongTensor:
        """What stands for the source's ids where its encoder's output is given, a tuple too; never a source made up.

        Raises:
            ValueError: there is no source, or it is not a tensor.
        """
        if inputs is not None:
            if not isinstance(inputs, torch.Tensor):
                raise ValueError(
                    f"{self.main_input_name} must be a torch tensor, got {type(inputs).__name__}; write "
                    "torch.as_tensor(...)"
                )
            check_ids_on_accelerator(self.main_input_name, self.get_encoder(), inputs)
            return cast(torch.LongTensor, inputs)
        encoder_outputs = model_kwargs.get("encoder_outputs")
        if encoder_outputs is None:
            names = "input_ids, inputs_embeds" if self.main_input_name == "input_ids" else self.main_input_name
            raise ValueError(f"generate() must have a source, got none; give {names} or encoder_outputs")
        states: Any = CrossMaskEncoderOutput.of(encoder_outputs).last_hidden_state
        return cast(torch.LongTensor, torch.full(states.shape[:2], -100, device=states.device))

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
        for name in ("tokenizer", "assistant_tokenizer"):  # of stop strings and drafts; Transformers passes them on
            kwargs.pop(name, None)
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
        given = {name: as_mask(value, name) for name, value in call_masks.items()}
        tensors = {name: mask for name, mask in given.items() if isinstance(mask, TensorMask)}
        if not tensors:
            return
        heads = {f"{masks.scope}_mask": masks.heads for masks in self.mask_compilers}
        for name, mask in tensors.items():
            may_grow = name == "decoder_mask"
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
    ) -> Any:
        """As Transformers does; only what is accepted of a draft has to keep within a tensor mask."""
        call_masks = {name: kwargs.get(name) for name in ("decoder_mask", "cross_mask")}
        tensors: dict[str, Any] = {name: mask for name, mask in call_masks.items() if isinstance(mask, TensorMask)}
        if tensors:
            kwargs |= {name: replace(mask, repeat_last=True) for name, mask in tensors.items()}
            within = _WithinMasks(partial(self.check_tensor_masks, len(input_ids), **tensors))
            stopping_criteria = StoppingCriteriaList([*stopping_criteria, within])
        kwargs |= {"generation_config": generation_config, "inputs_tensor": inputs_tensor}
        return super()._assisted_decoding(input_ids, stopping_criteria=stopping_criteria, **kwargs)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs,
    ) -> tuple[torch.LongTensor, dict]:
        """As Transformers repeats rows for beams. Masks are read once, and repeated where they have a row for each."""
        call_masks = {name: as_mask(model_kwargs.pop(name), name) for name in MASKS if name in model_kwargs}
        encoder_outputs: Any = model_kwargs.get("encoder_outputs")
        encoder_mask = self.encoder_mask_of(encoder_outputs, call_masks.get("encoder_mask"))
        self.check_blind(**{**call_masks, "encoder_mask": encoder_mask})
        if expand_size > 1:
            rows = input_ids if input_ids is not None else encoder_outputs[0]
            model_kwargs.setdefault("example_ids", torch.arange(len(rows), device=rows.device))
        for name, mask in call_masks.items():
            if name != "encoder_mask" and isinstance(mask, TensorMask) and len(mask.allowed) > 1:
                call_masks[name] = replace(mask, allowed=mask.allowed.repeat_interleave(expand_size, dim=0))
        input_ids, expanded = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return input_ids, {**expanded, **call_masks}


class _WithinMasks(StoppingCriteria):
    """Stops nothing, but checks the tensor masks against what the decoder has read of the tokens accepted so far."""

    def __init__(self, check: Callable[[int], None]):
        self.check = check

    def __call__(self, input_ids: torch.LongTensor, scores: tuple | None, **kwargs) -> torch.BoolTensor:
        self.check(input_ids.shape[1] - 1)  # nobody has read the last one yet
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
