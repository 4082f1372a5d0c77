"""How large a mask may be, so that no text costs more than a moment, and how values are shown in errors.

A mask's text in a config comes from anyone. Each limit is checked before the work that it bounds, and the same limits
hold for masks built in Python: a mask that has a text is read back from it.
"""

import reprlib

TEXT_LIMIT = 2**15
"""The longest text of a mask. A larger mask, such as one with a long table of examples, has no text."""
RULES_LIMIT = 1024
"""The most rules in a mask, those within `heads` and `layers` included; in the masks of all layers too, where a mask
that neighbours share counts once."""
DEPTH_LIMIT = 40
"""The deepest nesting of `&`, `|`, `heads` and `layers` in a mask."""
BRACKETS_LIMIT = 100
"""The deepest nesting of brackets and signs in a text: more than a mask of `DEPTH_LIMIT` needs."""
NUMBERS_LIMIT = 2**20
"""The most numbers in one rule's spans or points, all examples together."""
LAYERS_LIMIT = 10_000
"""The most layers that a mask is resolved for."""
CELLS_LIMIT = 2**22
"""The most pairs of a row and a column in a picture, all heads together."""
SHOWN = 100
"""The most characters of a value that an error shows."""


class _Brief(reprlib.Repr):
    """`repr` that looks at no more than it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 6, SHOWN, SHOWN, 40
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = 12

    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write integers of thousands of digits.
        return repr(value) if value.bit_length() <= 128 else f"an integer of {value.bit_length()} bits"

    def repr_str(self, value: str, level: int) -> str:
        return repr(value if len(value) <= SHOWN else f"{value[: SHOWN - 3]}...")

    def repr1(self, value: object, level: int) -> str:
        if hasattr(value, "brief_text"):
            return str(value.brief_text())
        return super().repr1(value, level)


_BRIEF = _Brief()


def brief(value: object) -> str:
    """`repr(value)` for an error: in one line, and cut where it is long."""
    return shorten(_BRIEF.repr(value))


def shorten(text: str, longest: int = 2 * SHOWN) -> str:
    """A text in one line that anything can print, cut where it is long."""
    line = " ".join(text[: 2 * longest].split())
    line = line if len(line) <= longest else f"{line[: longest - 3]}..."
    return line.encode("utf-8", "backslashreplace").decode("utf-8")
