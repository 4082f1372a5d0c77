"""ONNX graphs as a model of Transformers: `generate()` decodes, onnxruntime computes."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.generation import GenerationMode
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from ..configuration.crossmask import CrossMaskConfig
from ..masks.tensor_mask import MaskLike, TensorMask, as_mask, check_fit, describe, rows_for
from ..modeling.pretrained import CrossMaskPreTrainedModel
from ..seq2seq.call_checks import checked_call
from ..seq2seq.encoder_output import CrossMaskEncoderOutput
from ..seq2seq.mask_compiler import LayerMasks
from ..seq2seq.shared_source_generation import SharedSourceGenerationMixin
from ..seq2seq.unfinished_rows import UnfinishedRows
from ..utils.errors import InputError
from .call_checks import check_attention_mask, check_source, check_target
from .onnx_export import mask_inputs
from .onnx_graphs import DECODER, ENCODER, cache_names
from .onnx_session import open_session, run_session


class OnnxModel(CrossMaskPreTrainedModel, SharedSourceGenerationMixin):
    """The graphs that `save_onnx` wrote, with greedy decoding, beam search and sampling by `generate()`.

    Masks of the config are in the graphs. A call may give tensors as masks; a rule is refused, since it would have to
    be in the graphs.

    Args:
        folder: has the graphs. config: of the model that was exported. generation: its settings of generation.
        threads: of onnxruntime, its own choice by default. suffix: of the files' names.

    Raises:
        InputError: a file that cannot be loaded. MissingLibraryError: onnxruntime is not installed.
    """

    def __init__(
        self,
        folder: Path,
        config: CrossMaskConfig,
        generation: GenerationConfig | None = None,
        *,
        threads: int | None = None,
        suffix: str = "",
    ):
        super().__init__(config)
        if generation is not None:
            self.generation_config = generation
        sessions = (open_session(folder / f"{name}{suffix}.onnx", threads) for name in (ENCODER, DECODER))
        self.encoder, self.session = OnnxEncoder(config, next(sessions)), next(sessions)
        layers, heads = config.decoder_layers, config.num_attention_heads
        sizes = {"encoder": config.encoder_layers, "decoder": layers, "cross": layers}
        self._masks: Any = tuple(
            LayerMasks(config, scope, layers=count, heads=heads)  # type: ignore[arg-type]
            for scope, count in sizes.items()
        )
        self._takes_source = "encoder_attention_mask" in {value.name for value in self.session.get_inputs()}
        self._past, self._present = (cache_names(layers, prefix) for prefix in ("past_key_values", "present"))

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def mask_compilers(self) -> tuple[LayerMasks, LayerMasks, LayerMasks]:
        compilers: tuple[LayerMasks, LayerMasks, LayerMasks] = self._masks
        return compilers

    @property
    def max_target_length(self) -> int:
        return self.config.max_position_embeddings

    @property
    def max_source_length(self) -> int:
        return self.config.max_position_embeddings

    def get_encoder(self, *args: Any, **kwargs: Any) -> nn.Module:
        return self.encoder

    def get_input_embeddings(self) -> nn.Module:
        """Of the right number of embeddings, without weights."""
        return nn.Embedding(self.config.vocab_size, 1, device="meta")

    def _validate_model_kwargs(self, model_kwargs: dict) -> None:
        for name in ("encoder_mask", "decoder_mask", "cross_mask"):
            read_tensor(model_kwargs.get(name), name, self.config)
        super()._validate_model_kwargs(model_kwargs)

    def _prepare_generation_config(self, *args: Any, **kwargs: Any) -> tuple[GenerationConfig, dict]:
        settings, model_kwargs = super()._prepare_generation_config(*args, **kwargs)
        if settings.use_cache is False:
            raise InputError("use_cache must be true: the decoder's graph has the cache; leave it out")
        _check_outputs(vars(settings))
        return settings, model_kwargs

    def unfinished_rows(self, *args: Any, **kwargs: Any) -> UnfinishedRows | None:
        """As for every network; all rows are computed where several have one source, of which each has a copy here."""
        found = super().unfinished_rows(*args, **kwargs)
        return found if found is not None and found.rows_per_example == 1 else None

    def _validate_generation_mode(self, generation_mode: GenerationMode, *args: Any, **kwargs: Any) -> None:
        if generation_mode == GenerationMode.ASSISTED_GENERATION:
            raise InputError(
                "assistant_model, assistant_early_exit, prompt_lookup_num_tokens and use_mtp must be left out: graphs "
                "take no drafts; decode greedily"
            )
        super()._validate_generation_mode(generation_mode, *args, **kwargs)  # type: ignore[misc]

    @checked_call
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_mask: MaskLike | None = None,
        decoder_mask: MaskLike | None = None,
        cross_mask: MaskLike | None = None,
        example_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Encode the source, unless `encoder_outputs` has it, and decode.

        Args:
            input_ids, attention_mask: (B, S) int64. decoder_input_ids: (B, T) int64.
            decoder_attention_mask: (B, P + T), all ones: the graph has no padding in the target.
            encoder_mask, decoder_mask, cross_mask: boolean tensors, and-ed with the masks in the graphs.
            example_ids: (B * G,) int64, which row of the source each row of the target belongs to.
            past_key_values: what the last call returned.
            logits_to_keep: this many logits, the last ones; 0 for all.

        Raises:
            InputError: a mask that is not in the graphs, or padding in the target.
            ValueError: ids or an attention mask that the exported model refuses too.
        """
        _check_outputs(kwargs)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, encoder_mask=encoder_mask)
        if decoder_attention_mask is not None and not bool(decoder_attention_mask.all()):
            raise InputError(
                "decoder_attention_mask must be all ones, since the decoder's graph has no padding in the target; "
                "give prefixes of one length"
            )
        if decoder_input_ids is None:
            raise InputError("decoder_input_ids must be given, got None; call generate() to decode from the start")
        states: Any = CrossMaskEncoderOutput.of(encoder_outputs).last_hidden_state
        if attention_mask is None:
            attention_mask = torch.ones(states.shape[:2], dtype=torch.long)
        length = states.shape[1] if self.config.memory_length is None else attention_mask.shape[-1]
        attention_mask = check_attention_mask(attention_mask, len(states), length)
        if example_ids is not None and len(example_ids) != len(states):
            states, attention_mask = states[example_ids], attention_mask[example_ids]
        if len(decoder_input_ids) != len(states):
            raise InputError(
                f"decoder_input_ids must have a row for each of {len(states)} sources, got {len(decoder_input_ids)}"
            )
        cache = past_key_values if past_key_values is not None else EncoderDecoderCache(DynamicCache(), DynamicCache())
        past = self._tensors(cache, len(decoder_input_ids))
        cached = past[0].shape[2]
        check_target(self.config, decoder_input_ids, cached)
        new = decoder_input_ids.shape[1]
        feed: dict[str, torch.Tensor] = {"input_ids": decoder_input_ids.long(), "encoder_hidden_states": states}
        if self._takes_source:
            feed["encoder_attention_mask"] = attention_mask.long()
        rows, batch = torch.arange(cached, cached + new), len(decoder_input_ids)
        sizes: dict[str, Any] = {"batch": batch, "heads": self.config.num_attention_heads, "queries": cached + new}
        for name, mask, columns in (
            ("decoder_mask", decoder_mask, cached + new),
            ("cross_mask", cross_mask, attention_mask.shape[1]),
        ):
            if (given := read_tensor(mask, name, self.config)) is not None:
                check_fit(given, name, **sizes, keys=columns, may_grow=name == "decoder_mask")
                feed[name] = rows_for(given, rows=rows, columns=columns)
        logits, *present = run_session(self.session, {**feed, **dict(zip(self._past, past, strict=True))})
        self._store(cache, present)
        return Seq2SeqLMOutput(
            logits=logits[:, -logits_to_keep:],
            past_key_values=None if use_cache is False else cache,
            encoder_last_hidden_state=states,
        )

    def _tensors(self, cache: EncoderDecoderCache, batch: int) -> list[torch.Tensor]:
        """The inputs of the cache, in their order; empty ones where nothing is cached."""
        sides: list[list[Any]] = [cache.self_attention_cache.layers, cache.cross_attention_cache.layers]
        if not sides[0] or not sides[0][0].is_initialized:
            config: Any = self.config
            return [torch.zeros(batch, config.num_key_value_heads, 0, config.head_dim) for _ in self._past]
        return [
            tensor for layers in zip(*sides, strict=True) for layer in layers for tensor in (layer.keys, layer.values)
        ]

    def _store(self, cache: EncoderDecoderCache, present: list[torch.Tensor]) -> None:
        """Put what the graph gave into the cache, in the place of what was in it."""
        for side, first in ((cache.self_attention_cache, 0), (cache.cross_attention_cache, 2)):
            for index, (key, value) in enumerate(zip(present[first::4], present[first + 1 :: 4], strict=True)):
                if len(side.layers) <= index:
                    side.layers.append(DynamicLayer())
                layer: Any = side.layers[index]
                layer.keys, layer.values, layer.is_initialized = key, value, True
                layer.dtype, layer.device = key.dtype, key.device


