"""What models that classify are: texts by one vector, or their tokens one by one."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ..configuration.crossmask import CrossMaskConfig
from .configuration import EncoderHeadConfig, QueryHeadConfig


@strict
class CrossMaskSequenceClassificationConfig(QueryHeadConfig):
    r"""
    Configuration of [`CrossMaskForSequenceClassification`]: an encoder, and what makes one vector of its states.

    Args:
        encoder: the config of a text encoder that `AutoModel` knows, or of an encoder-decoder, whose encoder is taken;
            a config or a dictionary with `model_type`. It is copied. BERT's by default.
        pooling: how a text becomes one vector. `"mean"`: the mean of the states, which was better on a pretrained
            encoder (benchmarks/LOG.md). `"attention"`: a learned query reads them by interactive attention, as the
            memory of crossmask's own network does (Lee et al. 2019, https://arxiv.org/abs/1810.00825). `"decoder"`:
            the decoder of crossmask's own network reads the text once more as its target, and the state of the last
            token counts, as in BART (Lewis et al. 2020, https://arxiv.org/abs/1910.13461).
        classifier_dropout: on that vector.
        num_attention_heads: heads of the query's attention, a divisor of the encoder's width; as in the encoder by
            default. attention_dropout: on its weights.
        cross_mask: text of the mask from the query, at position 0, to the tokens: which of them are pooled. A mask
            value is kept as its text.
        encoder_mask: text of the mask from token to token, of all layers, where the encoder can.
        rms_norm_eps, initializer_range: of the new parts, as in Llama.
        id2label, label2id, num_labels, problem_type: as in all configs of Transformers.

    Raises:
        StrictDataclassError: sizes or masks that do not fit together, an encoder without a hidden size, or without a
            decoder where there has to be one.

    ```python
    >>> from crossmask import CrossMaskForSequenceClassification, CrossMaskSequenceClassificationConfig
    >>> config = CrossMaskSequenceClassificationConfig(encoder={"model_type": "roberta"}, num_labels=3)
    >>> model = CrossMaskForSequenceClassification(config)
    ```
    """

    model_type = "crossmask-sequence-classification"
    code_classes = {
        "AutoConfig": "heads_crossmask.CrossMaskSequenceClassificationConfig",
        "AutoModelForSequenceClassification": "heads_crossmask.CrossMaskForSequenceClassification",
    }

    pooling: Literal["mean", "attention", "decoder"] = "mean"
    classifier_dropout: float | int = 0.1

    def validate_sizes(self) -> None:
        super().validate_sizes()
        self.check_dropout("classifier_dropout")

    def validate_pooling(self) -> None:
        """Refuse sizes of the query's attention where there is no query."""
        unused = {
            "num_attention_heads": getattr(self.encoder, "num_attention_heads", None) or 1,
            "attention_dropout": 0.0,
            "rms_norm_eps": 1e-6,
        }
        for name, default in unused.items() if self.pooling != "attention" else ():
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name} must be left out with pooling={self.pooling!r}, which has no attention of its own, got "
                    f"{getattr(self, name)}; set pooling to attention"
                )

    def validate_decoder(self) -> None:
        """Refuse the decoder of an encoder that has none of crossmask's."""
        if self.pooling == "decoder" and self.encoder.model_type != CrossMaskConfig.model_type:
            raise ValueError(
                f"pooling must be attention or mean on an encoder of type {self.encoder.model_type}, got decoder, "
                "which only crossmask's own network has"
            )


@strict
class CrossMaskTokenClassificationConfig(EncoderHeadConfig):
    r"""
    Configuration of [`CrossMaskForTokenClassification`]: an encoder, and a label for each token.

    Args:
        encoder: the config of a text encoder that `AutoModel` knows, or of an encoder-decoder, whose encoder is taken;
            a config or a dictionary with `model_type`. It is copied. BERT's by default.
        marker_vocab_size: how many marks a token may have, beside 0 for none. Each adds a learned vector to the
            token's embedding, such as one that says which word is the predicate. 0: the model takes no marks.
        classifier_dropout: on the states.
        encoder_mask: text of the mask from token to token, of all layers, where the encoder can. A mask value is kept
            as its text.
        initializer_range: of the new parts.
        id2label, label2id, num_labels: as in all configs of Transformers.

    Raises:
        StrictDataclassError: sizes or masks that do not fit together, an encoder without a hidden size.

    ```python
    >>> from crossmask import CrossMaskForTokenClassification, CrossMaskTokenClassificationConfig
    >>> config = CrossMaskTokenClassificationConfig(encoder={"model_type": "roberta"}, num_labels=5)
    >>> model = CrossMaskForTokenClassification(config)
    ```
    """

    model_type = "crossmask-token-classification"
    code_classes = {
        "AutoConfig": "heads_crossmask.CrossMaskTokenClassificationConfig",
        "AutoModelForTokenClassification": "heads_crossmask.CrossMaskForTokenClassification",
    }

    marker_vocab_size: int = 0
    classifier_dropout: float | int = 0.1

    def validate_sizes(self) -> None:
        super().validate_sizes()
        self.check_dropout("classifier_dropout")
        if self.marker_vocab_size < 0:
            raise ValueError(f"marker_vocab_size must be at least 0, got {self.marker_vocab_size}")
