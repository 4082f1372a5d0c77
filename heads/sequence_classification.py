"""A model that classifies whole texts, by a vector of a fixed length."""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers import PreTrainedModel, initialization
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import TransformersKwargs, can_return_tuple

from ..masks.expressions import Mask, MaskError
from ..masks.layout import lay_out
from ..masks.materialize import compile_mask
from ..masks.tensor_mask import MaskLike, TensorMask
from ..seq2seq.call_checks import checked_call
from .base import EncodedTokens, EncoderHeadModel
from .classification_configs import CrossMaskSequenceClassificationConfig
from .loss import classification_loss
from .pooling import POOLERS, AttentionPooler


@dataclass
class CrossMaskSequenceClassifierOutput(SequenceClassifierOutput):
    """Scores of the classes, and the vector that they are from.

    Attributes:
        loss: of the labels, where these are given.
        logits: (B, classes).
        hidden_states, attentions: the encoder's.
        pooler_output: (B, hidden), the vector of each text.
        pooler_attentions: the weights of the pooling query, (B, H, 1, S).
    """

    pooler_output: torch.FloatTensor | None = None
    pooler_attentions: torch.FloatTensor | None = None


class CrossMaskForSequenceClassification(EncoderHeadModel):
    """Classification of texts: an encoder reads, a pooler makes one vector, a linear layer scores the classes.

    ```python
    >>> name = "sentence-transformers/all-MiniLM-L6-v2"
    >>> model = CrossMaskForSequenceClassification.from_encoder_pretrained(name, num_labels=2)
    ```
    """

    config: CrossMaskSequenceClassificationConfig
    config_class = CrossMaskSequenceClassificationConfig

    def __init__(self, config: CrossMaskSequenceClassificationConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config, encoder)
        self.pooler = POOLERS[config.pooling](config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 0)
        self.post_init()

    def take_weights(self, base: PreTrainedModel) -> None:
        """Copy the decoder of crossmask's own network, where the head is one."""
        if self.config.pooling == "decoder":
            weights = base.get_submodule("decoder").state_dict()
            del weights["embed_tokens.weight"]
            self.pooler.get_submodule("decoder").load_state_dict(weights)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AttentionPooler):
            initialization.normal_(module.query)

    @checked_call
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        labels: torch.Tensor | None = None,
        cross_mask: MaskLike | None = None,
        encoder_mask: MaskLike | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CrossMaskSequenceClassifierOutput:
        """Score the classes of texts.

        Args:
            input_ids: (B, S) int64.
            attention_mask: (B, S), 1 for tokens and 0 for padding.
            token_type_ids: (B, S) int64, for encoders that read them.
            labels: (B,) int64, the class of each text, -100 for one that the loss leaves out; or as `problem_type`
                in the config says, see `classification_loss`.
            cross_mask: which tokens are pooled, and-ed with the config's: a mask, of whose queries there is one at
                position 0, its text, or bool (B, S). Tokens read each other all the same, but spans of `blind` are
                hidden from the encoder too.
            encoder_mask: from token to token, where the encoder can, and-ed with the config's: a mask, its text, or
                bool (B, S), (B, S, S) or (B, H, S, S).
            inputs_embeds: (B, S, E), instead of `input_ids`.
            kwargs: `output_attentions`, `output_hidden_states`, and `num_items_in_batch`, how many labels count in
                the batch of an optimizer step, over which the loss is summed; those of this call by default.

        Raises:
            ValueError: no tokens, too many, labels that no class has; masks that do not fit (`MaskError`).
            TypeError: an argument of another name, classes that are not int64.
        """
        inputs = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "token_type_ids": token_type_ids}
        encoded = self.encode_tokens(inputs, attention_mask, encoder_mask, cross_mask, dict(kwargs))
        readable = poolable(encoded, self.training)

        def embeds() -> torch.Tensor:
            return self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds

        vector, weights = self.pooler(encoded.states, readable, embeds, attention_mask)
        logits = self.classifier(self.dropout(vector))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config, kwargs.get("num_items_in_batch"))
        return CrossMaskSequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            pooler_output=vector,
            pooler_attentions=weights if encoded.wants_attentions else None,
        )


def poolable(encoded: EncodedTokens, training: bool) -> torch.Tensor:
    """Which tokens a pooler may read, (B, S) bool: those that the cross masks of config and call allow.

    Raises:
        MaskError: a mask that does not fit.
    """
    rule, tensor_mask, shown = encoded.config_mask, None, encoded.shown
    if isinstance(encoded.cross_mask, Mask):
        rule = rule & encoded.cross_mask
    elif isinstance(encoded.cross_mask, TensorMask):
        tensor_mask = encoded.cross_mask.as_4d.to(shown.device)
        sizes = zip(tensor_mask.shape, (shown.shape[0], 1, 1, shown.shape[1]), strict=True)
        if any(size not in (1, limit) for size, limit in sizes) or tensor_mask.shape[-1] != shown.shape[1]:
            raise MaskError(
                f"cross_mask must be {tuple(shown.shape)}, which tokens are pooled, got "
                f"{tuple(encoded.cross_mask.allowed.shape)}"
            )
    try:
        allowed = compile_mask(rule.for_layer(0, 1, training), lay_out(1, shown.device), encoded.source, tensor_mask)
    except MaskError as error:
        raise MaskError(f"cross_mask: {error}") from error
    return shown if allowed is None else shown & allowed[:, 0, 0]
