"""The embedded corpus: localised text from Unicode CLDR, English into German, French and Chinese.

It needs neither network nor files: `Babel` carries CLDR. A line joins one to three parts, each of them a value
(a date, an amount, a list of names, ...) that is formatted by the rules of both languages, so that every English line
has exactly one translation into each language. Spaces are CLDR's own, non-breaking ones included.
"""

import datetime as dt
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from babel import Locale
from babel.dates import format_date, format_datetime, format_interval, format_skeleton, format_time, format_timedelta
from babel.lists import format_list
from babel.numbers import format_currency, format_decimal, format_percent, get_currency_precision
from babel.units import format_unit
from datasets import Dataset

from ..utils.errors import InputError
from ..utils.type_checks import check_choice
from .cldr_names import CURRENCIES, LANGUAGES, TERRITORIES, UNITS, UNITS_WITH_SYMBOL

LOCALES = {"de": "de_DE", "fr": "fr_FR", "zh": "zh_Hans_CN"}
SPLITS = ("train", "validation", "test")
SEPARATOR = "; "

# A part of a line: formats one fixed value in a locale.
Part = Callable[[Locale], str]


def language_tag(language: str) -> str:
    """The special token at the beginning of a source line, which names the language to translate into: `<2de>`."""
    return f"<2{language}>"


def cldr_corpus(
    size: int, seed: int = 0, languages: Sequence[str] = ("de", "fr", "zh"), held_out: int = 1500
) -> dict[str, Dataset]:
    """Pairs of localised text, in equal numbers for every language.

    ```python
    >>> corpus = cldr_corpus(300, seed=0, held_out=30)
    >>> {name: len(part) for name, part in corpus.items()}
    {'train': 300, 'validation': 30, 'test': 30}
    ```

    Args:
        size: training pairs, all languages together.
        seed: the same seed gives the same pairs; the held-out lines do not depend on `size`.
        languages: any of de, fr, zh.
        held_out: pairs in each of validation and test, all languages together.

    Returns:
        `train`, `validation` and `test`, each with the string columns `source` (tag, space, English text), `target`
        and `group` (the language). No English text is in two of them, whatever the language.
    """
    totals = {"train": size, "validation": held_out, "test": held_out}
    return {split: cldr_split(split, total, seed, languages) for split, total in totals.items()}


def cldr_split(split: str, size: int, seed: int = 0, languages: Sequence[str] = tuple(LOCALES)) -> Dataset:
    """One split of `cldr_corpus`, with `size` pairs; a smaller one is the beginning of a larger one."""
    return Dataset.from_list(list(cldr_pairs(split, size, seed, languages)))


def cldr_pairs(
    split: str, size: int, seed: int = 0, languages: Sequence[str] = tuple(LOCALES)
) -> Iterator[dict[str, str]]:
    """The records of `cldr_split`, one by one."""
    check_choice("split of the embedded corpus", split, SPLITS)
    for language in languages:
        check_choice("each of languages", language, LOCALES)
    if not languages:
        raise InputError(f"languages must be one or more of {', '.join(LOCALES)}, got none; name one")
    if size < len(languages):
        raise InputError(
            f"the {split} split must have at least one pair for each of {len(languages)} languages, got a size of "
            f"{size}; raise it"
        )
    rng = random.Random(seed)
    english, locales = Locale.parse("en_US"), [Locale.parse(LOCALES[language]) for language in languages]
    seen: set[tuple[int, str]] = set()
    for pair in range(size):
        index = pair % len(languages)
        while True:
            parts = _draw_parts(rng)
            text = _join(parts, english)
            if _split_of(text) == split and (index, text) not in seen:
                break
        seen.add((index, text))
        yield {
            "source": f"{language_tag(languages[index])} {text}",
            "target": _join(parts, locales[index]),
            "group": languages[index],
        }


def _split_of(text: str) -> str:
    """The split is a function of the English text alone, so no text can be in two: a twentieth each is held out."""
    return {0: "test", 1: "validation"}.get(zlib.crc32(text.encode()) % 20, "train")


def _join(parts: Sequence[Part], locale: Locale) -> str:
    return SEPARATOR.join(part(locale) for part in parts)


def _draw_parts(rng: random.Random) -> list[Part]:
    makers = rng.choices(list(_MAKERS), weights=list(_MAKERS.values()), k=rng.choices((1, 2, 3), weights=(4, 4, 2))[0])
    return [maker(rng) for maker in makers]


def _moment(rng: random.Random) -> dt.datetime:
    # 1950 to 2049: two centuries, every day and every last two digits.
    return dt.datetime(1950, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=rng.randrange(100 * 365 * 86400))


