"""Spans of tokens for `keep`, `drop` and `blind`, found in the text."""

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
    """Where patterns, terms or stretches of characters lie among the tokens of each text.

    A token that holds any character of a match belongs to it, so nothing of the match is outside of its span.

    ```python
    names = masks.blind(examples=masks.find_spans(texts, tokenizer, terms=["Ada Lovelace"], patterns=r"\\d{5}"))
    model.generate(**tokenizer(texts, padding=True, return_tensors="pt"), encoder_mask=names, cross_mask=names)
    ```

    Args:
        texts: B texts, or one.
        tokenizer: a fast tokenizer of Transformers, which knows from which characters a token is.
        patterns: regular expressions.
        terms: words or phrases, found as they are written, whatever stands around them.
        characters: for each text, stretches `(first, one past the last)` of its characters.
        options: what the texts are tokenised with otherwise, such as `truncation=True, max_length=128`.

    Returns:
        for each text its spans `(first, one past the last)`, counted in tokens from 0, padding left out. Give them to
        `blind(examples=...)`, also where there is one text.

    Raises:
        MaskError: nothing to look for, a tokenizer without offsets, characters for another number of texts or outside
            of a text, a pattern that cannot be read.
    """
    texts = [texts] if isinstance(texts, str) else list(_sequence(texts, "texts"))
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise MaskError(f"find_spans: text {index} must be a string, got {brief(text)}")
        check_text(text, f"find_spans: text {index}")
    if not getattr(tokenizer, "is_fast", False):
        raise MaskError(
            f"find_spans: {type(tokenizer).__name__} does not tell from which characters a token is; load a fast one"
        )
    if characters is not None and len(_sequence(characters, "characters")) != len(texts):
        raise MaskError(f"find_spans: characters of {len(characters)} texts, but there are {len(texts)} texts")
    searches = _read(patterns) + [re.compile(re.escape(term)) for term in _listed(terms, "terms", str)]
    if not searches and characters is None:
        raise MaskError(
            "find_spans: nothing to look for, so nothing would be hidden; give patterns, terms or characters"
        )
    if empty := [search.pattern for search in searches if not search.pattern]:
        raise MaskError(f"find_spans: {empty[0]!r} is empty and finds nothing; leave it out, or write what to find")
    # Alone, without padding: then a token's index is its position.
    options = {**options, "padding": False, "return_tensors": None, "return_offsets_mapping": True}
    found = []
    for index, text in enumerate(texts):
        stretches = [match.span() for search in searches for match in search.finditer(text) if match.group()]
        for stretch in () if characters is None else _sequence(characters[index], f"characters[{index}]"):
            ends = tuple(stretch) if isinstance(stretch, Sequence) else ()
            if len(ends) != 2 or not all(type(end) is int for end in ends) or not 0 <= ends[0] < ends[1] <= len(text):
                raise MaskError(
                    f"find_spans: {brief(stretch)} is not a stretch of text {index}, of {len(text)} characters"
                )
            stretches.append(ends)
        found.append(_tokens_of(stretches, tokenizer(text, **options)["offset_mapping"]))
    return tuple(found)


def _read(patterns: str | re.Pattern[str] | Iterable[str | re.Pattern[str]]) -> list[re.Pattern[str]]:
    return [_compile(pattern) for pattern in _listed(patterns, "patterns", str | re.Pattern)]


def _compile(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise MaskError(f"find_spans: the pattern {brief(pattern)} cannot be read: {error}") from error


def _listed(given: Any, name: str, kind: Any) -> list[Any]:
    """One of a kind, or several."""
    if isinstance(given, str | re.Pattern):
        given = [given]
    if not isinstance(given, Iterable):
        raise MaskError(f"find_spans: {name} must be strings, got {brief(given)}")
    listed = list(given)
    for one in listed:
        # A pattern of bytes finds nothing in a text.
        if not isinstance(one, kind) or not isinstance(getattr(one, "pattern", one), str):
            raise MaskError(f"find_spans: {name} must be strings, got {brief(one)}")
    return listed


def _sequence(given: Any, name: str) -> Sequence[Any]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise MaskError(f"find_spans: {name} must be a list, got {brief(given)}")
    return given


def _tokens_of(stretches: list[tuple[int, int]], offsets: list[tuple[int, int]]) -> Spans:
    """Runs of tokens that share a character with a stretch."""
    ends: list[int] = []
    starts: list[int] = []
    for start, end in sorted(stretches):
        if ends and start < ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    spans: list[tuple[int, int]] = []
    for index, (first, last) in enumerate(offsets):
        after = bisect_right(ends, first)  # the first stretch that ends behind the token's first character
        if after < len(ends) and starts[after] < last:
            joined = spans and spans[-1][1] == index
            spans.append((spans.pop()[0] if joined else index, index + 1))
    return tuple(spans)
