"""Which tokens of each window the masks of a context are about: chosen passages, and what nothing may read."""

from collections.abc import Sequence
from typing import Any

from ..masks.expressions import MaskError
from .windows import Window

Spans = Sequence[tuple[int, int]]


def kept_tokens(
    windows: Sequence[Sequence[Window]], passages: Sequence[Sequence[int] | None]
) -> list[list[tuple[tuple[int, int], ...]]]:
    """The tokens of chosen passages, as spans, by example and window; of all tokens where none are chosen.

    Raises:
        MaskError: a passage that is not there, or passages for another number of contexts.
    """
    _check_number("passages", passages, windows)
    kept = []
    for index, (own_windows, chosen) in enumerate(zip(windows, passages, strict=True)):
        last = max(max(window["passage_ids"]) for window in own_windows)
        for number in chosen or ():
            if not 0 <= number <= last:
                raise MaskError(
                    f"passages[{index}]: there is no passage {number}; the context has 0 to {last}, which line breaks "
                    "part"
                )
        kept.append(
            [
                _runs([chosen is None or passage in chosen for passage in window["passage_ids"]])
                for window in own_windows
            ]
        )
    return kept


def hidden_tokens(
    windows: Sequence[Sequence[Window]], contexts: Sequence[str], hidden: Sequence[Spans | None]
) -> list[list[tuple[tuple[int, int], ...]]]:
    """The tokens with a character of what is hidden, as spans, by example and window.

    Raises:
        MaskError: characters that are not there, or spans for another number of contexts.
    """
    _check_number("hidden", hidden, windows)
    hidden_tokens = []
    for index, (own_windows, context, spans) in enumerate(zip(windows, contexts, hidden, strict=True)):
        for start, end in spans or ():
            if not 0 <= start < end <= len(context):
                raise MaskError(
                    f"hidden[{index}]: a span must be (first character, one past the last) within the {len(context)} "
                    f"of the context, got {(start, end)}"
                )
        hidden_tokens.append(
            [
                _runs([any(first < end and last > start for start, end in spans or ()) for first, last in offsets])
                for offsets in (window["offsets"] for window in own_windows)
            ]
        )
    return hidden_tokens


def _check_number(name: str, given: Sequence[Any], windows: Sequence[Any]) -> None:
    if len(given) != len(windows):
        raise MaskError(f"{name} for {len(given)} contexts, but there are {len(windows)}; give None for those without")


def _runs(chosen: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """Where runs of True are, `(first, one past the last)`."""
    borders = [
        index
        for index, (before, now) in enumerate(zip([False, *chosen], [*chosen, False], strict=True))
        if before != now
    ]
    return tuple(zip(borders[::2], borders[1::2], strict=True))
