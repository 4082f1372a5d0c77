"""A model that answers by pointing: an encoder of any kind, and two queries that point at the answer's ends."""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers import PreTrainedModel, initialization
from transformers.modeling_outputs import QuestionAnsweringModelOutput
from transformers.utils import TransformersKwargs, can_return_tuple

from ..heads.base import EncoderHeadModel, check_inputs
from ..masks.tensor_mask import MaskLike
from ..seq2seq.call_checks import checked_call
from .answer_masks import answerable, passages_of
from .configuration import CrossMaskQuestionAnsweringConfig
from .loss import answer_loss
from .pointer import AnswerPointer


@dataclass
class CrossMaskQuestionAnsweringOutput(QuestionAnsweringModelOutput):
    """Scores of the tokens, and of no answer.

    Attributes:
        loss: of the answers, where positions are given.
        start_logits, end_logits: (B, S), in float32 or better; the lowest number where no answer may start or end.
        hidden_states, attentions: the encoder's.
        no_answer_logits: (B,), to be compared with the sum of a start's and an end's score; None where the config's
            `no_answer` is False.
        pointer_attentions: for each layer of the pointer the weights of its queries, (B, H, Q, S).
    """

    no_answer_logits: torch.FloatTensor | None = None
    pointer_attentions: tuple[torch.FloatTensor, ...] | None = None


class CrossMaskForQuestionAnswering(EncoderHeadModel):
    """Extractive question answering: the answer is a span of the context, or none.

    An encoder reads question and context together. Learned queries, for the start and the end, read its states of the
    question by interactive attention, and point into the context: scaled dot products with the states are the scores.
    A mask leaves them the context alone, so that an answer cannot come from anywhere else.

    ```python
    >>> model = CrossMaskForQuestionAnswering.from_encoder_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    ```
    """

    config: CrossMaskQuestionAnsweringConfig
    config_class = CrossMaskQuestionAnsweringConfig

    def __init__(self, config: CrossMaskQuestionAnsweringConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config, encoder)
        self.pointer = AnswerPointer(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AnswerPointer):
            initialization.normal_(module.queries)

    @checked_call
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        passage_ids: torch.LongTensor | None = None,
        start_positions: torch.LongTensor | None = None,
        end_positions: torch.LongTensor | None = None,
        cross_mask: MaskLike | None = None,
        encoder_mask: MaskLike | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CrossMaskQuestionAnsweringOutput:
        """Score where the answer starts and ends.

        Args:
            input_ids: (B, S) int64: question and context, as the encoder's tokenizer joins a pair.
            attention_mask: (B, S), 1 for tokens and 0 for padding.
            token_type_ids: (B, S) int64, for encoders that read them.
            passage_ids: (B, S) int64: which passage of the context a token is of, from 0; below 0 for special tokens
                and for the question, which is what stands before the context. Made of `token_type_ids` by default:
                tokens of type 1, but for the last.
            start_positions, end_positions: (B,) int64, first and last token of the answer; -1 for no answer, -100
                for an example that the loss leaves out.
            cross_mask: where an answer may be, and-ed with the config's: a mask, its text, or bool (B, S) or
                (B, 2, S), one row for the start and one for the end. The question is read all the same. Spans of
                `blind` are hidden from the encoder too, as in `encoder_mask`: whatever stands under them, nothing
                changes.
            encoder_mask: from token to token, where the encoder can: a mask, its text, or bool (B, S), (B, S, S) or
                (B, H, S, S).
            inputs_embeds: (B, S, E), instead of `input_ids`.
            kwargs: `output_attentions`, `output_hidden_states`, and `num_items_in_batch`, how many examples count in
                the batch of an optimizer step, over which the loss is summed; those of this call by default.

        Raises:
            ValueError: no tokens, too many, positions that no answer can have, no word of which tokens are the
                context; masks that do not fit (`MaskError`).
            TypeError: an argument of another name, positions that are not int64.
        """
        if (start_positions is None) != (end_positions is None):
            raise ValueError("give both start_positions and end_positions, or none of them")
        check_inputs(input_ids, inputs_embeds, self.foreign_encoder.max_length)
        passages = passages_of(passage_ids, token_type_ids, attention_mask)
        inputs = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "token_type_ids": token_type_ids,
            "passage_ids": passages,
        }
        encoded = self.encode_tokens(inputs, attention_mask, encoder_mask, cross_mask, dict(kwargs))
        context = passages >= 0
        question = encoded.shown & (context.cumsum(-1) == 0)
        within = encoded.shown & context
        allowed = answerable(encoded.config_mask, encoded.cross_mask, encoded.source, within, self.training)
        start, end, none, weights = self.pointer(encoded.states, question, allowed)
        loss = None
        if start_positions is not None and end_positions is not None:
            number = kwargs.get("num_items_in_batch")
            loss = answer_loss(start, end, none, start_positions, end_positions, number)
        return CrossMaskQuestionAnsweringOutput(
            loss=loss,
            start_logits=start,
            end_logits=end,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            no_answer_logits=none,
            pointer_attentions=weights if encoded.wants_attentions and None not in weights else None,
        )