def _number(rng: random.Random, digits: int, decimals: int) -> float:
    """A number of up to `digits` digits, every length equally likely, and `decimals` more after the point."""
    length = rng.randint(1, digits)
    number = rng.randrange(10 ** (length - 1), 10**length)
    return number if not decimals else number + rng.randrange(10**decimals) / 10**decimals


def _date(rng: random.Random) -> Part:
    moment, style = _moment(rng), rng.choice(("full", "long"))
    return lambda locale: format_date(moment, style, locale)


def _date_and_time(rng: random.Random) -> Part:
    moment, style = _moment(rng), rng.choice(("full", "long"))
    return lambda locale: format_datetime(moment, style, locale=locale)


def _time(rng: random.Random) -> Part:
    moment, style = _moment(rng), rng.choice(("short", "medium", "full"))
    return lambda locale: format_time(moment, style, locale=locale)


def _month(rng: random.Random) -> Part:
    moment, skeleton = _moment(rng), rng.choice(("yMMMM", "yQQQQ"))
    return lambda locale: format_skeleton(skeleton, moment, locale=locale)


def _date_interval(rng: random.Random) -> Part:
    start, skeleton = _moment(rng), rng.choice(("yMMMd", "yMMMEd"))
    end = start + dt.timedelta(days=rng.choice((rng.randint(1, 20), rng.randint(1, 300))))
    return lambda locale: format_interval(start, end, skeleton, locale=locale)


def _time_interval(rng: random.Random) -> Part:
    first, second = sorted(rng.sample(range(24 * 60), 2))
    start, end = dt.time(*divmod(first, 60)), dt.time(*divmod(second, 60))
    return lambda locale: format_interval(start, end, "Hm", locale=locale)


def _relative_time(rng: random.Random) -> Part:
    # Each unit up to the amount from which Babel takes the next larger one.
    days, most = rng.choice(((1, 6), (7, 3), (30, 11), (365, 99), (1 / 24, 21), (1 / 1440, 50), (1 / 86400, 50)))
    delta = dt.timedelta(days=days * rng.randint(1, most) * rng.choice((1, -1)))
    return lambda locale: format_timedelta(delta, add_direction=True, locale=locale)


def _price(rng: random.Random) -> Part:
    code = rng.choice(CURRENCIES)
    # No decimals where the currency shows none: rounding would hide what the plural depends on.
    amount = _number(rng, 7, rng.choice((0, min(2, get_currency_precision(code)))))
    form: Literal["standard", "name"] = rng.choice(("standard", "name", "name"))
    return lambda locale: format_currency(amount, code, locale=locale, format_type=form)


def _measure(rng: random.Random) -> Part:
    length: Literal["long", "short"] = rng.choice(("long", "long", "short"))
    unit = rng.choice(UNITS if length == "long" else UNITS_WITH_SYMBOL)
    amount = 1 if rng.random() < 0.1 else _number(rng, 5, rng.choice((0, 0, 1)))

    def part(locale: Locale) -> str:
        text = format_unit(amount, unit, length, locale=locale)
        # In CLDR a long form that a language lacks is its short form; Babel writes the unit's identifier instead.
        return text if unit not in text else format_unit(amount, unit, "short", locale=locale)

    return part


def _percentage(rng: random.Random) -> Part:
    # Thousandths, so that one decimal at most is shown and nothing is rounded away.
    share = rng.choice((1, -1)) * rng.randrange(1, 2000) / 1000
    return lambda locale: format_percent(share, locale=locale, decimal_quantization=False)


def _plain_number(rng: random.Random) -> Part:
    number = rng.choice((1, 1, -1)) * _number(rng, 9, rng.choice((0, 1, 2)))
    return lambda locale: format_decimal(number, locale=locale)


def _territories(rng: random.Random) -> Part:
    codes = rng.sample(TERRITORIES, rng.randint(1, 4))
    style: Literal["standard", "or"] = rng.choice(("standard", "or"))
    return lambda locale: format_list([locale.territories[code] for code in codes], style, locale)


def _languages(rng: random.Random) -> Part:
    codes = rng.sample(LANGUAGES, rng.randint(1, 4))
    style: Literal["standard", "or"] = rng.choice(("standard", "or"))
    return lambda locale: format_list([locale.languages[code] for code in codes], style, locale)


# How often each kind of part is drawn: more often where there are more names to learn.
_MAKERS: dict[Callable[[random.Random], Part], int] = {
    _date: 2,
    _date_and_time: 2,
    _time: 1,
    _month: 1,
    _date_interval: 4,
    _time_interval: 1,
    _relative_time: 2,
    _price: 4,
    _measure: 4,
    _percentage: 1,
    _plain_number: 1,
    _territories: 5,
    _languages: 3,
}
