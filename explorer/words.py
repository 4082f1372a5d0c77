"""The tokens of a source, and the words that they belong to: a reader hides words, a model sees tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_STARTS = ("▁", "Ġ", " ")
"""What the first piece of a word begins with, by SentencePiece, byte-level BPE, and plain BPE."""


@dataclass(frozen=True)
class SourceToken:
    """A token of a source.

    Attributes:
        text: to show. word: the number of the word that it is in, None for one that stands for no text.
    """

    text: str
    word: int | None


def source_tokens(tokenizer: Any, text: str) -> tuple[list[int], list[SourceToken]]:
    """The token ids of a text, and what each is."""
    encoded = tokenizer(text, verbose=False, return_offsets_mapping=tokenizer.is_fast)
    ids: list[int] = encoded["input_ids"]
    shown = show_tokens(tokenizer, ids)
    words = _by_offsets(text, encoded["offset_mapping"]) if tokenizer.is_fast else _by_pieces(tokenizer, ids)
    return ids, [SourceToken(*pair) for pair in zip(shown, words, strict=True)]


def show_tokens(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token without spaces around it, or its name where it has no text."""
    texts = [tokenizer.decode([number]).strip() for number in ids]
    names = tokenizer.convert_ids_to_tokens(list(ids))
    return [text if text and "\ufffd" not in text else name for text, name in zip(texts, names, strict=True)]


def _by_offsets(text: str, offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    word_at = {
        position: number for number, match in enumerate(re.finditer(r"\S+", text)) for position in range(*match.span())
    }
    return [next((word_at[i] for i in range(start, end) if i in word_at), None) for start, end in offsets]


def _by_pieces(tokenizer: Any, ids: Sequence[int]) -> list[int | None]:
    words: list[int | None] = []
    current = -1
    for piece, number in zip(tokenizer.convert_ids_to_tokens(list(ids)), ids, strict=True):
        if number in tokenizer.all_special_ids:
            words.append(None)
            continue
        current += current < 0 or piece.startswith(_STARTS)
        words.append(current)
    return words
