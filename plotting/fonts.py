"""Fonts for the tokens in a figure: whatever language they are in, as far as this machine has fonts for it."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby

from matplotlib.font_manager import FontEntry, findfont, fontManager
from matplotlib.ft2font import FT2Font

BASE = "DejaVu Sans"  # comes with matplotlib


def fit_fonts(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts that can be drawn without a missing glyph, and the font families to draw them with.

    Characters that matplotlib's own font lacks are looked for in the fonts of the machine; those that no font has are
    written as code points, `[4E2D 6587]`, for an empty box would say nothing.

    Returns:
        the texts, one for each given, and the families in order of preference.
    """
    families = [BASE]
    missing = set("".join(texts)) - _covered(findfont(BASE))
    for entry in _others() if missing else ():
        found = missing & _covered(entry.fname, getattr(entry, "index", 0))
        if found:
            families.append(entry.name)
            missing -= found
        if not missing:
            break
    return [_spell(text, missing) for text in texts], families


def _spell(text: str, missing: set[str]) -> str:
    runs = groupby(text, missing.__contains__)
    return "".join(f"[{' '.join(f'{ord(c):04X}' for c in run)}]" if out else "".join(run) for out, run in runs)


def _others() -> list[FontEntry]:
    """The regular fonts of the machine, one for each family, sans serif ones first."""
    # Last Resort has a glyph for everything, which shows nothing but the script's name.
    entries = {
        entry.name: entry
        for entry in fontManager.ttflist
        if entry.style == "normal"
        and entry.weight in (400, "normal", "regular")
        and not entry.name.startswith((BASE, "Last Resort"))
    }
    return sorted(entries.values(), key=lambda entry: ("Sans" not in entry.name, entry.name))


@cache
def _covered(path: str, index: int = 0) -> frozenset[str]:
    """The characters that a font has."""
    font = FT2Font(path, face_index=index) if index else FT2Font(path)
    return frozenset(map(chr, font.get_charmap()))
