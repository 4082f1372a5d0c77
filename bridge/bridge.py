"""The model: an encoder, a causal language model, and blocks of interactive attention between the decoder's layers.

- what is between the layers, and how a call reaches it: `blocks.py`, `joined_layers.py`
- the masks of both parts in the form in which Transformers' models take them: `../seq2seq/foreign_masks.py`
- which models can be joined: `parts.py`
"""

from typing import Any, Unpack

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationConfig, PreTrainedModel, initialization
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import TransformersKwargs, can_return_tuple

from ..configuration.bridge import PARTS, CrossMaskBridgeConfig
from ..masks.rules import causal
from ..masks.target_layout import lay_out_target
from ..masks.tensor_mask import MaskLike, as_mask
from ..seq2seq.agreement import loss_functions
from ..seq2seq.beam_sharing import lay_out_shared_source, rows_per_source
from ..seq2seq.cache import cached_sizes, is_recurrent, read_cache
from ..seq2seq.call_checks import check_keywords, checked_call
from ..seq2seq.call_masks import read_call_masks
from ..seq2seq.cpu_ops import Dropout
from ..seq2seq.current_call import CurrentCall
from ..seq2seq.decoder_inputs import shift_right
from ..seq2seq.distillation import Distillation
from ..seq2seq.interactive_attention import InteractiveAttention
from ..seq2seq.labels import check_labels, inputs_from_labels
from ..seq2seq.mask_compiler import LayerMasks
from ..seq2seq.passage_attribution import ProvenanceMixin
from ..seq2seq.pretrained_parts import build_encoder, encoder_of, recording_of
from ..seq2seq.shared_source_generation import SharedSourceGenerationMixin
from ..seq2seq.simultaneous.session import StreamingMixin, TranslationStream
from .blocks import BridgeBlock
from .decoding import DecoderSide
from .encoding import EncoderSide
from .joined_layers import BridgeCall, join
from .parts import build_decoder, check_parts


