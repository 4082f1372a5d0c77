"""Spans of tokens for `keep`, `drop` and `blind`, found by searching texts."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from .expressions import MaskError
from .limits import brief
from .parameters import check_text
from .rules.spans import Spans


def find_spans(
    texts: str | Sequence[str],
    tokenizer: Any,
    *,
    patterns: str | re.Pattern[str] | Iterable[str | re.Pattern[str]] = (),
    terms: str | Iterable[str] = (),
    characters: Sequence[Sequence[tuple[int, int]]] | None = None,
    **options: Any,
) -> tuple[Spans, ...]:
    """The tokens of each text that have a character of a pattern, a term or given characters.

    A token that has any character of a match is in its span, so that no part of a match is outside.

    ```python
    names = masks.blind(examples=masks.find_spans(texts, tokenizer, terms=["Ada Lovelace"], patterns=r"\\d{5}"))
    model.generate(**tokenizer(texts, padding=True, return_tensors="pt"), encoder_mask=names, cross_mask=names)
    ```

    Args:
        texts: B texts, or one.
        tokenizer: a fast tokenizer of Transformers, which knows the characters that each token comes from.
        patterns: regular expressions.
        terms: words or phrases, found as they are written, inside of words too.
        characters: for each text, ranges `(first, one past the last)` of its characters.
        options: further options of the tokenizer, such as `truncation=True, max_length=128`.

    Returns:
        for each text its spans `(first, one past the last)`, in tokens counted from 0, without padding. Pass them as
        `blind(examples=...)`, for a single text too.

    Raises:
        MaskError: there is nothing to search for, the tokenizer has no offsets, `characters` are for another number of
            texts or outside of a text, or a pattern is not a regular expression.
    """
    texts = [texts] if isinstance(texts, str) else list(_sequence(texts, "texts"))
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise MaskError(f"find_spans: text {index} must be a string, got {brief(text)}")
        check_text(text, f"find_spans: text {index}")
    if not getattr(tokenizer, "is_fast", False):
        raise MaskError(
            f"find_spans: the tokenizer must be a fast one, which knows the characters of a token, got "
            f"{type(tokenizer).__name__}; load a fast one"
        )
    if characters is not None and len(_sequence(characters, "characters")) != len(texts):
        raise MaskError(f"find_spans: characters must be for all {len(texts)} texts, got them for {len(characters)}")
    searches = _read(patterns) + [re.compile(re.escape(term)) for term in _listed(terms, "terms", str)]
    if not searches and characters is None:
        raise MaskError(
            "find_spans: patterns, terms or characters must be given, got none, so that nothing would be hidden"
        )
    if empty := [search.pattern for search in searches if not search.pattern]:
        raise MaskError(f"find_spans: patterns and terms must not be empty, got {empty[0]!r}; leave it out")
    # Each text alone and without padding: then the index of a token is its position.
    options = {**options, "padding": False, "return_tensors": None, "return_offsets_mapping": True}
    spans = []
    for index, text in enumerate(texts):
        ranges = [match.span() for search in searches for match in search.finditer(text) if match.group()]
        for pair in () if characters is None else _sequence(characters[index], f"characters[{index}]"):
            ends = tuple(pair) if isinstance(pair, Sequence) else ()
            if len(ends) != 2 or not all(type(end) is int for end in ends) or not 0 <= ends[0] < ends[1] <= len(text):
                raise MaskError(
                    f"find_spans: characters must be pairs (first, one past the last) within text {index}, which has "
                    f"{len(text)} characters, got {brief(pair)}"
                )
            ranges.append(ends)
        spans.append(_tokens_of(ranges, tokenizer(text, **options)["offset_mapping"]))
    return tuple(spans)


def _read(patterns: str | re.Pattern[str] | Iterable[str | re.Pattern[str]]) -> list[re.Pattern[str]]:
    return [_compile(pattern) for pattern in _listed(patterns, "patterns", str | re.Pattern)]


def _compile(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise MaskError(
            f"find_spans: a pattern must be a regular expression, got {brief(pattern)}: {error}"
        ) from error


def _listed(value: Any, name: str, kind: Any) -> list[Any]:
    """A string, a pattern, or several of them, as a list."""
    if isinstance(value, str | re.Pattern):
        value = [value]
    if not isinstance(value, Iterable):
        raise MaskError(f"find_spans: {name} must be strings, got {brief(value)}")
    listed = list(value)
    for item in listed:
        # A pattern of bytes cannot be searched for in a string.
        if not isinstance(item, kind) or not isinstance(getattr(item, "pattern", item), str):
            raise MaskError(f"find_spans: {name} must be strings, got {brief(item)}")
    return listed


def _sequence(value: Any, name: str) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise MaskError(f"find_spans: {name} must be a list, got {brief(value)}")
    return value


def _tokens_of(ranges: list[tuple[int, int]], offsets: list[tuple[int, int]]) -> Spans:
    """The spans of tokens that have a character in one of the ranges."""
    ends: list[int] = []
    starts: list[int] = []
    for start, end in sorted(ranges):
        if ends and start < ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    spans: list[tuple[int, int]] = []
    for index, (first, last) in enumerate(offsets):
        after = bisect_right(ends, first)  # the first range that ends after the token's first character
        if after < len(ends) and starts[after] < last:
            continues = spans and spans[-1][1] == index
            spans.append((spans.pop()[0] if continues else index, index + 1))
    return tuple(spans)
