"""What `import crossmask` registers with Transformers: Auto classes, pipelines, code files beside a model."""

from functools import partial

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
)

from ..bridge import CrossMaskBridgeConfig, CrossMaskBridgeForConditionalGeneration, CrossMaskBridgeProcessor
from ..configuration.crossmask import CrossMaskConfig
from ..heads import (
    CrossMaskForSequenceClassification,
    CrossMaskForTokenClassification,
    CrossMaskSequenceClassificationConfig,
    CrossMaskTokenClassificationConfig,
)
from ..modeling.crossmask import CrossMaskForConditionalGeneration, CrossMaskModel
from ..pipelines.registration import custom_pipelines, register_pipelines
from ..question_answering.configuration import CrossMaskQuestionAnsweringConfig
from ..question_answering.modeling import CrossMaskForQuestionAnswering
from .remote_code import PIPELINES, write_code_files


def register() -> None:
    """Register the classes with the Auto classes, and have configs and processors write the code files when saved.

    Saving a model saves its config. Calling this again changes nothing.
    """
    question_answering = CrossMaskQuestionAnsweringConfig, CrossMaskForQuestionAnswering
    classification = CrossMaskSequenceClassificationConfig, CrossMaskForSequenceClassification
    tagging = CrossMaskTokenClassificationConfig, CrossMaskForTokenClassification
    for auto_class, config_class, model_class in (
        (AutoModel, CrossMaskConfig, CrossMaskModel),
        (AutoModelForSeq2SeqLM, CrossMaskConfig, CrossMaskForConditionalGeneration),
        (AutoModel, CrossMaskBridgeConfig, CrossMaskBridgeForConditionalGeneration),
        (AutoModelForSeq2SeqLM, CrossMaskBridgeConfig, CrossMaskBridgeForConditionalGeneration),
        (AutoModelForQuestionAnswering, *question_answering),
        (AutoModelForSequenceClassification, *classification),
        (AutoModelForTokenClassification, *tagging),
    ):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        auto_class.register(config_class, model_class, exist_ok=True)
        config_class.code_writer = staticmethod(partial(write_code_files, model_type=config_class.model_type))
        config_class.code_pipelines = custom_pipelines(PIPELINES.get(config_class.model_type, ()))
    AutoProcessor.register(CrossMaskBridgeConfig, CrossMaskBridgeProcessor, exist_ok=True)
    CrossMaskBridgeProcessor.code_writer = staticmethod(partial(write_code_files, model_type="crossmask-bridge"))
    register_pipelines()