class CrossMaskBridgeForConditionalGeneration(
    PreTrainedModel, SharedSourceGenerationMixin, StreamingMixin, ProvenanceMixin
):
    """Any text encoder and any causal language model as one encoder-decoder under masks.

    ```python
    >>> model = CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained(
    ...     "sentence-transformers/all-MiniLM-L6-v2", "HuggingFaceTB/SmolLM2-135M", bridge_layers=3
    ... )
    ```

    Before training the blocks are closed: the logits are the decoder's own, to the bit.

    Attributes:
        encoder, decoder: the two models. bridge: the blocks.
    """

    config: CrossMaskBridgeConfig
    encoder: PreTrainedModel
    decoder: PreTrainedModel
    bridge: nn.ModuleList
    encoder_masks: LayerMasks
    self_masks: LayerMasks
    cross_masks: LayerMasks
    current_call: CurrentCall[BridgeCall]
    config_class = CrossMaskBridgeConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(
        self,
        config: CrossMaskBridgeConfig,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
    ):
        """
        Args:
            encoder, decoder: models to take as they are; new ones with random weights by default.

        Raises:
            ValueError: they cannot be joined; both are then as they were.
        """
        super().__init__(config)
        given = [part for part in (encoder, decoder) if part is not None]
        encoder = build_encoder(config.encoder) if encoder is None else encoder
        decoder = build_decoder(config.decoder) if decoder is None else decoder
        check_parts(encoder, decoder)
        # One config each, or a change of the attention implementation would reach one of two.
        config.encoder, config.decoder = encoder.config, decoder.config
        self.encoder, self.decoder = encoder, decoder
        width = encoder.config.get_text_config(encoder=True).hidden_size
        self.bridge = nn.ModuleList(
            [BridgeBlock(config, index, width) for index in range(len(config.block_layers))]
        ).to(device=decoder.device, dtype=decoder.dtype)
        self.decoder_dropout = Dropout(config.decoder_dropout)
        self.encoder_masks, self.self_masks, self.cross_masks = (
            LayerMasks(config, scope, layers=layers, heads=heads, own=causal() if scope == "decoder" else None)
            for scope, (layers, heads) in config.mask_sizes().items()
        )
        self.encoder_side = EncoderSide(self)
        self.decoder_side = DecoderSide(self)
        self._is_stateful = decoder._is_stateful  # then a draft cannot be taken back
        self._no_split_modules = ["BridgeBlock", *_no_split(encoder), *_no_split(decoder)]
        # Nothing fails from here on, so that models which cannot be joined stay as they were.
        for part in given:
            for module in part.modules():
                module._is_hf_initialized = True  # they keep their weights
        self.current_call = join(decoder, config.block_layers)
        self.post_init()

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder: str | PreTrainedModel,
        decoder: str | PreTrainedModel,
        *,
        encoder_kwargs: dict[str, Any] | None = None,
        decoder_kwargs: dict[str, Any] | None = None,
        **config_fields: Any,
    ) -> "CrossMaskBridgeForConditionalGeneration":
        """Join two pretrained models, or two that are in memory already.

        Args:
            encoder, decoder: what `AutoModel.from_pretrained` and `AutoModelForCausalLM.from_pretrained` take, or
                models. Of an encoder-decoder the encoder is taken.
            encoder_kwargs, decoder_kwargs: further arguments of `from_pretrained`, `dtype` for instance.
            config_fields: fields of [`CrossMaskBridgeConfig`], such as `bridge_layers`, `gate` or `cross_mask`.

        Raises:
            ValueError: models that cannot be joined; those given are then as they were.
            StrictDataclassError: fields that do not fit the models; these are then as they were.
            TypeError: a field of another name.
        """
        check_keywords(config_fields, set(CrossMaskBridgeConfig.__annotations__) - set(PARTS), TypeError)
        if isinstance(encoder, str):
            encoder = AutoModel.from_pretrained(encoder, **(encoder_kwargs or {}))
        elif encoder_kwargs:
            raise ValueError("encoder_kwargs must be left out where encoder is a model: they are for loading one")
        if isinstance(decoder, str):
            decoder = AutoModelForCausalLM.from_pretrained(decoder, **(decoder_kwargs or {}))
        elif decoder_kwargs:
            raise ValueError("decoder_kwargs must be left out where decoder is a model: they are for loading one")
        encoder = encoder_of(encoder)
        check_parts(encoder, decoder)
        config = CrossMaskBridgeConfig(encoder=encoder.config, decoder=decoder.config, **config_fields)
        model = cls(config, encoder, decoder)
        model.generation_config = GenerationConfig.from_model_config(config)
        # A decoder's config says false where Trainer trained it, and its own generation config true.
        model.generation_config.use_cache = decoder.generation_config is None or decoder.generation_config.use_cache
        return model.eval()

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save as Transformers does; arguments as there.

        Raises:
            ValueError: a part is quantised, as one that was loaded from a GGUF file: it would not load again.
        """
        for part in PARTS:
            if getattr(getattr(self, part), "hf_quantizer", None) is not None:
                raise ValueError(
                    f"{part} must not be quantised where it is saved, got one that was loaded so; call "
                    f"model.{part}.dequantize(), or where its weights are plain numbers, as of a GGUF file, "
                    f"model.{part}.hf_quantizer.remove_quantization_config(model.{part})"
                )
        super().save_pretrained(*args, **kwargs)

    @property
    def mask_compilers(self) -> tuple[LayerMasks, LayerMasks, LayerMasks]:
        return self.encoder_masks, self.self_masks, self.cross_masks

    @property
    def max_target_length(self) -> int | None:
        return self.decoder_side.max_length

    @property
    def max_source_length(self) -> int | None:
        return self.encoder_side.max_length

    @property
    def cross_attentions(self) -> list[InteractiveAttention]:
        return [block.cross_attn for block in self.bridge]

    @property
    def encodes_in_parts(self) -> bool:
        return "encoder_mask" in self.encoder_side.foreign.arguments  # an encoder of ours

    def encode(self, input_ids: torch.Tensor, encoder_mask: MaskLike | None = None, **options: Any):
        return self.encoder_side.encode(input_ids, None, as_mask(encoder_mask, "encoder_mask"), **options)

    def open_stream(self, batch: int = 1, **options: Any) -> TranslationStream:
        """As for every model that streams.

        Raises:
            ValueError: a decoder with recurrent layers, whose states also count tokens that are taken back.
        """
        if is_recurrent(DynamicCache(config=self.decoder.config)):
            raise ValueError(
                f"a stream must have a decoder whose layers are all attention, got {type(self.decoder).__name__}, "
                "which has recurrent ones; call generate() on what has arrived"
            )
        return super().open_stream(batch, **options)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if getattr(module, "starts_at_zero", False):
            initialization.zeros_(module.weight)
        elif isinstance(module, BridgeBlock) and module.gate is not None:
            initialization.zeros_(module.gate)

    def get_encoder(self, modality: str | None = None) -> PreTrainedModel:
        return self.encoder

    def get_decoder(self) -> PreTrainedModel:
        return self.decoder

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.decoder.set_output_embeddings(new_embeddings)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Refused: the parts have vocabularies of their own.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "resize_token_embeddings must be called on one part: model.encoder.resize_token_embeddings(...) or "
            "model.decoder.resize_token_embeddings(...)"
        )

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """(B, T) labels to (B, T) decoder inputs; collators call this."""
        return shift_right(labels, self.config.decoder_start_token_id, self.config.pad_token_id)

    @checked_call
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_mask: MaskLike | None = None,
        decoder_mask: MaskLike | None = None,
        cross_mask: MaskLike | None = None,
        segment_ids: torch.LongTensor | None = None,
        decoder_segment_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        passage_ids: torch.LongTensor | None = None,
        example_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        smoothing: float = 0.0,
        skip_logits: bool = False,
        r_drop: float = 0.0,
        distillation: Distillation | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqLMOutput:
        """Encode the source, unless `encoder_outputs` has it, decode, and compute the loss where there are labels.

        Args:
            input_ids: (B, S) int64. attention_mask: (B, S), 1 for tokens and 0 for padding.
            decoder_input_ids: (B, T) int64. decoder_attention_mask: (B, P + T), counting P cached tokens.
            encoder_mask, decoder_mask, cross_mask: and-ed with the config's and with what the parts forbid by
                themselves: a mask, its text, or a boolean tensor (B, S), (B, T, S) or (B, H, T, S), True = allowed.
            segment_ids, decoder_segment_ids: (B, S) and (B, P + T) int64 of packed rows, 0 for padding.
            position_ids, decoder_position_ids: (B, S) and (B, P + T) int64; counted inside each segment by default.
            passage_ids: (B, S) int64, one number from 0 up for each passage of an example, for masks that ask for it.
            example_ids: (B,) int64, ascending, which row of the encoder's batch each row of the decoder's belongs to.
            token_type_ids: (B, S) int64, for encoders that have them.
            inputs_embeds, decoder_inputs_embeds: instead of ids.
            labels, logits_to_keep, num_items_in_batch, smoothing, r_drop, distillation: as in
                `CrossMaskForConditionalGeneration.forward`.
            skip_logits: leave the logits out of the output, where only the loss is wanted.

        Raises:
            ValueError: inputs that are missing, too long, or do not fit together; masks that a part cannot be given.
            TypeError: an argument of another name.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids, decoder_attention_mask = inputs_from_labels(
                self, labels, decoder_attention_mask, decoder_segment_ids, past_key_values
            )
        inputs = decoder_input_ids if decoder_inputs_embeds is None else decoder_inputs_embeds
        if inputs is None or (decoder_input_ids is not None and decoder_inputs_embeds is not None):
            raise ValueError("give one of decoder_input_ids and decoder_inputs_embeds, or labels to make them from")
        if labels is not None:
            check_labels(labels, inputs, logits_to_keep, self.config.vocab_size, smoothing, r_drop)
        kwargs |= recording_of(self.config, kwargs)
        call_masks, encoder_outputs = read_call_masks(
            self.mask_compilers,
            encoder_outputs,
            encoder_mask=encoder_mask,
            decoder_mask=decoder_mask,
            cross_mask=cross_mask,
        )
        source = {"attention_mask": attention_mask, "segment_ids": segment_ids, "position_ids": position_ids}
        source["passage_ids"] = passage_ids
        if encoder_outputs is None:
            encoder_outputs = self.encoder_side.encode(
                input_ids, inputs_embeds, call_masks["encoder_mask"], token_type_ids=token_type_ids, **source, **kwargs
            )
        states = encoder_outputs[0]
        batch, length = inputs.shape[:2]
        use_cache = self.decoder_side.uses_cache if use_cache is None else use_cache
        cache = read_cache(past_key_values, bool(use_cache) and not self.training, self.decoder.config)
        own_cache = None if cache is None else cache.self_attention_cache
        target = lay_out_target(
            length,
            *cached_sizes(own_cache, length),
            inputs.device,
            batch=batch,
            examples=example_ids,
            attention_mask=decoder_attention_mask,
            segment_ids=decoder_segment_ids,
            position_ids=decoder_position_ids,
        )
        rows = batch if example_ids is None else example_ids
        cross_masks = self.cross_masks.compile(
            call_masks["cross_mask"],
            target.query,
            lay_out_shared_source(states.shape[1], states.device, batch, rows, **source),
            batch=batch,
            rows=target.rows,
            seen=target.seen,
            training=self.training,
            beams_per_source=rows_per_source(batch, len(states), cache),
        )
        dropout = self.decoder_dropout if self.training and self.config.decoder_dropout else None
        call = BridgeCall(self.bridge, (batch, length), states, cross_masks, cache, dropout)
        with self.current_call.of(call):
            decoded = self.decoder_side.decode(
                decoder_input_ids,
                decoder_inputs_embeds,
                target,
                call_masks["decoder_mask"],
                attention_mask=decoder_attention_mask,
                past_key_values=own_cache,
                logits_to_keep=logits_to_keep,
                **kwargs,
            )
        if len(call.weights) != len(self.bridge) and not (self.training and self.is_gradient_checkpointing):
            raise ValueError(
                f"bridge_layers must be layers that {type(self.decoder).__name__} runs once in every call, but "
                f"{len(call.weights)} blocks ran of {len(self.bridge)}; give others"
            )
        logits = decoded["logits"]
        loss = None
        if labels is not None:
            by_logits, _ = loss_functions(labels, r_drop, distillation)
            loss = by_logits(logits, num_items_in_batch=num_items_in_batch, label_smoothing=smoothing)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=None if labels is not None and skip_logits else logits,
            past_key_values=cache,
            decoder_hidden_states=decoded.get("hidden_states"),
            decoder_attentions=decoded.get("attentions"),
            cross_attentions=_weights(call) if kwargs.get("output_attentions") else None,
            encoder_last_hidden_state=states,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )

    def _prepare_text_encoder_decoder_kwargs_for_generation(
        self,
        inputs_tensor: torch.Tensor,
        model_kwargs: dict[str, Any],
        model_input_name: str | None,
        generation_config: GenerationConfig,
    ) -> dict[str, Any]:
        """As Transformers does, by an encoder that takes masks."""
        names = ("attention_mask", "position_ids", "passage_ids", "token_type_ids")
        given = {name: model_kwargs[name] for name in names if model_kwargs.get(name) is not None}
        ids, embeds = (inputs_tensor, None) if model_input_name != "inputs_embeds" else (None, inputs_tensor)
        mask = as_mask(model_kwargs.get("encoder_mask"), "encoder_mask")
        wanted = {
            "output_attentions": generation_config.output_attentions,
            "output_hidden_states": generation_config.output_hidden_states,
        }
        model_kwargs["encoder_outputs"] = self.encoder_side.encode(ids, embeds, mask, **given, **wanted)
        model_kwargs.pop("token_type_ids", None)
        return model_kwargs

    def _prepare_static_cache(self, *args: Any, **kwargs: Any) -> EncoderDecoderCache:
        """As Transformers does; only the source has no recurrent layers of the decoder's."""
        decoder: Any = self.decoder
        return EncoderDecoderCache(decoder._prepare_static_cache(*args, **kwargs), DynamicCache())

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """As Transformers does; only the source has no windows of the decoder's, and one entry a block."""
        given: Cache | None = model_kwargs.get("past_key_values")
        dynamic = generation_config.cache_implementation in (None, "dynamic")
        if given is None and dynamic and generation_config.use_cache is not False:
            # Transformers' own asks each layer of the decoder for keys, and recurrent ones have none.
            model_kwargs["past_key_values"] = read_cache(None, True, self.decoder.config)
            if generation_config.is_assistant:
                model_kwargs["past_key_values"].activate_past_recording()
            return
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        made = model_kwargs.get("past_key_values")
        if given is None and isinstance(made, EncoderDecoderCache):
            model_kwargs["past_key_values"] = EncoderDecoderCache(made.self_attention_cache, DynamicCache())
            if generation_config.is_assistant:
                model_kwargs["past_key_values"].activate_past_recording()


def _no_split(model: PreTrainedModel) -> list[str]:
    return list(model._no_split_modules or [])


def _weights(call: BridgeCall) -> tuple[torch.Tensor | None, ...]:
    """The weights of each block; none at all where the attention implementation keeps them to itself."""
    return () if None in call.weights else tuple(call.weights)
