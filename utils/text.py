"""Checks of text: it has to be valid Unicode, and what is read by a model has no NUL and something visible."""

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import InputError, InputTypeError

_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})  # categories of control, format and space characters


def check_unicode(text: str, name: str) -> None:
    """Refuse text with lone surrogates, which come from bytes that are not UTF-8 and from broken JSON escapes.

    Raises:
        InputError: with `name` and where in the text the first one is.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} must be valid Unicode, got a lone surrogate {text[error.start]!a} at character "
            f"{error.start + 1}; convert it to UTF-8"
        ) from None


def check_text(text: str, name: str) -> None:
    """Refuse text that no model is to read: not valid Unicode, or with NUL, as files of text are refused.

    Raises:
        InputError: with `name` and where in the text the character is.
    """
    check_unicode(text, name)
    if "\0" in text:
        raise InputError(f"{name} must be without NUL, got one at character {text.index(chr(0)) + 1}; leave it out")


def check_texts(texts: Any) -> list[str]:
    """Texts as a list.

    Raises:
        InputTypeError: it is no list of texts. InputError: a text as in `check_text`, with its number.
    """
    if isinstance(texts, str):
        raise InputTypeError(f"texts must be a list of texts, got one text {texts[:40]!r}; write [text]")
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise InputTypeError(f"texts must be a list of texts, got {type(texts).__name__}")
    checked = list(texts)
    for index, text in enumerate(checked):
        if not isinstance(text, str):
            raise InputTypeError(f"texts[{index}] must be text, got {type(text).__name__}")
        check_text(text, f"texts[{index}]")
    return checked


def is_blank(text: str) -> bool:
    """Whether a text has nothing visible: it is empty, or whitespace, control and zero-width characters only."""
    return all(unicodedata.category(character) in _INVISIBLE for character in text)
