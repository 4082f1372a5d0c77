"""A model that labels the tokens of a text, in view of which of them are marked."""

from typing import Any, Unpack

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.utils import TransformersKwargs, can_return_tuple

from ..masks.fast_paths import fast_path_allowed
from ..masks.tensor_mask import MaskLike
from ..seq2seq.call_checks import checked_call
from ..seq2seq.loss import cross_entropy
from .base import EncoderHeadModel, check_inputs
from .classification_configs import CrossMaskTokenClassificationConfig


class CrossMaskForTokenClassification(EncoderHeadModel):
    """Labels of tokens: an encoder reads, a linear layer scores the classes of each token.

    Tokens may be marked. The predicate of a sentence is, where the others get the tags of its arguments: the mark's
    vector is added to the embedding of the token, so that it works on every encoder.

    ```python
    >>> name = "sentence-transformers/all-MiniLM-L6-v2"
    >>> model = CrossMaskForTokenClassification.from_encoder_pretrained(name, num_labels=5, marker_vocab_size=1)
    ```
    """

    config: CrossMaskTokenClassificationConfig
    config_class = CrossMaskTokenClassificationConfig

    def __init__(self, config: CrossMaskTokenClassificationConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config, encoder)
        self.marker_embeddings: nn.Embedding | None = None
        if config.marker_vocab_size:
            words: Any = self.get_input_embeddings()
            width = words.embedding_dim
            self.marker_embeddings = nn.Embedding(1 + config.marker_vocab_size, width, padding_idx=0)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 0)
        self.post_init()

    @checked_call
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        marker_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        encoder_mask: MaskLike | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        """Score the classes of tokens.

        Args:
            input_ids: (B, S) int64.
            attention_mask: (B, S), 1 for tokens and 0 for padding.
            token_type_ids: (B, S) int64, for encoders that read them.
            marker_ids: (B, S) int64, the mark of each token, 0 for none.
            labels: (B, S) int64, the class of each token, -100 for one that the loss leaves out.
            encoder_mask: from token to token, where the encoder can, and-ed with the config's: a mask, its text, or
                bool (B, S), (B, S, S) or (B, H, S, S).
            inputs_embeds: (B, S, E), instead of `input_ids`.
            kwargs: `output_attentions`, `output_hidden_states`, and `num_items_in_batch`, how many labels count in
                the batch of an optimizer step, over which the loss is summed; those of this call by default.

        Returns:
            logits (B, S, classes), and the encoder's states and weights where they are asked for.

        Raises:
            ValueError: no tokens, too many, labels that no class has, marks that there are not; masks that do not fit
                (`MaskError`).
            TypeError: an argument of another name, labels that are not int64.
        """
        tokens = check_inputs(input_ids, inputs_embeds, self.foreign_encoder.max_length)
        inputs: dict[str, torch.Tensor | None] = {"input_ids": input_ids, "inputs_embeds": inputs_embeds}
        if marker_ids is not None:
            embedded = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
            inputs = {"inputs_embeds": embedded + self._marks(marker_ids, tokens).to(embedded.dtype)}
        inputs["token_type_ids"] = token_type_ids
        encoded = self.encode_tokens(inputs, attention_mask, encoder_mask, None, dict(kwargs))
        logits = self.classifier(self.dropout(encoded.states))
        loss = None if labels is None else cross_entropy(logits, labels, kwargs.get("num_items_in_batch"))
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )

    def _marks(self, marker_ids: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The vectors of marks, (B, S) to (B, S, E).

        Raises:
            ValueError: the model takes none, or not these.
        """
        if self.marker_embeddings is None:
            raise ValueError(
                "marker_ids must be left out of a model without marks; set marker_vocab_size in its config"
            )
        if marker_ids.shape != tokens.shape[:2]:
            raise ValueError(f"marker_ids must be {tuple(tokens.shape[:2])}, got {tuple(marker_ids.shape)}")
        if fast_path_allowed(marker_ids):
            last = self.config.marker_vocab_size
            for mark in marker_ids[(marker_ids < 0) | (marker_ids > last)].tolist():
                raise ValueError(f"marker_ids must be from 0, no mark, to {last}, got {mark}")
        marks: torch.Tensor = self.marker_embeddings(marker_ids)
        return marks
