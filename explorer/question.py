"""What the page may ask for, checked before a model is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from ..masks import Mask, blind, full, parse
from ..masks.scope import SCOPES
from ..utils.errors import InputError
from ..utils.text import check_unicode
from ..utils.type_checks import did_you_mean

TEXT_LIMIT = 400
"""Characters of a sentence at most."""
MASK_LIMIT = 2000
"""Characters of a mask's text at most: more than a person writes into a page."""
TOKENS_LIMIT = 64
"""Tokens of a source and of an output at most: a grid of these has 4096 cells, which a page still shows."""
REPLACEMENTS_LIMIT = 16
"""Numbers of replacements of hidden words."""
SLOWEST = 3.0
"""Seconds between two words of a stream at most."""


@dataclass(frozen=True)
class Question:
    """A sentence under masks.

    Attributes:
        text: of the source.
        encoder_mask, decoder_mask, cross_mask: texts of masks, and-ed with the model's own.
        hidden: the positions of source tokens that are blind in the encoder and the cross mask.
        replacement: a number from 1 by which the hidden tokens, or those of `replaced`, become other ones; 0 for none.
        replaced: the positions of tokens that are replaced although they are not hidden.
        pause: seconds between two words of a stream.

    Raises:
        InputError: a field of another type, or out of its bounds.
        MaskError: a mask that cannot be read.
    """

    text: str
    encoder_mask: str = "full()"
    decoder_mask: str = "full()"
    cross_mask: str = "full()"
    hidden: tuple[int, ...] = ()
    replaced: tuple[int, ...] = ()
    replacement: int = 0
    pause: float = 0.0

    def __post_init__(self) -> None:
        _check_text("text", self.text, TEXT_LIMIT)
        for scope in SCOPES:
            name = f"{scope}_mask"
            _check_text(name, getattr(self, name), MASK_LIMIT)
            parse(getattr(self, name))
        for name in ("hidden", "replaced"):
            positions = getattr(self, name)
            is_list = isinstance(positions, list | tuple) and len(positions) <= TOKENS_LIMIT
            if not is_list or not all(type(n) is int and 0 <= n < TOKENS_LIMIT for n in positions):
                raise InputError(f"{name} must be a list of at most {TOKENS_LIMIT} positions below {TOKENS_LIMIT}")
            object.__setattr__(self, name, tuple(sorted(set(positions))))
        if type(self.replacement) is not int or not 0 <= self.replacement <= REPLACEMENTS_LIMIT:
            raise InputError(f"replacement must be a whole number from 0 to {REPLACEMENTS_LIMIT}")
        if isinstance(self.pause, bool) or not isinstance(self.pause, int | float) or not 0 <= self.pause <= SLOWEST:
            raise InputError(f"pause must be a number of seconds from 0 to {SLOWEST:g}")

    @classmethod
    def read(cls, given: Any) -> "Question":
        """The question that JSON holds. Raises InputError, MaskError."""
        if not isinstance(given, Mapping) or "text" not in given:
            raise InputError('a request must be an object with "text"')
        known = [item.name for item in fields(cls)]
        for name in given:
            if name not in known:
                fix = did_you_mean(name[:40], known) or "leave it out"
                raise InputError(f"a field must be one of {', '.join(known)}, got {name[:40]!r}; {fix}")
        return cls(**given)

    def masks(self) -> dict[str, Mask]:
        """The masks of the call, without those that forbid nothing; the hidden tokens are blind in two of them."""
        given = {f"{scope}_mask": parse(getattr(self, f"{scope}_mask")) for scope in SCOPES}
        if self.hidden:
            hidden = blind(*spans_of(self.hidden))
            given |= {name: given[name] & hidden for name in ("encoder_mask", "cross_mask")}
        return {name: mask for name, mask in given.items() if mask != full()}


def spans_of(positions: tuple[int, ...]) -> list[tuple[int, int]]:
    """Ascending positions as spans, each `(first, one past the last)`."""
    breaks = [0, *(i for i, (a, b) in enumerate(pairwise(positions), start=1) if b != a + 1), len(positions)]
    return [(positions[start], positions[end - 1] + 1) for start, end in pairwise(breaks)]


def _check_text(name: str, text: object, limit: int) -> None:
    if not isinstance(text, str):
        raise InputError(f"{name} must be text, got {type(text).__name__}")
    check_unicode(text, name)
    if len(text) > limit:
        raise InputError(f"{name} must have at most {limit} characters, got {len(text)}; shorten it")
