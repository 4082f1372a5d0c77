"""What `import crossmask` registers with Transformers: the Auto classes, and the code files beside a saved model."""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from ..configuration.crossmask import CrossMaskConfig
from ..modeling.crossmask import CrossMaskForConditionalGeneration, CrossMaskModel
from .remote_code import write_code_files


def register() -> None:
    """Register the classes with the Auto classes, and make a config write the code files when it is saved.

    Saving a model saves its config. Calling this again changes nothing.
    """
    AutoConfig.register(CrossMaskConfig.model_type, CrossMaskConfig, exist_ok=True)
    AutoModel.register(CrossMaskConfig, CrossMaskModel, exist_ok=True)
    AutoModelForSeq2SeqLM.register(CrossMaskConfig, CrossMaskForConditionalGeneration, exist_ok=True)
    CrossMaskConfig.code_writer = staticmethod(write_code_files)
