"""Checks of text: it has to be valid Unicode."""

from .errors import InputError


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
