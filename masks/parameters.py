"""What the parameters of a rule may be, so that a text can have them, and when they are the same."""

import math
from typing import Any

from .expressions import Mask, MaskError
from .limits import brief

DEEPEST = 8
"""How deep tuples in a parameter may be nested."""
_LARGEST = 2**63


def check_parameter(value: Any, name: str, depth: int = 0) -> None:
    """Check that a value can be written into a mask's text and read back as the same value.

    Args:
        name: the name of the value, for the error.
        depth: how many tuples it is in.

    Raises:
        MaskError: it cannot; the message says what a value may be.
    """
    if value is None or type(value) is bool or isinstance(value, Mask):
        return
    if type(value) is tuple:
        if depth == DEEPEST:
            raise MaskError(
                f"{name} must be nested at most {DEEPEST} deep, got {brief(value)} within; write fewer brackets"
            )
        if set(map(type, value)) == {int}:  # of a long table only the largest number is checked
            value = max(value, key=abs)
        else:
            for part in value:
                check_parameter(part, name, depth + 1)
            return
    if type(value) is int:
        if abs(value) >= _LARGEST:
            raise MaskError(f"{name} must be an integer of at most 63 bits, got {brief(value)}")
    elif type(value) is float:
        if not math.isfinite(value):
            raise MaskError(f"{name} must be a finite number, got {value}")
    elif type(value) is str:
        check_text(value, name)
    else:
        raise MaskError(
            f"{name} must be a number, a string, None, or a tuple of these, so that it can be written as text, got "
            f"{brief(value)} of type {type(value).__name__}"
        )


def check_text(text: str, name: str) -> None:
    """Check that a string has no lone surrogates, which are halves of characters.

    Args:
        name: the name of the string, for the error.

    Raises:
        MaskError: it has one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MaskError(
            f"{name} must be valid Unicode, got {brief(text)} with a lone surrogate at character {error.start}"
        ) from None


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal and of the same types all the way down: `1`, `1.0` and `True` are not the same."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    # 0.0 and -0.0 are equal, but their texts differ.
    return a == b and (type(a) is not float or repr(a) == repr(b))
