"""How large a mask may be, so that reading a text never takes long, and how errors show values.

A config, and with it the text of a mask, may come from anyone. Each limit is checked before the work that it bounds.
Masks that are built in Python have the same limits, so that a mask that has a text can be read back from it.
"""

import reprlib

TEXT_LIMIT = 2**15
"""The longest text of a mask. A larger mask, such as one with a long table of examples, has no text."""
RULES_LIMIT = 1024
"""The most rules in a mask, those inside of `heads` and `layers` included. It holds for the masks of all layers
together too, where a mask that neighbouring layers share counts once."""
DEPTH_LIMIT = 40
"""The deepest nesting of `&`, `|`, `heads` and `layers` in a mask."""
BRACKETS_LIMIT = 100
"""The deepest nesting of brackets and signs in a text: more than a mask of `DEPTH_LIMIT` needs."""
NUMBERS_LIMIT = 2**20
"""The most numbers in the spans or points of a rule, of all examples together."""
LAYERS_LIMIT = 10_000
"""The most layers for which a mask is chosen."""
CELLS_LIMIT = 2**22
"""The most pairs of a row and a column in a picture, all heads together."""
SHOWN = 100
"""The most characters of a string that an error shows."""


class _Brief(reprlib.Repr):
    """`repr` that does not look at more of a value than it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 6, SHOWN, SHOWN, 40
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = 12

    def repr_int(self, value: int, level: int) -> str:
        # Python raises an error for integers of thousands of digits.
        return repr(value) if value.bit_length() <= 128 else f"an integer of {value.bit_length()} bits"

    def repr_str(self, value: str, level: int) -> str:
        return repr(value if len(value) <= SHOWN else f"{value[: SHOWN - 3]}...")

    def repr1(self, value: object, level: int) -> str:
        if hasattr(value, "brief_text"):
            return str(value.brief_text())
        return super().repr1(value, level)


_BRIEF = _Brief()


def brief(value: object) -> str:
    """`repr(value)` for an error: in one line, and shortened if it is long."""
    return shorten(_BRIEF.repr(value))


def shorten(text: str, longest: int = 2 * SHOWN) -> str:
    """A text in one line that every terminal can print, shortened if it is long."""
    line = " ".join(text[: 2 * longest].split())
    line = line if len(line) <= longest else f"{line[: longest - 3]}..."
    return line.encode("utf-8", "backslashreplace").decode("utf-8")