class OnnxEncoder(nn.Module):
    """The encoder's graph, with the arguments of an encoder of Transformers."""

    main_input_name = "input_ids"

    def __init__(self, config: CrossMaskConfig, session: Any):
        super().__init__()
        self.config, self.session = config, session

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        encoder_mask: MaskLike | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CrossMaskEncoderOutput:
        """(B, S) int64 to states (B, S, hidden), or (B, N, hidden) with a memory of N vectors."""
        _check_outputs(kwargs)
        shown = check_source(self.config, input_ids, attention_mask)
        feed = {"input_ids": input_ids.long(), "attention_mask": shown.long()}
        given = read_tensor(encoder_mask, "encoder_mask", self.config)
        if given is not None:
            (batch, length), heads = input_ids.shape, self.config.num_attention_heads
            sizes: dict[str, Any] = {"batch": batch, "heads": heads, "queries": length, "keys": length}
            check_fit(given, "encoder_mask", **sizes, may_grow=False, has_all_rows=True)
            feed["encoder_mask"] = rows_for(given, rows=torch.arange(length), columns=length)
        (states,) = run_session(self.session, feed)
        return CrossMaskEncoderOutput(last_hidden_state=states, encoder_mask=describe(given))


def read_tensor(mask: MaskLike | None, name: str, config: CrossMaskConfig) -> TensorMask | None:
    """A call's mask, which must be a tensor.

    Raises:
        InputError: it is a rule, or of a kind that the graphs do not take.
    """
    if mask is None:
        return None
    if name not in mask_inputs(config):
        raise InputError(f"{name} must be left out: with memory_length the graphs do not take it")
    read = as_mask(mask, name)
    if not isinstance(read, TensorMask):
        raise InputError(
            f"{name} must be a boolean tensor, got the rule {read}, which is not in the graphs; export a model whose "
            f"config has it, or give masks as tensors"
        )
    return read


def _check_outputs(keywords: dict[str, Any]) -> None:
    for name in ("output_attentions", "output_hidden_states"):
        if keywords.get(name):
            raise InputError(f"{name} must be false: the graphs return logits and the cache alone; leave it out")
