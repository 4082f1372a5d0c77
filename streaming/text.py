"""Streams of words, on top of streams of tokens."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..inference.texts import tokenizers_of
from ..masks import MaskError
from ..seq2seq.lengths import longest_source
from ..utils.errors import InputError, InputTypeError
from ..utils.text import check_text, is_blank


class TextStream:
    """Translates texts side by side, word by word: source words are pushed, complete target words are returned.

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
        prefix: is read before the first word of each text, such as `"<2de> "`; delays do not count it.
        options: as for `model.stream`: masks, policy, generation options.

    Attributes:
        words: the target words of each text so far.
        delays: for each of them the number of source words that had been read when it was written.
        finished: for each text whether its last word was written.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int = 1, prefix: str = "", **options
    ):
        self.tokenizer, self.target_tokenizer = tokenizers_of(tokenizer)
        self.longest, self.prefix = longest_source(model), prefix
        if not hasattr(model, "open_stream"):
            raise InputTypeError(f"model must be a crossmask model, got {type(model).__name__}; streams need one")
        try:
            self.stream = model.open_stream(batch, **options)
        except MaskError:
            raise
        except ValueError as error:  # from the model, about its masks, the policy or the options
            raise InputError(str(error)) from error
        self.source: list[list[str]] = [[] for _ in range(batch)]
        self.words: list[list[str]] = [[] for _ in range(batch)]
        self.delays: list[list[int]] = [[] for _ in range(batch)]

    @property
    def finished(self) -> list[bool]:
        return self.stream.finished

    def push(self, words: Sequence[Sequence[str]], ended: bool | Sequence[bool] = False) -> list[list[str]]:
        """Take the source words of each text that have arrived, and return the target words that are now complete.

        A word is complete when the next one begins, or the text is finished.

        Args:
            words: for each text those that have arrived.
            ended: whether the source has ended, of all texts or of each.

        Raises:
            ValueError: as `TranslationStream.push`, or a tokenizer whose tokens change with the words that follow.
        """
        ends = [ended] * len(words) if isinstance(ended, bool) else list(ended)
        tokens = [
            self._new_tokens(row, new, end) if new or not has_ended else []
            for row, (new, end, has_ended) in enumerate(zip(words, ends, self.stream.ended, strict=True))
        ]
        self.stream.push(tokens, ends)
        return [self._new_words(row) for row in range(len(words))]

    def _new_tokens(self, row: int, words: Sequence[str], ended: bool) -> list[int]:
        known = self.stream.arrived[row]
        self.source[row] += words
        text = self.prefix + " ".join(self.source[row]) if self.source[row] else ""
        check_text(text, f"the source of stream {row}")
        ids = self._tokens(text, ended)
        if ids[: len(known)] != known:
            raise InputError(
                f"tokens of the words before must not change with the words that follow, got others for {text!r}; "
                "stream with a tokenizer that splits word by word, such as those of crossmask.data.tokenizer_training"
            )
        if self.longest is not None and len(ids) > self.longest:
            raise InputError(
                f"the source {text[:40]!r}... must have at most {self.longest} tokens, which is what the "
                f"model takes, got {len(ids)}; split it"
            )
        return ids[len(known) :]

    def _tokens(self, text: str, ended: bool) -> list[int]:
        """The tokens of a source so far: those that the tokenizer puts behind a text stand at its end only."""
        whole: list[int] = self.tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"]
        if ended:
            return whole
        plain: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        before = next((n for n in range(len(whole)) if whole[n : n + len(plain)] == plain), 0)
        return whole[: before + len(plain)]

    def _new_words(self, row: int) -> list[str]:
        known, stream = self.words[row], self.stream
        words = self.target_tokenizer.decode(stream.targets[row], skip_special_tokens=True).split()
        new = words[len(known) : None if stream.finished[row] else len(words) - 1]
        known += new
        self.delays[row] += [len(self.source[row])] * len(new)
        return new


@dataclass(frozen=True)
class SimultaneousTranslation:
    """A text translated simultaneously, with the number of source words read before each of its words."""

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
    """Translate texts as if their words arrived one by one, `batch_size` texts side by side, in their order.

    The translation of a blank text is empty. Options are those of `TextStream`.

    Raises:
        InputError: a text that is too long, or options with which no stream can be opened.
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
    not_blank = [index for index, text in enumerate(texts) if not is_blank(text)]
    if not not_blank:
        return translations
    sources = [texts[index].split() for index in not_blank]
    stream, read = TextStream(model, tokenizer, len(sources), **options), 0
    while not all(stream.finished):
        arrived = [
            [] if finished else words[read : read + 1]
            for words, finished in zip(sources, stream.finished, strict=True)
        ]
        stream.push(arrived, ended=[read + 1 >= len(words) for words in sources])
        read += 1
    for index, words, delays, source in zip(not_blank, stream.words, stream.delays, sources, strict=True):
        translations[index] = SimultaneousTranslation(" ".join(words), delays, len(source))
    return translations
