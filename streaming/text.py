"""Streams of words over streams of tokens."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..inference.texts import is_blank
from ..masks import MaskError
from ..utils.errors import InputError, InputTypeError
from ..utils.text import check_unicode


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
        self.longest = getattr(model.config, "max_position_embeddings", None)
        if not hasattr(model, "open_stream"):
            raise InputTypeError(f"streams need a crossmask model, got {type(model).__name__}")
        try:
            self.stream = model.open_stream(batch, **options)
        except MaskError:
            raise
        except ValueError as error:  # the model says so of its masks, the policy and the options
            raise InputError(str(error)) from error
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
        check_unicode(text, f"the source of stream {row}")
        ids = self.tokenizer(text, add_special_tokens=ended, verbose=False)["input_ids"]
        if ids[: len(known)] != known:
            raise InputError(
                f"the tokenizer cuts {text!r} in another way than the words before the last alone; "
                "stream with one that cuts word by word, as crossmask.data.tokenizer_training makes them"
            )
        if self.longest is not None and len(ids) > self.longest:
            raise InputError(
                f"the source {text[:40]!r}... has {len(ids)} tokens, more than the model's "
                f"max_position_embeddings={self.longest}: split it"
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
class SimultaneousTranslation:
    """A text translated simultaneously: its words, and for each how many source words had been read."""

    text: str
    delays: list[int]
    source_length: int


def translate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    batch_size: int = 32,
    **options,
) -> Iterator[SimultaneousTranslation]:
    """Translate texts as if their words arrived one by one, `batch_size` texts side by side, in the order given.

    What is made of a blank text is an empty translation. Options as for `model.stream`.

    Raises:
        InputError: a text that is too long, or options that no stream can be opened with.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    remaining = iter(texts)
    while batch := list(islice(remaining, batch_size)):
        yield from _translate_side_by_side(model, tokenizer, batch, options)


def _translate_side_by_side(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], options: dict
) -> list[SimultaneousTranslation]:
    translations = [SimultaneousTranslation("", [], 0)] * len(texts)
    full = [index for index, text in enumerate(texts) if not is_blank(text)]
    if not full:
        return translations
    sources = [texts[index].split() for index in full]
    stream, read = TextStream(model, tokenizer, len(sources), **options), 0
    while not all(stream.finished):
        arrived = [
            words[read : read + 1] if not over else [] for words, over in zip(sources, stream.finished, strict=True)
        ]
        stream.push(arrived, ended=[read + 1 >= len(words) for words in sources])
        read += 1
    for index, words, delays, source in zip(full, stream.words, stream.delays, sources, strict=True):
        translations[index] = SimultaneousTranslation(" ".join(words), delays, len(source))
    return translations
