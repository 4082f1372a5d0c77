"""The models.

Notable choices, each in a file of its own:

- masks are values in the config and in the call, compiled once per forward pass: `mask_compiler.py`, `../masks/`
- attention that gives zero, not an average, to a query with nothing to see: `../attention/`
- pre-norm layers with RMSNorm, gated feed-forward, no biases: `layers.py`
- packed rows through segments, positions counted inside each: `encoder.py`, `decoder.py`
- a fixed-length memory between encoder and decoder, if wanted: `memory.py`
- `generate()` with masks, whatever the cache and the decoding mode: `generation.py`
- `stream()`, simultaneous translation that computes nothing twice: `simultaneous/session.py`
- which passage an answer was read from: `passage_attribution.py`

What is not in this folder is in `../seq2seq/`.
"""

from typing import Unpack

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import TransformersKwargs, can_return_tuple

from ..configuration.crossmask import CrossMaskConfig
from ..masks.fast_paths import is_observed
from ..masks.tensor_mask import MaskLike
from ..seq2seq.agreement import loss_functions
from ..seq2seq.call_checks import checked_call
from ..seq2seq.call_masks import read_call_masks
from ..seq2seq.decoder_inputs import shift_right
from ..seq2seq.distillation import Distillation
from ..seq2seq.encoder_output import CrossMaskEncoderOutput
from ..seq2seq.interactive_attention import InteractiveAttention
from ..seq2seq.labels import check_labels, inputs_from_labels
from ..seq2seq.mask_compiler import LayerMasks
from ..seq2seq.passage_attribution import ProvenanceMixin
from ..seq2seq.shared_source_generation import SharedSourceGenerationMixin
from ..seq2seq.simultaneous.session import StreamingMixin
from ..seq2seq.source_lookup import SourceLookupMixin
from .decoder import CrossMaskDecoder
from .encoder import CrossMaskEncoder
from .layers import is_plain_linear, output_logits
from .pretrained import CrossMaskPreTrainedModel


class CrossMaskModel(CrossMaskPreTrainedModel):
    """Encoder and decoder, without an output head."""

    def __init__(self, config: CrossMaskConfig):
        super().__init__(config)
        self.encoder = CrossMaskEncoder(config)
        self.decoder = CrossMaskDecoder(config)
        self.post_init()

    @property
    def _tied_weights_keys(self) -> dict[str, str]:
        if self.config.tie_word_embeddings in (True, "embedding"):
            return {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}
        return {}  # not None, or PEFT looks no further into the model

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.encoder.embed_tokens = value
        if self.config.tie_word_embeddings in (True, "embedding"):
            self.decoder.embed_tokens = value

    @property
    def mask_compilers(self) -> tuple[LayerMasks, LayerMasks, LayerMasks]:
        """The masks of the encoder, of the decoder and of the interactive attention."""
        return self.encoder.layer_masks, self.decoder.self_masks, self.decoder.cross_masks

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
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqModelOutput:
        """Encode the source, unless `encoder_outputs` has it, and decode.

        Args:
            input_ids: (B, S) int64. attention_mask: (B, S), 1 for tokens and 0 for padding.
            decoder_input_ids: (B, T) int64. decoder_attention_mask: (B, P + T), counting P cached tokens.
            encoder_mask, decoder_mask, cross_mask: and-ed with the config's: a mask, its text, or a boolean tensor
                (B, S), (B, T, S) or (B, H, T, S), True = allowed.
            segment_ids, decoder_segment_ids: (B, S) and (B, P + T) int64 of packed rows, 0 for padding.
            position_ids, decoder_position_ids: (B, S) and (B, P + T) int64; counted inside each segment by default.
            passage_ids: (B, S) int64, one number from 0 up for each passage of an example, for masks that ask for it.
            example_ids: (B,) int64, ascending, which row of the encoder's batch each row of the decoder's belongs to.
            inputs_embeds, decoder_inputs_embeds: (B, S, E) and (B, T, E), instead of ids.

        Raises:
            ValueError: inputs that are missing, too long, or do not fit together; an `encoder_mask` other than the one
                that `encoder_outputs` were made under.
            TypeError: an argument of another name.
        """
        call_masks, encoded = read_call_masks(
            self.mask_compilers,
            encoder_outputs,
            encoder_mask=encoder_mask,
            decoder_mask=decoder_mask,
            cross_mask=cross_mask,
        )
        if encoded is None:
            encoded = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                encoder_mask=call_masks["encoder_mask"],
                segment_ids=segment_ids,
                position_ids=position_ids,
                passage_ids=passage_ids,
                inputs_embeds=inputs_embeds,
                **kwargs,
            )
        decoded = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            decoder_mask=call_masks["decoder_mask"],
            cross_mask=call_masks["cross_mask"],
            segment_ids=decoder_segment_ids,
            position_ids=decoder_position_ids,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=attention_mask,
            encoder_segment_ids=segment_ids,
            encoder_position_ids=position_ids,
            encoder_passage_ids=passage_ids,
            example_ids=example_ids,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )


class CrossMaskForConditionalGeneration(
    CrossMaskPreTrainedModel, SharedSourceGenerationMixin, SourceLookupMixin, StreamingMixin, ProvenanceMixin
):
    """The model with an output head: training loss, `generate()`, `stream()` and `passage_mass()`."""

    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: CrossMaskConfig):
        super().__init__(config)
        self.model = CrossMaskModel(config)
        self.head_proj = (
            nn.Identity()
            if config.embedding_size is None
            else nn.Linear(config.hidden_size, config.embedding_size, bias=False)
        )
        self.lm_head = nn.Linear(config.embedding_size or config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @property
    def _tied_weights_keys(self) -> dict[str, str]:
        tied = {True: "model.encoder.embed_tokens.weight", "head": "model.decoder.embed_tokens.weight"}
        source = tied.get(self.config.tie_word_embeddings)
        return {} if source is None else {"lm_head.weight": source}

    @property
    def mask_compilers(self) -> tuple[LayerMasks, LayerMasks, LayerMasks]:
        """As in [`CrossMaskModel`]."""
        return self.model.mask_compilers

    @property
    def max_target_length(self) -> int:
        return self.config.max_position_embeddings

    @property
    def max_source_length(self) -> int:
        return self.config.max_position_embeddings

    @property
    def cross_attentions(self) -> list[InteractiveAttention]:
        return [layer.cross_attn for layer in self.model.decoder.layers]

    def encode(self, input_ids: torch.Tensor, **options) -> CrossMaskEncoderOutput:
        return self.model.encoder(input_ids=input_ids, **options)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.model.set_input_embeddings(value)

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
        """As [`CrossMaskModel.forward`], with logits and a loss.

        Args:
            labels: (B, T) int64, aligned with the decoder's inputs (never shifted again); -100 is ignored. The inputs
                are made from them by `shift_right` where they are not given.
            logits_to_keep: compute only this many logits, the last ones, or those at these indices; 0 for all.
            num_items_in_batch: divide the summed loss by this, as Trainer asks for, instead of taking the mean.
            smoothing: the weight of the uniform distribution in the loss's target. (Trainer takes an argument with
                `label` in its name for a second kind of labels.)
            skip_logits: compute the loss without ever holding the logits of the whole batch; they are None then. (An
                output layer that was replaced or wrapped, by PEFT or accelerate for instance, is called as it is, and
                under `torch.compile` and other tracers all logits are held on the way.)
            r_drop: the weight of how far two passes over the same batch are apart (R-Drop, Liang et al. 2021;
                `seq2seq/agreement.py`). All inputs and labels are then those of the batch twice, one behind the other.
                With 0 there is one pass.
            distillation: what a teacher predicts, for a share of the target (`seq2seq/distillation.py`).

        Returns:
            `loss`: the mean over labels that count, or their sum over `num_items_in_batch` where that is given, which
            makes it exact under gradient accumulation. `logits`: (B, T, vocabulary).
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids, decoder_attention_mask = inputs_from_labels(
                self, labels, decoder_attention_mask, decoder_segment_ids, past_key_values
            )
        if labels is not None:
            inputs = decoder_input_ids if decoder_input_ids is not None else decoder_inputs_embeds
            check_labels(labels, inputs, logits_to_keep, self.config.vocab_size, smoothing, r_drop)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_mask=encoder_mask,
            decoder_mask=decoder_mask,
            cross_mask=cross_mask,
            segment_ids=segment_ids,
            decoder_segment_ids=decoder_segment_ids,
            position_ids=position_ids,
            decoder_position_ids=decoder_position_ids,
            passage_ids=passage_ids,
            example_ids=example_ids,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = self.head_proj(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        logits: torch.Tensor | None = None
        loss: torch.Tensor | None = None
        if labels is None:
            logits = output_logits(self.lm_head, hidden_states)
        else:
            by_logits, by_states = loss_functions(labels, r_drop, distillation)
            options = {"num_items_in_batch": num_items_in_batch, "label_smoothing": smoothing}
            if skip_logits and not is_observed() and is_plain_linear(self.lm_head):
                loss = by_states(hidden_states, self.lm_head.weight, **options)
            else:
                logits = output_logits(self.lm_head, hidden_states)
                loss = by_logits(logits, **options)
                logits = None if skip_logits else logits
        return Seq2SeqLMOutput(
            loss=loss, logits=logits, **{k: v for k, v in outputs.items() if k != "last_hidden_state"}
        )
