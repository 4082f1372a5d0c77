"""Streams of words over streams of tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..utils.errors import InputError


class TextStream:
    """Translates texts side by side, word by word; push source words, get whole target words.

    ```python
    >>> stream = TextStream(model, tokenizer, cross_mask="wait_k(3)")
    >>> stream.push([["A", "dog"]])
    [[]]
    >>> stream.push([["barks"]], ended=True)
    [['Ein', 'Hund', 'bellt']]
    >>> stream.delays
    [[3, 3, 3]]
    ```

    Args:
        batch: the number of texts.
        options: as for `model.stream`: masks, policy, generation options.

    Attributes:
        words: the target words of each text so far. delays: after how many source words each was written.
        finished: which texts have their last word.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int = 1, **options):
        self.tokenizer = tokenizer
        self.stream = model.open_stream(batch, **options)
        self.source: list[list[str]] = [[] for _ in range(batch)]
        self.words: list[list[str]] = [[] for _ in range(batch)]
        self.delays: list[list[int]] = [[] for _ in range(batch)]

    @property
    def finished(self) -> list[bool]:
        return self.stream.finished

    def push(self, words: Sequence[Sequence[str]], ended: bool | Sequence[bool] = False) -> list[list[str]]:
        """Take source words that have arrived, for each text, and return the target words that are now complete.

        A word is complete when the next one begins, or the text is finished.

        Raises:
            ValueError: as `TranslationStream.push`, or a tokenizer whose tokens change with the words that follow.
        """
        ends = [ended] * len(words) if isinstance(ended, bool) else list(ended)
        open_rows = [not over for over in self.stream.ended]
        tokens = [
            self._new_tokens(row, new, end) if still_open or new else []
            for row, (new, end, still_open) in enumerate(zip(words, ends, open_rows, strict=True))
        ]
        self.stream.push(tokens, ends)
        return [self._new_words(row) for row in range(len(words))]

    def _new_tokens(self, row: int, words: Sequence[str], ended: bool) -> list[int]:
        known = self.stream.arrived[row]
        self.source[row] += words
        text = " ".join(self.source[row])
        ids = self.tokenizer(text, add_special_tokens=ended, verbose=False)["input_ids"]
        if ids[: len(known)] != known:
            raise InputError(
                f"the tokenizer cuts {text!r} in another way than the words before the last alone; "
                "stream with one that cuts word by word, as crossmask.data.tokenizer makes them"
            )
        return ids[len(known) :]

    def _new_words(self, row: int) -> list[str]:
        known, stream = self.words[row], self.stream
        words = self.tokenizer.decode(stream.targets[row], skip_special_tokens=True).split()
        new = words[len(known) : None if stream.finished[row] else len(words) - 1]
        known += new
        self.delays[row] += [len(self.source[row])] * len(new)
        return new


@dataclass(frozen=True)
class Translation:
    """A text translated simultaneously: its words, and for each how many source words had been read."""

    text: str
    delays: list[int]
    source_length: int


def translate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    batch_size: int = 32,
    **options,
) -> Iterator[Translation]:
    """Translate texts as if their words arrived one by one, `batch_size` texts side by side, in the order given.

    Options as for `model.stream`.
    """
    for start in range(0, len(texts), batch_size):
        sources = [text.split() for text in texts[start : start + batch_size]]
        stream, read = TextStream(model, tokenizer, len(sources), **options), 0
        while not all(stream.finished):
            arrived = [
                words[read : read + 1] if not over else []
                for words, over in zip(sources, stream.finished, strict=True)
            ]
            stream.push(arrived, ended=[read + 1 >= len(words) for words in sources])
            read += 1
        for words, delays, source in zip(stream.words, stream.delays, sources, strict=True):
            yield Translation(" ".join(words), delays, len(source))
