"""What a question answering model is: its encoder, the sizes of its pointer, and its masks."""

from huggingface_hub.dataclasses import strict

from ..heads.configuration import QueryHeadConfig


@strict
class CrossMaskQuestionAnsweringConfig(QueryHeadConfig):
    r"""
    Configuration of [`CrossMaskForQuestionAnswering`]: an encoder, and a pointer into what it read.

    Args:
        encoder: the config of a text encoder that `AutoModel` knows, or of an encoder-decoder, whose encoder is taken;
            a config or a dictionary with `model_type`. It is copied. BERT's by default.
        pointer_layers: how many layers of interactive attention the pointer's queries read the question through,
            before they point. Without any, the queries are the same for all questions.
        num_attention_heads: heads of that attention, a divisor of the encoder's width; as in the encoder by default.
        attention_dropout: on its weights.
        no_answer: whether the model also scores that the context has no answer, as in SQuAD 2.
        cross_mask: text of the mask from the pointer's queries to the tokens: where an answer may be. A mask value is
            kept as its text.
        encoder_mask: text of the mask from token to token, of all layers, where the encoder can.
        rms_norm_eps, initializer_range: of the pointer, as in Llama.

    Raises:
        StrictDataclassError: sizes or masks that do not fit together, an encoder without a hidden size.

    ```python
    >>> from crossmask import CrossMaskForQuestionAnswering, CrossMaskQuestionAnsweringConfig
    >>> config = CrossMaskQuestionAnsweringConfig(encoder={"model_type": "roberta"}, no_answer=True)
    >>> model = CrossMaskForQuestionAnswering(config)
    ```
    """

    model_type = "crossmask-question-answering"
    code_classes = {
        "AutoConfig": "question_answering_crossmask.CrossMaskQuestionAnsweringConfig",
        "AutoModelForQuestionAnswering": "question_answering_crossmask.CrossMaskForQuestionAnswering",
    }

    pointer_layers: int = 1
    no_answer: bool = False

    def validate_sizes(self) -> None:
        super().validate_sizes()
        least = 1 if self.no_answer else 0
        if self.pointer_layers < least:
            which = " with no_answer, whose query has to read" if self.no_answer else ""
            raise ValueError(f"pointer_layers must be at least {least}{which}, got {self.pointer_layers}")
