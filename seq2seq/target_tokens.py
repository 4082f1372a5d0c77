"""How a tokenizer writes texts inside of a target."""

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from .sentences import ANSWER

Tokens = tuple[int, ...]


def encode_targets(tokenizer: PreTrainedTokenizerBase, texts: list[str], **options: Any) -> Any:
    """The encoding of whole targets, without special tokens."""
    return tokenizer(text_target=texts, add_special_tokens=False, verbose=False, **options)


def tokens_behind_space(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, Tokens]:
    """The token ids of each text where other text and a space stand before it, which many tokenizers write otherwise.

    Args:
        tokenizer: a fast one, for offsets.
    """
    before, ordered = ANSWER.rstrip(), sorted(texts)
    if not ordered:
        return {}
    encoded = encode_targets(tokenizer, [f"{before} {text}" for text in ordered], return_offsets_mapping=True)
    found = {}
    for text, ids, offsets in zip(ordered, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        border = next((at for at, (_, end) in enumerate(offsets) if end > len(before)), len(ids))
        found[text] = tuple(ids[border:])
    return found
