"""The encoder."""

from typing import Unpack

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from ..configuration.crossmask import CrossMaskConfig
from ..masks.layout import lay_out
from ..masks.tensor_mask import MaskLike, as_mask, describe
from ..seq2seq.call_checks import checked_call
from ..seq2seq.encoder_output import CrossMaskEncoderOutput
from ..seq2seq.mask_compiler import LayerMasks
from .layers import EmbeddingProjection, EncoderLayer, rms_norm
from .memory import FixedLengthMemory
from .pretrained import CrossMaskPreTrainedModel, embed, tensor_parallel_plan
from .self_attention import SelfAttention


class CrossMaskEncoder(CrossMaskPreTrainedModel):
    """From source tokens to hidden states, or to the fixed-length memory where the config has one."""

    _tp_plan = tensor_parallel_plan("self_attn")
    _fsdp_plan = {"layers.*": "free_full_weight"}
    _can_record_outputs = {"hidden_states": EncoderLayer, "attentions": SelfAttention}

    def __init__(self, config: CrossMaskConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(
            config.vocab_size, config.embedding_size or config.hidden_size, config.pad_token_id
        )
        self.embed_proj = EmbeddingProjection(config)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.layers = nn.ModuleList([EncoderLayer(config, index) for index in range(config.encoder_layers)])
        self.norm = rms_norm(config)
        self.memory = FixedLengthMemory(config) if config.memory_length else None
        self.layer_masks = LayerMasks(
            config, "encoder", layers=config.encoder_layers, heads=config.num_attention_heads
        )
        self.gradient_checkpointing = False
        self.post_init()

    @checked_call
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_mask: MaskLike | None = None,
        segment_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        passage_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        past_key_values: Cache | None = None,
        **options: Unpack[TransformersKwargs],  # called kwargs, `generate()` would pass on the decoder's arguments
    ) -> CrossMaskEncoderOutput:
        """Encode. With P cached tokens, (B, S) tensors other than the ids count the cached ones too: (B, P + S).

        Args:
            input_ids: (B, S) int64.
            attention_mask: (B, S), 1 for tokens and 0 for padding.
            encoder_mask: and-ed with the config's: a mask, its text, or bool (B, S), (B, S, S), (B, H, S, S).
            segment_ids: (B, S) int64, 0 for padding, one number from 1 up for each packed example.
            position_ids: (B, S) int64; counted inside each segment by default.
            passage_ids: (B, S) int64, one number from 0 up for each passage of an example, for masks that ask for it.
            inputs_embeds: (B, S, E), instead of `input_ids`.
            past_key_values: keys and values of the source so far, to go on from; the new ones are added. Right under
                masks by which no token sees one that comes in a later call.

        Returns:
            `last_hidden_state`: (B, S, hidden), or (B, G * N, hidden) with a memory of N vectors for G segments.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`, a source that is too long, masks that do
                not fit.
            TypeError: an argument of another name.
        """
        encoder_mask = as_mask(encoder_mask, "encoder_mask")
        embeddings = embed(self, input_ids, inputs_embeds)
        if input_ids is not None and segment_ids is None:
            self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        batch, length = embeddings.shape[:2]
        device = embeddings.device
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        source = lay_out(
            past + length,
            device,
            attention_mask=attention_mask,
            segment_ids=segment_ids,
            position_ids=position_ids,
            passage_ids=passage_ids,
            rows=batch,
        )
        parted = any(ids is not None for ids in (segment_ids, position_ids, passage_ids))
        self.check_length(past + length, "source", packed=parted)
        rows = past + torch.arange(length, device=device)
        query = source.pick(rows) if past else source
        compiled_masks = self.layer_masks.compile(
            encoder_mask, query, source, batch=batch, rows=rows, seen=past + length, training=self.training
        )

        hidden_states = self.embed_proj(embeddings)
        position_embeddings = self.rotary_emb(hidden_states, query.positions)
        for layer, compiled_mask in zip(self.layers, compiled_masks, strict=True):
            hidden_states = layer(hidden_states, position_embeddings, compiled_mask, past_key_values)
        hidden_states = self.norm(hidden_states)
        if self.memory is not None:
            hidden_states = self.memory(hidden_states, source, self.layer_masks.blind(encoder_mask))
        return CrossMaskEncoderOutput(last_hidden_state=hidden_states, encoder_mask=describe(encoder_mask))
