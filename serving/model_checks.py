"""What every export asks of a model and its tokenizer, whatever the engine."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from ..configuration.crossmask import CrossMaskConfig
from ..modeling.crossmask import CrossMaskForConditionalGeneration
from ..utils.errors import InputError


def check_network(model: Any, fix_for_others: str) -> None:
    """Refuse a model that is not our own network with its language-model head.

    Args:
        fix_for_others: what to do with a model of another package.

    Raises:
        InputError: with its class.
    """
    if isinstance(model, CrossMaskForConditionalGeneration):
        return
    has_no_head = isinstance(model.config, CrossMaskConfig)
    fix = "load it with its language-model head, by AutoModelForSeq2SeqLM" if has_no_head else fix_for_others
    raise InputError(f"the model must be a CrossMaskForConditionalGeneration, got {type(model).__name__}; {fix}")


def check_tokenizer(tokenizer: Any, size: int) -> None:
    """Refuse a tokenizer that has ids which a vocabulary of `size` tokens has not.

    Raises:
        InputError: with its highest id.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(f"tokenizer must be a tokenizer of Transformers, got {type(tokenizer).__name__}; give one")
    if (highest := max(tokenizer.get_vocab().values(), default=0)) >= size:
        raise InputError(
            f"the tokenizer must have ids below the model's vocab_size={size}, got {highest}; give the tokenizer "
            "that the model was trained with"
        )
