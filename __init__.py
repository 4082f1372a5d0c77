"""crossmask: the encoder-decoder of the Hugging Face ecosystem whose masks you can program."""

from . import masks
from .attached import attach, detach
from .auditing import audit
from .bridge import CrossMaskBridgeConfig, CrossMaskBridgeForConditionalGeneration, CrossMaskBridgeProcessor
from .configuration import CrossMaskConfig
from .heads import (
    CrossMaskForSequenceClassification,
    CrossMaskForTokenClassification,
    CrossMaskSequenceClassificationConfig,
    CrossMaskTokenClassificationConfig,
)
from .hub.registration import register
from .inference import answer, answer_batch, translate_batch
from .inference.vectors import encode_texts
from .modeling import (
    CrossMaskForConditionalGeneration,
    CrossMaskModel,
    CrossMaskPreTrainedModel,
    InteractiveAttention,
)
from .pipelines import PipelineInputError
from .question_answering import CrossMaskForQuestionAnswering, CrossMaskQuestionAnsweringConfig
from .utils.errors import count_as_error_of_input

register()
count_as_error_of_input(masks.MaskError)
count_as_error_of_input(PipelineInputError)

__version__ = "0.1.0"
__all__ = [
    "CrossMaskBridgeConfig",
    "CrossMaskBridgeForConditionalGeneration",
    "CrossMaskBridgeProcessor",
    "CrossMaskConfig",
    "CrossMaskForConditionalGeneration",
    "CrossMaskForQuestionAnswering",
    "CrossMaskForSequenceClassification",
    "CrossMaskForTokenClassification",
    "CrossMaskModel",
    "CrossMaskPreTrainedModel",
    "CrossMaskQuestionAnsweringConfig",
    "CrossMaskSequenceClassificationConfig",
    "CrossMaskTokenClassificationConfig",
    "InteractiveAttention",
    "answer",
    "answer_batch",
    "attach",
    "audit",
    "detach",
    "encode_texts",
    "masks",
    "translate_batch",
]
