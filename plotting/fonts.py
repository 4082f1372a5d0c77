"""Fonts for the tokens in a figure, in any language for which the machine has fonts."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby

from matplotlib.font_manager import FontEntry, findfont, fontManager
from matplotlib.ft2font import FT2Font

BASE = "DejaVu Sans"  # comes with matplotlib


def fit_fonts(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts without characters that no font has, and the font families to draw them with.

    Characters that are not in matplotlib's own font are looked up in the fonts of the machine. Those that no font has
    are written as code points, `[4E2D 6587]`, since an empty box would say nothing.

    Returns:
        the texts, and the families in order of preference.
    """
    families = [BASE]
    missing = set("".join(texts)) - _characters(findfont(BASE))
    for entry in _other_fonts() if missing else ():
        available = missing & _characters(entry.fname, getattr(entry, "index", 0))
        if available:
            families.append(entry.name)
            missing -= available
        if not missing:
            break
    return [_spell(text, missing) for text in texts], families


def _spell(text: str, missing: set[str]) -> str:
    runs = groupby(text, missing.__contains__)
    return "".join(
        f"[{' '.join(f'{ord(c):04X}' for c in run)}]" if is_missing else "".join(run) for is_missing, run in runs
    )


def _other_fonts() -> list[FontEntry]:
    """The regular fonts of the machine, one for each family, sans serif ones first."""
    # Last Resort has a glyph for every character, which shows only its script.
    entries = {
        entry.name: entry
        for entry in fontManager.ttflist
        if entry.style == "normal"
        and entry.weight in (400, "normal", "regular")
        and not entry.name.startswith((BASE, "Last Resort"))
    }
    return sorted(entries.values(), key=lambda entry: ("Sans" not in entry.name, entry.name))


@cache
def _characters(path: str, index: int = 0) -> frozenset[str]:
    """The characters that a font has."""
    font = FT2Font(path, face_index=index) if index else FT2Font(path)
    return frozenset(map(chr, font.get_charmap()))
