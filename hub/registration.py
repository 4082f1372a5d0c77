"""What `import crossmask` tells Transformers: the Auto classes, and the code files that a saved model carries."""

from functools import partial

from transformers import AutoConfig, AutoModel, AutoModelForQuestionAnswering, AutoModelForSeq2SeqLM

from ..bridge import CrossMaskBridgeConfig, CrossMaskBridgeForConditionalGeneration
from ..configuration.crossmask import CrossMaskConfig
from ..modeling.crossmask import CrossMaskForConditionalGeneration, CrossMaskModel
from ..question_answering.configuration import CrossMaskQuestionAnsweringConfig
from ..question_answering.modeling import CrossMaskForQuestionAnswering
from .remote_code import write_code_files


def register() -> None:
    """Register the classes with the Auto classes, and have a config write the code files when it is saved.

    Saving a model saves its config. Calling this again changes nothing.
    """
    question_answering = CrossMaskQuestionAnsweringConfig, CrossMaskForQuestionAnswering
    for auto_class, config_class, model_class in (
        (AutoModel, CrossMaskConfig, CrossMaskModel),
        (AutoModelForSeq2SeqLM, CrossMaskConfig, CrossMaskForConditionalGeneration),
        (AutoModel, CrossMaskBridgeConfig, CrossMaskBridgeForConditionalGeneration),
        (AutoModelForSeq2SeqLM, CrossMaskBridgeConfig, CrossMaskBridgeForConditionalGeneration),
        (AutoModelForQuestionAnswering, *question_answering),
    ):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        auto_class.register(config_class, model_class, exist_ok=True)
        config_class.code_writer = staticmethod(partial(write_code_files, model_type=config_class.model_type))
