"""The decoder."""

from typing import Unpack

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..configuration.crossmask import CrossMaskConfig
from ..masks.layout import Layout
from ..masks.target_layout import lay_out_target
from ..masks.tensor_mask import MaskLike, as_mask
from ..seq2seq.beam_sharing import lay_out_shared_source, rows_per_source
from ..seq2seq.cache import cached_sizes, read_cache
from ..seq2seq.call_checks import checked_call
from ..seq2seq.interactive_attention import InteractiveAttention
from ..seq2seq.mask_compiler import LayerMasks
from .layers import DecoderLayer, EmbeddingProjection, rms_norm
from .memory import memory_layout
from .pretrained import CrossMaskPreTrainedModel, embed, tensor_parallel_plan
from .self_attention import SelfAttention


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
        layers, heads = config.decoder_layers, config.num_attention_heads
        self.self_masks = LayerMasks(config, "decoder", layers=layers, heads=heads)
        self.cross_masks = LayerMasks(
            config,
            "cross",
            layers=layers,
            heads=heads,
            additive=config.cross_attention_score == "additive",
            reads_memory=config.memory_length is not None,
        )
        self.gradient_checkpointing = False
        self.post_init()
        if config.cross_attention_score == "additive":
            # Each head has a row of the score vector, which no plan splits: its heads stay together.
            self._tp_plan = {name: style for name, style in self._tp_plan.items() if ".cross_attn." not in name}

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
        embeddings = embed(self, input_ids, inputs_embeds)
        batch, length = embeddings.shape[:2]
        use_cache = self.config.use_cache if use_cache is None else use_cache
        past_key_values = read_cache(past_key_values, use_cache and not self.training)
        target = lay_out_target(
            length,
            *cached_sizes(past_key_values, length),
            embeddings.device,
            batch=batch,
            examples=example_ids,
            attention_mask=attention_mask,
            segment_ids=segment_ids,
            position_ids=position_ids,
        )
        packed = segment_ids is not None or position_ids is not None
        self.check_length(target.seen or length, "target", packed=packed)
        source = self.lay_out_source(
            encoder_hidden_states,
            batch,
            rows=batch if example_ids is None else example_ids,
            attention_mask=encoder_attention_mask,
            segment_ids=encoder_segment_ids,
            position_ids=encoder_position_ids,
            passage_ids=encoder_passage_ids,
        )
        beams_per_source = rows_per_source(batch, encoder_hidden_states.shape[0], past_key_values)
        compiled_masks = zip(
            self.self_masks.compile_target(decoder_mask, target, batch=batch, training=self.training),
            self.cross_masks.compile(
                cross_mask,
                target.query,
                source,
                batch=batch,
                rows=target.rows,
                seen=target.seen,
                training=self.training,
                beams_per_source=beams_per_source,
            ),
            strict=True,
        )

        hidden_states = self.embed_proj(embeddings)
        position_embeddings = self.rotary_emb(hidden_states, target.query.positions)
        for layer, masks in zip(self.layers, compiled_masks, strict=True):
            hidden_states = layer(hidden_states, encoder_hidden_states, position_embeddings, *masks, past_key_values)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values
        )

    def lay_out_source(
        self,
        encoder_hidden_states: torch.Tensor,
        batch: int,
        rows: torch.Tensor | int,
        **of_source: torch.Tensor | None,
    ) -> Layout:
        """The layout of what each row of the target may attend to: the source, or the memory."""
        length, device = encoder_hidden_states.shape[1], encoder_hidden_states.device
        memory = self.config.memory_length
        if memory is not None:
            packed = of_source["segment_ids"] is not None or length != memory
            return memory_layout(length // memory, memory, device, packed)
        return lay_out_shared_source(length, device, batch, rows=rows, **of_source)
