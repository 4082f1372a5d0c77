"""Words as tokens: which token stands for each word, and the tags of words from the scores of tokens."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from .bio import BioDecoder


class EncodedWords(NamedTuple):
    """A text of words as an encoder takes it.

    Attributes:
        input_ids: its tokens. word_ids: the word of each token, -1 for special tokens.
        first_tokens: the first token of each word, -1 for a word that has none.
    """

    input_ids: list[int]
    word_ids: list[int]
    first_tokens: list[int]


def encode_words(
    tokenizer: Any, sentences: Sequence[Sequence[str]], max_length: int | None = None
) -> list[EncodedWords]:
    """The tokens of sentences, whose words are joined by spaces.

    Args:
        tokenizer: a fast one of Transformers.
        max_length: tokens at most; words behind are cut off. None for any number.

    Raises:
        ValueError: a tokenizer without offsets, or a sentence without words.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} does not tell from which characters a token is; load a fast tokenizer"
        )
    for index, words in enumerate(sentences):
        if isinstance(words, str) or not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise ValueError(f"sentences[{index}] must be a list of words, got {words!r:.80}")
    cut = {} if max_length is None else {"truncation": True, "max_length": max_length}
    texts = [" ".join(words) for words in sentences]
    encoded = tokenizer(texts, return_offsets_mapping=True, verbose=False, **cut)
    found = []
    for index, words in enumerate(sentences):
        starts, position = [], 0
        for word in words:
            starts.append(position)
            position += len(word) + 1
        # By its last character: the first of some tokens is the space before the word.
        word_ids = [
            bisect_right(starts, last - 1) - 1 if first < last else -1
            for first, last in encoded["offset_mapping"][index]
        ]
        first_tokens = [-1] * len(words)
        for token in range(len(word_ids) - 1, -1, -1):
            if word_ids[token] >= 0:
                first_tokens[word_ids[token]] = token
        found.append(EncodedWords(encoded["input_ids"][index], word_ids, first_tokens))
    return found


def marks_of(encoded: EncodedWords, word: int) -> list[int]:
    """The marks of tokens: 1 for those of the word, 0 for all others."""
    return [int(owner == word) for owner in encoded.word_ids]


def word_scores(logits: torch.Tensor, first_tokens: torch.Tensor) -> torch.Tensor:
    """The scores of words, those of their first tokens, 0 where there is none: (B, S, C) and (B, W) to (B, W, C)."""
    index = first_tokens.clamp(min=0)[..., None].expand(-1, -1, logits.shape[-1])
    return logits.gather(1, index).masked_fill((first_tokens < 0)[..., None], 0.0)


@torch.no_grad()
def label_words(model: Any, tokenizer: Any, words: Sequence[str], marked: int | None = None) -> list[str]:
    """The well-formed BIO tags of the words of one sentence.

    ```python
    >>> label_words(model, tokenizer, ["Ann", "sees", "him", "."], marked=1)
    ['B-ARG0', 'B-V', 'B-ARG1', 'O']
    ```

    Args:
        model: a `CrossMaskForTokenClassification` whose classes are BIO tags.
        marked: the number of the word that is marked, such as the predicate; None for none.

    Raises:
        ValueError: no words, a number that no word has, more tokens than the model takes, or
            classes that are no BIO tags.
    """
    decode = BioDecoder([model.config.id2label[index] for index in range(model.config.num_labels)])
    if marked is not None and not 0 <= marked < len(words):
        raise ValueError(f"marked must be the number of a word, 0 to {len(words) - 1}, got {marked}")
    (encoded,) = encode_words(tokenizer, [words])
    inputs = {"input_ids": torch.tensor([encoded.input_ids], device=model.device)}
    if marked is not None:
        inputs["marker_ids"] = torch.tensor([marks_of(encoded, marked)], device=model.device)
    logits = model(**inputs).logits
    first_tokens = torch.tensor([encoded.first_tokens], device=model.device)
    return decode(word_scores(logits, first_tokens), [len(words)])[0]
