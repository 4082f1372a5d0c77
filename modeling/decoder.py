"""The decoder."""

from dataclasses import replace
from typing import Unpack

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..configuration.crossmask import CrossMaskConfig
from ..masks.fast_paths import fast_path_allowed
from ..masks.layout import Layout, lay_out
from ..masks.tensor_mask import MaskLike, as_mask
from .call_checks import check_cache, checked_call
from .interactive_attention import InteractiveAttention, SelfAttention
from .layers import DecoderLayer, EmbeddingProjection, rms_norm
from .mask_compiler import LayerMasks
from .memory import memory_layout
from .pretrained import CrossMaskPreTrainedModel, embed, tensor_parallel_plan


class CrossMaskDecoder(CrossMaskPreTrainedModel):
    """From target tokens and the encoder's output to hidden states."""

    _tp_plan = tensor_parallel_plan("self_attn", "cross_attn")
    _fsdp_plan = {"layers.*": "free_full_weight"}
    _can_record_outputs = {
        "hidden_states": DecoderLayer,
        "attentions": OutputRecorder(SelfAttention, index=1),
        "cross_attentions": OutputRecorder(InteractiveAttention, index=1),
    }

    def __init__(self, config: CrossMaskConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(
            config.vocab_size, config.embedding_size or config.hidden_size, config.pad_token_id
        )
        self.embed_proj = EmbeddingProjection(config)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.layers = nn.ModuleList([DecoderLayer(config, index) for index in range(config.decoder_layers)])
        self.norm = rms_norm(config)
        self.self_masks = LayerMasks(config, "decoder")
        self.cross_masks = LayerMasks(config, "cross")
        self.gradient_checkpointing = False
        self.post_init()
        if config.cross_attention_score == "additive":
            # Each head has a row of the score vector, which no plan splits: its heads stay together.
            self._tp_plan = {name: how for name, how in self._tp_plan.items() if ".cross_attn." not in name}

    @checked_call
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_mask: MaskLike | None = None,
        cross_mask: MaskLike | None = None,
        segment_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        encoder_hidden_states: torch.FloatTensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        encoder_segment_ids: torch.LongTensor | None = None,
        encoder_position_ids: torch.LongTensor | None = None,
        encoder_passage_ids: torch.LongTensor | None = None,
        example_ids: torch.LongTensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Decode. With P cached tokens, this side's (B, P + T) tensors count the cached ones too.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, P + T), 1 for tokens and 0 for padding.
            decoder_mask: and-ed with the config's: a mask, its text, or bool (B, P + T), (B, rows, P + T) or
                (B, H, rows, P + T).
            cross_mask: and-ed with the config's: a mask, its text, or bool (B, S), (B, rows, S), (B, H, rows, S).
            segment_ids, position_ids: (B, P + T) int64.
            encoder_hidden_states: (B, S, hidden); or (B / G, S, hidden), and so are the tensors beside it, where each
                row of the source serves G rows in turn, as the hypotheses of a beam search.
            encoder_attention_mask, encoder_segment_ids, encoder_position_ids, encoder_passage_ids: (B, S), as the
                encoder had them.
            example_ids: (B,) int64, ascending, which row of the encoder's batch each row belongs to; each its own by
                default.
            inputs_embeds: (B, T, E), instead of `input_ids`.

        Raises:
            ValueError: inputs that are missing, too long, or do not fit together.
        """
        if encoder_hidden_states is None:
            raise ValueError(
                "the decoder needs encoder_hidden_states, or the model one of input_ids and encoder_outputs"
            )
        if (segment_ids is None) != (encoder_segment_ids is None):
            raise ValueError("packed rows need both segment_ids and decoder_segment_ids; only one of them was given")
        decoder_mask, cross_mask = as_mask(decoder_mask, "decoder_mask"), as_mask(cross_mask, "cross_mask")
        inputs_embeds = embed(self, input_ids, inputs_embeds)
        batch, length = inputs_embeds.shape[:2]
        device = inputs_embeds.device
        use_cache = self.config.use_cache if use_cache is None else use_cache
        past_key_values = self.read_cache(past_key_values, use_cache and not self.training)
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        capacity = past_key_values.get_mask_sizes(length, 0)[0] if past_key_values is not None else length
        # A static cache counts on the device; asking it would make the host wait, and break a compiled graph.
        seen = past + length if isinstance(past, int) else None
        if seen is None and fast_path_allowed(past) and int(past) + length > capacity:
            raise ValueError(
                f"past_key_values have places for {capacity} target tokens, but {int(past) + length} are needed; give "
                "a cache with a larger max_cache_len"
            )
        self.check_length(seen or length, "target", packed=segment_ids is not None or position_ids is not None)

        rows = past + torch.arange(length, device=device)
        given = {"attention_mask": attention_mask, "segment_ids": segment_ids, "position_ids": position_ids}
        if example_ids is not None and tuple(example_ids.shape) != (batch,):
            raise ValueError(f"example_ids must be ({batch},), one for each row, got {tuple(example_ids.shape)}")
        examples = batch if example_ids is None else example_ids
        target = replace(self.lay_out_target(capacity, seen, rows, batch, **given), rows=examples, may_grow=True)
        query = target if capacity == length else target.pick(rows)
        # The last token so far, in rows without padding whose positions are counted: it may see all of its own side.
        # (A trace made on one token is run on more.)
        is_last = length == 1 and capacity == seen and all(side is None for side in given.values())
        is_last = is_last and not torch.jit.is_tracing()
        beams_per_source = self.rows_per_source(batch, encoder_hidden_states.shape[0], past_key_values)
        source = self.lay_out_source(
            encoder_hidden_states,
            batch,
            rows=examples,
            attention_mask=encoder_attention_mask,
            segment_ids=encoder_segment_ids,
            position_ids=encoder_position_ids,
            passage_ids=encoder_passage_ids,
        )
        common = {"batch": batch, "rows": rows, "seen": seen, "training": self.training}
        compiled_masks = zip(
            self.self_masks.compile(decoder_mask, query, target, is_last=is_last, **common),
            self.cross_masks.compile(cross_mask, query, source, beams_per_source=beams_per_source, **common),
            strict=True,
        )

        hidden_states = self.embed_proj(inputs_embeds)
        position_embeddings = self.rotary_emb(hidden_states, query.positions)
        for layer, masks in zip(self.layers, compiled_masks, strict=True):
            hidden_states = layer(hidden_states, encoder_hidden_states, position_embeddings, *masks, past_key_values)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values
        )

    def read_cache(self, given: Cache | None, wanted: bool) -> EncoderDecoderCache | None:
        """The cache of both attentions: as it was given, around one of the target's alone, or a new one if wanted.

        Raises:
            ValueError: it is not a cache.
        """
        check_cache(given)
        if isinstance(given, EncoderDecoderCache):
            return given
        if given is None:
            return EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache()) if wanted else None
        return EncoderDecoderCache(given, DynamicCache())

    @staticmethod
    def lay_out_target(
        capacity: int, seen: int | None, rows: torch.Tensor, batch: int, **given: torch.Tensor | None
    ) -> Layout:
        """The places of all target tokens, cached and new. What a static cache has not written yet is padding."""
        for name, tensor in given.items():
            if tensor is not None and seen is not None and tensor.shape[-1] not in (seen, capacity):
                raise ValueError(
                    f"decoder_{name} has {tensor.shape[-1]} columns, but there are {seen} target tokens, cached ones "
                    "included; give it for all of them"
                )
            if tensor is not None and tensor.shape[-1] < capacity:
                fill = int(name == "attention_mask")
                given[name] = nn.functional.pad(tensor, (0, capacity - tensor.shape[-1]), value=fill)
        layout = lay_out(capacity, rows.device, rows=batch, **given)
        if capacity == seen:
            return layout
        segments = torch.ones_like(layout.positions) if layout.segments is None else layout.segments
        unwritten = torch.arange(capacity, device=rows.device) > rows[-1]
        return replace(layout, segments=segments.masked_fill(unwritten, 0))

    @staticmethod
    def rows_per_source(targets: int, sources: int, cache: EncoderDecoderCache | None = None) -> int:
        """How many rows of the target share each row of the source's keys, which may be in the cache already.

        Raises:
            ValueError: they do not come out even.
        """
        if cache is not None and cache.is_updated.get(0):
            sources = cache.cross_attention_cache.layers[0].keys.shape[0]
        if targets % sources:
            raise ValueError(
                f"the target has {targets} rows and the source {sources}: give the same, or a multiple of the source's"
            )
        return targets // sources

    def lay_out_source(
        self, encoder_hidden_states: torch.Tensor, batch: int, rows: torch.Tensor | int, **given: torch.Tensor | None
    ) -> Layout:
        """The places that each row of the target may attend to: the source's, or the memory's."""
        length, device = encoder_hidden_states.shape[1], encoder_hidden_states.device
        memory = self.config.memory_length
        if memory is not None:
            packed = given["segment_ids"] is not None or length != memory
            return memory_layout(length // memory, memory, device, packed)
        for name, ids in given.items():
            if ids is not None and ids.shape[0] < batch:
                given[name] = ids.repeat_interleave(batch // ids.shape[0], 0)
        return lay_out(length, device, rows=rows, **given)
