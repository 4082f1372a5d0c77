"""The corpus that needs no file."""

from collections.abc import Iterator, Sequence

from ..cldr import cldr_pairs
from .registry import register_format


@register_format("cldr")
def read_cldr(
    *,
    split: str = "train",
    size: int = 40_000,
    held_out_size: int = 1500,
    seed: int = 0,
    languages: Sequence[str] = ("de", "fr", "zh"),
) -> Iterator[dict[str, str]]:
    """The embedded corpus: columns `source`, `target` and `group` (the language); see `cldr_corpus`.

    `size` is that of train, `held_out_size` that of validation and of test.
    """
    return cldr_pairs(split, size if split == "train" else held_out_size, seed, languages)
