"""Texts that are longer than a model takes: the sentences that they are split into, and how these are joined again."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..seq2seq.sentences import sentence_spans
from .inputs import PipelineInputError

Splitter = Callable[[str], Sequence[str]]


class Piece(NamedTuple):
    """A part of a text: what it says, the character that it begins at, and the whitespace before the next piece."""

    text: str
    start: int
    separator: str


def whole(text: str) -> list[Piece]:
    """A text in one piece."""
    return [Piece(text, 0, "")]


def sentences(text: str, splitter: Splitter | None, name: str) -> list[Piece]:
    """The sentences of a text, each a piece.

    Args:
        splitter: gives the sentences of a text, in their order; by default those of `sentence_spans`.
        name: of the text, in errors.

    Raises:
        PipelineInputError: the splitter gives something that is not in the text.
    """
    spans = sentence_spans(text) if splitter is None else _spans_of(splitter(text), text, name)
    starts = [start for start, _ in spans[1:]]
    separators = [text[end:start] for (_, end), start in zip(spans, starts, strict=False)]
    return [
        Piece(text[start:end], start, separator)
        for (start, end), separator in zip(spans, [*separators, ""], strict=True)
    ]


def _spans_of(parts: Sequence[str], text: str, name: str) -> list[tuple[int, int]]:
    spans, position = [], 0
    for part in map(str.strip, parts):
        start = text.find(part, position)
        if start < 0 or text[position:start].strip():
            raise PipelineInputError(
                f"{name}: splitter must give all of the text in its order, got {part[:40]!r} at character {position}"
            )
        position = start + len(part)
        if part:
            spans.append((start, position))
    if text[position:].strip():
        raise PipelineInputError(
            f"{name}: splitter must give all of the text, got nothing of {text[position:].strip()[:40]!r}"
        )
    return spans


def join(texts: Sequence[str], separators: Sequence[str]) -> str:
    """The outputs of pieces with the whitespace that stood between the pieces."""
    return "".join(text + separator for text, separator in zip(texts, separators, strict=True))
