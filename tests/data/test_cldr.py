import random
from collections import Counter

import pytest
from babel import Locale

from crossmask.data import cldr
from crossmask.data.cldr import LOCALES, cldr_corpus, cldr_split
from crossmask.data.cldr_names import CURRENCIES, LANGUAGES, TERRITORIES, UNITS, UNITS_WITH_SYMBOL


@pytest.fixture(scope="module")
def corpus():
    return cldr_corpus(6000, seed=0, held_out=600)


def test_sizes_and_balance(corpus):
    assert {name: len(part) for name, part in corpus.items()} == {"train": 6000, "validation": 600, "test": 600}
    for part in corpus.values():
        assert part.column_names == ["source", "target", "group"]
        assert set(Counter(part["group"]).values()) == {len(part) // 3}
        for record in part.select(range(50)):
            assert record["source"].startswith(f"<2{record['group']}> ")


def test_no_held_out_text_is_in_train_in_any_language(corpus):
    texts = {name: {source.split(" ", 1)[1] for source in part["source"]} for name, part in corpus.items()}
    assert not texts["train"] & (texts["validation"] | texts["test"])
    assert not texts["validation"] & texts["test"]


def test_no_line_comes_twice(corpus):
    for part in corpus.values():
        assert len(set(part["source"])) == len(part)


@pytest.mark.parametrize("maker", cldr._MAKERS, ids=lambda maker: maker.__name__)
def test_english_text_has_one_translation(maker):
    english, others = Locale.parse("en_US"), [Locale.parse(name) for name in LOCALES.values()]
    rng, translations = random.Random(5), {}
    for _ in range(1500):
        part = maker(rng)
        targets = [part(locale) for locale in others]
        assert translations.setdefault(part(english), targets) == targets


def test_english_names_are_unique():
    english = Locale.parse("en_US")
    for names in (
        [english.territories[code] for code in TERRITORIES],
        [english.languages[code] for code in LANGUAGES],
    ):
        assert len(set(names)) == len(names)
    assert set(UNITS_WITH_SYMBOL) < set(UNITS)
    assert len(set(CURRENCIES)) == len(CURRENCIES)


def test_every_unit_is_written_in_every_language():
    rng = random.Random(0)
    for unit in UNITS:
        rng.choice = lambda options, unit=unit: unit if options is UNITS else options[0]
        for name in LOCALES.values():
            assert unit not in cldr._measure(rng)(Locale.parse(name))


def test_hand_examples():
    # CLDR's own spaces: narrow before PM and in French numbers, non-breaking before signs.
    rng = random.Random()
    german, french, chinese, english = (Locale.parse(name) for name in ("de_DE", "fr_FR", "zh_Hans_CN", "en_US"))
    rng.choice = lambda options: {"yMMMd": "yMMMd"}.get(options[0], options[0])
    rng.sample = lambda options, count: ["DE", "FR", "CN"]
    names = cldr._territories(rng)
    assert names(english) == "Germany, France, and China"
    assert [names(locale) for locale in (german, french, chinese)] == [
        "Deutschland, Frankreich und China",
        "Allemagne, France et Chine",
        "德国、法国和中国",
    ]
    rng.randrange = lambda *bounds: 125
    percentage = cldr._percentage(rng)
    assert [percentage(locale) for locale in (english, german, chinese)] == ["12.5%", "12,5\xa0%", "12.5%"]


def test_every_name_of_a_held_out_line_is_well_covered():
    train = cldr_split("train", 12_000)
    for language, name in LOCALES.items():
        locale = Locale.parse(name)
        text = "\n".join(record["target"] for record in train if record["group"] == language)
        names = [locale.territories[code] for code in TERRITORIES] + [locale.languages[code] for code in LANGUAGES]
        rarest = min(names, key=text.count)
        assert text.count(rarest) >= 5, rarest


def test_a_smaller_split_is_the_beginning_of_a_larger_one():
    assert cldr_split("validation", 30)[:] == cldr_split("validation", 90)[:30]
    with pytest.raises(ValueError, match="must be one of train, validation, test, got 'dev'"):
        cldr_split("dev", 30)


def test_languages_are_chosen():
    corpus = cldr_corpus(100, languages=("zh", "de"), held_out=11)
    assert Counter(corpus["train"]["group"]) == {"zh": 50, "de": 50}
    assert Counter(corpus["test"]["group"]) == {"zh": 6, "de": 5}


def test_held_out_lines_do_not_depend_on_the_training_size():
    small, large = cldr_corpus(60, held_out=30), cldr_corpus(3000, held_out=30)
    assert small["test"][:] == large["test"][:]
    assert small["test"][:] != cldr_corpus(60, seed=1, held_out=30)["test"][:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 10, "languages": ("it",)}, "it"),
        ({"size": 10, "languages": ()}, "languages must be one or more of de, fr, zh, got none"),
        ({"size": 2}, "the train split must have at least one pair for each of 3 languages, got a size of 2"),
        ({"size": 10, "held_out": 0}, "the validation split must have .* got a size of 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        cldr_corpus(**arguments)
