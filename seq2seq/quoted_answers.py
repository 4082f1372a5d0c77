"""Answers that can only be quoted: a sentence of the context, `Answer: `, and words of that sentence."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from .sentences import ANSWER, sentence_spans
from .target_tokens import Tokens, encode_targets, tokens_behind_space

SENTENCES = 3  # that are quoted together at most: a dot behind an abbreviation ends one too
LONGEST_INNER = 16  # characters of an answer that begins and ends inside of what stands between two spaces
# Characters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
# One of them, a word, or a character that belongs to none.
_WORD = re.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED})\w)+|[^\w\s]")


class Chunk(NamedTuple):
    """How what stands between two spaces may be written: whole, or of its words the last, the first or those between.

    It is cut anew for each, since many tokenizers cut a word and its punctuation otherwise than the word alone.
    """

    whole: Tokens
    last: tuple[Tokens, ...]
    first: tuple[Tokens, ...]
    inner: tuple[Tokens, ...]


class Quotable(NamedTuple):
    """What may be written of one sentence, or of neighbouring ones.

    Attributes:
        sentence: its token ids with those of the mark behind it, all of which are written.
        chunks: of it, of which one run of words is written behind the mark; nothing more where there are none.
    """

    sentence: Tokens
    chunks: tuple[Chunk, ...]


def quotables(tokenizer: PreTrainedTokenizerBase, context: str, no_answer: str | None = None) -> list[Quotable]:
    """What may be written of each sentence of a context, and of up to three neighbouring ones.

    Args:
        tokenizer: of targets, a fast one.
        no_answer: may be written behind the mark alone.
    """
    spans = sentence_spans(context)
    runs = [
        context[first:last]
        for index, (first, _) in enumerate(spans)
        for _, last in spans[index : index + SENTENCES]
    ]  # fmt: skip
    chunks = dict.fromkeys(chunk for run in runs for chunk in run.split())
    written = tokens_behind_space(tokenizer, {piece for chunk in chunks for _, piece in _pieces(chunk)})
    known = {chunk: _chunk(chunk, written) for chunk in chunks}
    marked = [(f"{run} {ANSWER}".rstrip(), tuple(known[chunk] for chunk in run.split())) for run in runs]
    if no_answer is not None:
        marked.append((f"{ANSWER}{no_answer}", ()))
    if not marked:
        return []
    encoded = encode_targets(tokenizer, [text for text, _ in marked])["input_ids"]
    return [Quotable(tuple(ids), of_run) for ids, (_, of_run) in zip(encoded, marked, strict=True)]


def _pieces(chunk: str) -> list[tuple[str, str]]:
    """Its runs of words, each with the field of a `Chunk` that it is for."""
    words = [match.span() for match in _WORD.finditer(chunk)]
    begins, ends = [begin for begin, _ in words[1:]], [end for _, end in words[:-1]]
    found = [("whole", chunk)]
    found += [("first", chunk[:end]) for end in ends] + [("last", chunk[begin:]) for begin in begins]
    for at, begin in enumerate(begins, start=1):
        short = bisect_right(ends, begin + LONGEST_INNER)
        found += [("inner", chunk[begin:end]) for end in ends[at:short]]
    return found


def _chunk(chunk: str, written: Mapping[str, Tokens]) -> Chunk:
    of_field: dict[str, dict[Tokens, None]] = {"last": {}, "first": {}, "inner": {}}
    for name, piece in _pieces(chunk)[1:]:
        of_field[name][written[piece]] = None
    return Chunk(written[chunk], **{name: tuple(pieces) for name, pieces in of_field.items()})


def allowed(sentences: Iterable[Quotable], written: Tokens, ends: Sequence[int]) -> list[int]:
    """The tokens that may follow what is written.

    ```python
    >>> ann, left = (Chunk((token,), (), (), ()) for token in (5, 6))
    >>> allowed([Quotable((5, 6, 9), (ann, left))], (5, 6, 9), ends=[2])
    [5, 6]
    >>> allowed([Quotable((5, 6, 9), (ann, left))], (5, 6, 9, 5), ends=[2])
    [2, 6]
    ```
    """
    found: set[int] = set()
    for sentence, chunks in sentences:
        if written[: len(sentence)] != sentence[: len(written)]:
            continue
        if len(written) < len(sentence):
            found.add(sentence[len(written)])
            continue
        run = written[len(sentence) :]
        if not chunks and not run:
            found.update(ends)
        for at, chunk in enumerate(chunks):
            _add_next(found, ends, (chunk.whole, *chunk.last, *chunk.first, *chunk.inner), run)
            for begin in (chunk.whole, *chunk.last):
                if begin and run[: len(begin)] == begin:
                    _go_on(found, ends, chunks[at + 1 :], run[len(begin) :])
    return sorted(found) or list(ends)


def _add_next(found: set[int], ends: Sequence[int], pieces: Iterable[Tokens], run: Tokens) -> None:
    """Add what follows a run of which one of the pieces is being written, or the ends where it is complete."""
    for piece in pieces:
        if piece and piece[: len(run)] == run:
            found.update([piece[len(run)]] if len(run) < len(piece) else ends)


def _go_on(found: set[int], ends: Sequence[int], chunks: Sequence[Chunk], run: Tokens) -> None:
    """Add what may follow a run that goes on from whole chunks."""
    for chunk in chunks:
        _add_next(found, ends, (chunk.whole, *chunk.first), run)
        if run[: len(chunk.whole)] != chunk.whole:
            return
        run = run[len(chunk.whole) :]
