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
    for config, model, generator in (
        (CrossMaskConfig, CrossMaskModel, CrossMaskForConditionalGeneration),
        (
            CrossMaskBridgeConfig,
            CrossMaskBridgeForConditionalGeneration,
            CrossMaskBridgeForConditionalGeneration,
        ),
    ):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
        AutoModelForSeq2SeqLM.register(config, generator, exist_ok=True)
        config.code_writer = staticmethod(partial(write_code_files, model_type=config.model_type))
    reader = CrossMaskQuestionAnsweringConfig
    AutoConfig.register(reader.model_type, reader, exist_ok=True)
    AutoModelForQuestionAnswering.register(reader, CrossMaskForQuestionAnswering, exist_ok=True)
    reader.code_writer = staticmethod(partial(write_code_files, model_type=reader.model_type))
