"""BPE-dropout: a text is segmented differently each time (Provilkov et al. 2020, https://arxiv.org/abs/1910.13267).

`tokenizers` has it too, but its random numbers take no seed, so that a run could neither be resumed nor repeated.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from ..utils.errors import InputError


class BPEDropout:
    """Tokenizes texts like a given tokenizer, but skips each merge with probability `dropout`.

    ```python
    >>> from crossmask.data.tokenizer_training import train_tokenizer
    >>> tokenizer = train_tokenizer(["barking", "bark"] * 20, vocab_size=300)
    >>> sampler = BPEDropout(tokenizer, dropout=0.4, seed=1)
    >>> [tokenizer.convert_ids_to_tokens(ids) for ids in sampler(["barking"] * 3)["input_ids"]]
    [['b', 'ar', 'k', 'in', 'g', '</s>'], ['bar', 'k', 'i', 'n', 'g', '</s>'], ['bark', 'i', 'n', 'g', '</s>']]
    ```

    Args:
        tokenizer: a fast tokenizer with a BPE model whose subwords have no prefix or suffix that marks them (those of
            `train_tokenizer`, byte-level ones). Normalisation, special tokens and splitting into words stay as they
            are.
        dropout: 0 segments as the tokenizer does, 1 into characters.
        seed: of the random numbers, which continue from call to call.

    Raises:
        ValueError: a tokenizer of another kind, or a dropout that is not a probability.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dropout: float, seed: int | str = 0) -> None:
        if not 0 <= dropout <= 1:
            raise InputError(f"dropout must be a probability from 0 to 1, got {dropout}; give 0.1, for instance")
        if not tokenizer.is_fast:
            raise InputError(
                f"BPE-dropout must have a fast tokenizer, got {type(tokenizer).__name__}; load it by AutoTokenizer "
                "from a tokenizer.json"
            )
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        if model["type"] != "BPE":
            raise InputError(f"BPE-dropout must have a BPE model, got {model['type']}; give another tokenizer")
        if model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
            raise InputError(
                "BPE-dropout must have subwords without continuing_subword_prefix and end_of_word_suffix, got "
                f"{model['continuing_subword_prefix']!r} and {model['end_of_word_suffix']!r}; give another tokenizer"
            )
        self.tokenizer, self.dropout = tokenizer, dropout
        self.truncation_side = tokenizer.truncation_side
        self._random = random.Random(seed)
        self._ids: dict[str, int] = model["vocab"]
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
        merged = {left + right for left, right in self._ranks}
        # Tokens that no merge gives, bytes and special tokens among them, are never split.
        self._atomic = {token for token in tokenizer.get_vocab() if token not in merged}

    def __call__(self, text: Sequence[str] | None = None, **kwargs) -> dict[str, list[list[int]]]:
        """`input_ids` of every text; keywords go to the tokenizer, `text_target` in place of the texts among them."""
        encoded = self.tokenizer(text if text is None else list(text), **kwargs)
        return {"input_ids": [list(self._resegment(encoding)) for encoding in encoded.encodings]}

    def _resegment(self, encoding) -> Iterator[int]:
        pieces: list[str] = []  # of the current word
        current_word: int | None = None
        for token, id_, word in zip(encoding.tokens, encoding.ids, encoding.word_ids, strict=True):
            if word is None or word != current_word:
                yield from self._segment(pieces)
                pieces, current_word = [], word
            if word is None:  # a special token
                yield id_
            else:
                pieces += [token] if token in self._atomic else token
        yield from self._segment(pieces)

    def _segment(self, pieces: list[str]) -> Iterable[int]:
        """Merges the pieces of a word pair by pair, in the learned order, each time among the pairs not dropped."""
        ranks, draw, dropout = self._ranks, self._random.random, self.dropout
        while len(pieces) > 1:
            merges = [
                (rank, index)
                for index, pair in enumerate(pairwise(pieces))
                if (rank := ranks.get(pair)) is not None and draw() >= dropout
            ]
            if not merges:
                break
            index = min(merges)[1]
            pieces[index : index + 2] = [pieces[index] + pieces[index + 1]]
        return [self._ids[piece] for piece in pieces]
