"""What the parameters of a rule may be: what a text can hold, and what tells two rules apart."""

import math
from typing import Any

from .expressions import Mask, MaskError
from .limits import brief

DEEPEST = 8
_LARGEST = 2**63


def check_parameter(value: Any, what: str, depth: int = 0) -> None:
    """Check that a value can be written into a mask's text, and read back as the same value.

    Args:
        what: the value's name, for the error.

    Raises:
        MaskError: it cannot; the message says what a value may be.
    """
    if value is None or type(value) is bool or isinstance(value, Mask):
        return
    if type(value) is tuple:
        if depth == DEEPEST:
            raise MaskError(f"{what} must be nested at most {DEEPEST} deep; write fewer brackets")
        if set(map(type, value)) == {int}:  # at once, since tables are long
            value = max(value, key=abs)
        else:
            for part in value:
                check_parameter(part, what, depth + 1)
            return
    if type(value) is int:
        if abs(value) >= _LARGEST:
            raise MaskError(f"{what} must be an integer of at most 63 bits, got {brief(value)}")
    elif type(value) is float:
        if not math.isfinite(value):
            raise MaskError(f"{what} must be finite, got {value}; write a number")
    elif type(value) is str:
        check_text(value, what)
    else:
        raise MaskError(
            f"{what} must be a number, a string, None, or a tuple of these, so that it can be written as text, got "
            f"{brief(value)} of type {type(value).__name__}"
        )


def check_text(text: str, what: str) -> None:
    """Check that a string holds characters only, not halves of them (lone surrogates).

    Raises:
        MaskError: it does not.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MaskError(
            f"{what} must be valid Unicode, got {brief(text)} with a lone surrogate at character {error.start}"
        ) from None


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal and of the same types all the way down: `1`, `1.0` and `True` are not the same."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    # Of floats, zero and minus zero are equal too, but not written alike.
    return a == b and (type(a) is not float or repr(a) == repr(b))
