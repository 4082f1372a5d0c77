"""BPE-dropout: a text is cut into other subwords each time (Provilkov et al. 2020, https://arxiv.org/abs/1910.13267).

`tokenizers` has it too, but draws from a generator that takes no seed: a run could not be resumed, nor repeated.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from ..utils.errors import InputError


class BPEDropout:
    """Stands in for a tokenizer, and leaves out each merge with probability `dropout`.

    ```python
    >>> from crossmask.data.tokenizer_training import train_tokenizer
    >>> tokenizer = train_tokenizer(["barking", "bark"] * 20, vocab_size=300)
    >>> sampler = BPEDropout(tokenizer, dropout=0.4, seed=1)
    >>> [tokenizer.convert_ids_to_tokens(ids) for ids in sampler(["barking"] * 3)["input_ids"]]
    [['b', 'ar', 'k', 'in', 'g', '</s>'], ['bar', 'k', 'i', 'n', 'g', '</s>'], ['bark', 'i', 'n', 'g', '</s>']]
    ```

    Args:
        tokenizer: a fast tokenizer with a BPE model whose subwords carry no mark of their own (those of
            `train_tokenizer`, byte-level ones); normalisation, special tokens and cutting into words remain its own.
        dropout: 0 cuts as the tokenizer does, 1 into characters.
        seed: another seed cuts otherwise; every call draws on.

    Raises:
        ValueError: a tokenizer of another kind, or a dropout that is not a probability.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dropout: float, seed: int | str = 0) -> None:
        if not 0 <= dropout <= 1:
            raise InputError(f"BPE-dropout is {dropout}: expected a probability, for instance 0.1")
        if not tokenizer.is_fast:
            raise InputError(
                "BPE-dropout needs a fast tokenizer: load it through AutoTokenizer with its tokenizer.json"
            )
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        if model["type"] != "BPE":
            raise InputError(f"BPE-dropout needs a tokenizer with a BPE model, this one's is {model['type']}")
        if model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
            raise InputError(
                "BPE-dropout needs subwords without a mark at their beginning or end, this tokenizer adds one"
            )
        self.tokenizer, self.dropout = tokenizer, dropout
        self.truncation_side = tokenizer.truncation_side
        self._random = random.Random(seed)
        self._ids: dict[str, int] = model["vocab"]
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
        made = {left + right for left, right in self._ranks}
        # What no merge makes, bytes and special tokens among them, is never cut.
        self._whole = {token for token in tokenizer.get_vocab() if token not in made}

    def __call__(self, texts: Sequence[str], add_special_tokens: bool = True, **kwargs) -> dict[str, list[list[int]]]:
        """`input_ids` of every text; further keywords go to the tokenizer."""
        encoded = self.tokenizer(list(texts), add_special_tokens=add_special_tokens, **kwargs)
        return {"input_ids": [list(self._cut_again(encoding)) for encoding in encoded.encodings]}

    def _cut_again(self, encoding) -> Iterator[int]:
        word: list[str] = []
        number: int | None = None
        for token, id_, belongs in zip(encoding.tokens, encoding.ids, encoding.word_ids, strict=True):
            if belongs is None or belongs != number:
                yield from self._segment(word)
                word, number = [], belongs
            if belongs is None:
                yield id_
            else:
                word += [token] if token in self._whole else token
        yield from self._segment(word)

    def _segment(self, pieces: list[str]) -> Iterable[int]:
        """Merges characters, the learned pairs first, but each time only those pairs that are not dropped."""
        ranks, draw, dropout = self._ranks, self._random.random, self.dropout
        while len(pieces) > 1:
            merges = [
                (rank, at)
                for at, pair in enumerate(pairwise(pieces))
                if (rank := ranks.get(pair)) is not None and draw() >= dropout
            ]
            if not merges:
                break
            at = min(merges)[1]
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        return [self._ids[piece] for piece in pieces]
