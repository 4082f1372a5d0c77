"""Text that is text: what can be written as UTF-8."""

from .errors import InputError


def check_unicode(text: str, name: str) -> None:
    """Refuse text with lone surrogates, which come of bytes that were not UTF-8 and of broken JSON escapes.

    Raises:
        InputError: with `name` and where in the text the first one is.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} must be valid Unicode, got a lone surrogate {text[error.start]!a} at character "
            f"{error.start + 1}: convert it to UTF-8"
        ) from None
