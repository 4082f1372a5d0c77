"""What `import crossmask` tells Transformers: the Auto classes, and the code files that a saved model carries."""

from functools import partial

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor

from ..bridge import CrossMaskBridgeConfig, CrossMaskBridgeForConditionalGeneration, CrossMaskBridgeProcessor
from ..configuration.crossmask import CrossMaskConfig
from ..modeling.crossmask import CrossMaskForConditionalGeneration, CrossMaskModel
from .remote_code import write_code_files


def register() -> None:
    """Register the classes with the Auto classes, and have configs and processors write the code files when saved.

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
    AutoProcessor.register(CrossMaskBridgeConfig, CrossMaskBridgeProcessor, exist_ok=True)
    CrossMaskBridgeProcessor.code_writer = staticmethod(partial(write_code_files, model_type="crossmask-bridge"))
