"""What `import crossmask` tells Transformers: the Auto classes, and the code files that a saved model carries."""

from functools import partial

from transformers import AutoConfig, AutoModel, AutoModelForQuestionAnswering, AutoModelForSeq2SeqLM

from ..configuration.crossmask import CrossMaskConfig
from ..modeling.crossmask import CrossMaskForConditionalGeneration, CrossMaskModel
from ..question_answering.configuration import CrossMaskQuestionAnsweringConfig
from ..question_answering.modeling import CrossMaskForQuestionAnswering
from .remote_code import QUESTION_ANSWERING_ENTRIES, write_code_files


def register() -> None:
    """Register the classes with the Auto classes, and have a config write the code files when it is saved.

    Saving a model saves its config. Calling this again changes nothing.
    """
    AutoConfig.register(CrossMaskConfig.model_type, CrossMaskConfig, exist_ok=True)
    AutoModel.register(CrossMaskConfig, CrossMaskModel, exist_ok=True)
    AutoModelForSeq2SeqLM.register(CrossMaskConfig, CrossMaskForConditionalGeneration, exist_ok=True)
    CrossMaskConfig.code_writer = staticmethod(write_code_files)
    config_class = CrossMaskQuestionAnsweringConfig
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModelForQuestionAnswering.register(config_class, CrossMaskForQuestionAnswering, exist_ok=True)
    config_class.code_writer = staticmethod(partial(write_code_files, entries=QUESTION_ANSWERING_ENTRIES))
