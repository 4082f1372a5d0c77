"""Whether a model has the tokens of its tokenizer."""

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..utils.errors import InputError


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Refuse a tokenizer with more tokens than a model's vocabulary.

    Raises:
        InputError: with both sizes, and what to do.
    """
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"vocab_size must be at least that of the tokenizer, {len(tokenizer)}, got {config.vocab_size}; call "
            f"model.resize_token_embeddings({len(tokenizer)}) and save the model"
        )
