"""A model that answers by pointing: an encoder of any kind, and two queries that point at the answer's ends."""

import copy
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel, initialization
from transformers.modeling_outputs import QuestionAnsweringModelOutput
from transformers.utils import TransformersKwargs, can_return_tuple

from ..masks.expressions import Mask
from ..masks.layout import lay_out
from ..masks.tensor_mask import MaskLike, as_mask
from ..seq2seq.call_checks import checked_call
from ..seq2seq.foreign_encoder import ForeignEncoder
from ..seq2seq.pretrained_parts import encoder_of
from .answer_masks import answerable, blind_part, passages_of
from .configuration import CrossMaskQuestionAnsweringConfig
from .encoder import check_encoder, encode, new_encoder, shown_tokens, without_pooler
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


class CrossMaskForQuestionAnswering(PreTrainedModel):
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
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: CrossMaskQuestionAnsweringConfig, encoder: PreTrainedModel | None = None):
        """With `encoder`, that module with its weights, of the config's `encoder`, takes the place of a new one."""
        super().__init__(config)
        if encoder is None:
            encoder = new_encoder(config.encoder)
        else:
            for module in encoder.modules():
                module._is_hf_initialized = True  # type: ignore[assignment]
        self.encoder = encoder
        self.foreign_encoder = ForeignEncoder(encoder)
        self.pointer = AnswerPointer(config)
        self.mask_of_config = (config.cross_mask, config.layer_masks("cross")[0])
        config.encoder = encoder.config  # one object: what is set in it holds for the module
        self.supports_gradient_checkpointing = encoder.supports_gradient_checkpointing
        self.post_init()

    @classmethod
    def from_encoder_pretrained(
        cls, encoder: str | PreTrainedModel, *, encoder_kwargs: dict[str, Any] | None = None, **fields: Any
    ) -> "CrossMaskForQuestionAnswering":
        """A model with a pretrained encoder and a new pointer, in evaluation mode.

        Args:
            encoder: a folder or a Hub id that `AutoModel` loads; or a model, which is copied and stays as it is.
            encoder_kwargs: for `AutoModel.from_pretrained`, where a name is given: `dtype`, `attn_implementation`.
            fields: of [`CrossMaskQuestionAnsweringConfig`], all but `encoder`.

        Raises:
            ValueError: options for a model that is loaded already, or an encoder that leaves no states of tokens.
            StrictDataclassError: fields that do not fit.
            OSError: nothing is there, or it cannot be fetched.
        """
        if not isinstance(encoder, PreTrainedModel):
            base = AutoModel.from_pretrained(encoder, **(encoder_kwargs or {}))
        elif encoder_kwargs:
            raise ValueError(
                f"encoder_kwargs {encoder_kwargs} have no effect on a model that is loaded; set them as it is loaded"
            )
        else:
            base = encoder.base_model
        check_encoder(base.config)
        config = cls.config_class(encoder=base.config, **fields)
        part = encoder_of(base)
        if isinstance(encoder, PreTrainedModel):
            part = copy.deepcopy(part)
        part.config.name_or_path = ""
        model = cls(config, without_pooler(part))
        model.pointer.to(device=part.device, dtype=part.dtype)
        return model.eval()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AnswerPointer):
            initialization.normal_(module.queries)

    def config_mask(self) -> Mask:
        """The config's cross mask, which is parsed when its text changes: a compiled forward pass cannot parse."""
        text, rule = self.mask_of_config
        if self.config.cross_mask != text:
            (rule,) = self.config.layer_masks("cross")
            self.mask_of_config = (self.config.cross_mask, rule)
        return rule

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

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
        cross_mask, encoder_mask = as_mask(cross_mask, "cross_mask"), as_mask(encoder_mask, "encoder_mask")
        if (start_positions is None) != (end_positions is None):
            raise ValueError("give both start_positions and end_positions, or none of them")
        tokens = check_inputs(input_ids, inputs_embeds, self.foreign_encoder.max_length)
        batch, length = tokens.shape[:2]
        passages = passages_of(passage_ids, token_type_ids, attention_mask)
        source = lay_out(length, tokens.device, attention_mask=attention_mask, passage_ids=passages, rows=batch)
        config_mask = self.config_mask()
        hidden = blind_part(config=config_mask, cross_mask=cross_mask, encoder_mask=encoder_mask)
        inputs = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "token_type_ids": token_type_ids,
            "passage_ids": passages,
        }
        wanted = {
            name: kwargs.get(name) if kwargs.get(name) is not None else getattr(self.config, name)
            for name in ("output_attentions", "output_hidden_states")
        }
        encoded = encode(self.foreign_encoder, inputs, attention_mask, source, encoder_mask, hidden, **wanted)
        shown = torch.ones_like(passages, dtype=torch.bool) if attention_mask is None else attention_mask != 0
        if hidden is not None:
            shown = shown & shown_tokens(hidden, source)
        context = passages >= 0
        question = shown & (context.cumsum(-1) == 0)
        allowed = answerable(config_mask, cross_mask, source, shown & context, self.training)
        start, end, none, weights = self.pointer(encoded.last_hidden_state, question, allowed)
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
            pointer_attentions=weights if wanted["output_attentions"] and weights[0] is not None else None,
        )


def check_inputs(
    input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, limit: int | None
) -> torch.Tensor:
    """The tokens, as ids (B, S) or embeddings (B, S, E).

    Raises:
        ValueError: both or neither are given, they have another shape, or are more than the encoder takes.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give either input_ids or inputs_embeds: exactly one of the two")
    tokens, name, dimensions = (
        (input_ids, "input_ids", 2) if inputs_embeds is None else (inputs_embeds, "inputs_embeds", 3)
    )
    assert tokens is not None
    if tokens.ndim != dimensions or 0 in tokens.shape[:2]:
        wanted = "(batch, length)" if dimensions == 2 else "(batch, length, width)"
        raise ValueError(f"{name} must be {wanted} with at least one token, got {tuple(tokens.shape)}")
    if limit is not None and not torch.compiler.is_exporting() and tokens.shape[1] > limit:
        raise ValueError(
            f"{name} must have at most {limit} tokens, which is what the encoder takes, got {tokens.shape[1]}; cut "
            "the context into windows, as `question_answering.windows.encode_windows` does"
        )
    return tokens
