import warnings
from dataclasses import dataclass, make_dataclass
from functools import reduce
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mask_cases import expressions, of_examples, randomised, rules

from crossmask import masks
from crossmask.masks import parse as parse_function
from crossmask.masks import registry


@randomised
@given(expressions)
def test_text_form_parses_to_the_same_mask(mask):
    assert masks.parse(str(mask)) == mask
    assert hash(masks.parse(str(mask))) == hash(mask)
    assert repr(mask) == str(mask)


@pytest.mark.parametrize(
    "text",
    [
        "keep((2, 5), (9, 11)) & ~keep(examples=(((2, 5),), ((0, 1), (7, 9))))",
        "heads({0: window(left=8), '1-3': causal() | prefix(2), 'rest': full()}) & causal()",
        "layers({0: heads({0: full(), 'rest': causal()}), 'rest': full()})",
        "alignment((1, 2), width=3) | alignment(examples=((1,), (2, 0)))",
        "blind((2, 3)) & random(p=0.25, seed=7)",
    ],
)
def test_text_with_spans_and_mappings_is_read_back(text):
    mask = masks.parse(text)
    assert masks.parse(str(mask)) == mask
    assert eval(str(mask), {**masks.RULES, "__builtins__": {}}) == mask


@randomised
@given(expressions)
def test_text_form_is_the_python_that_builds_the_mask(mask):
    assert eval(str(mask), {**masks.RULES, "__builtins__": {}}) == mask


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (masks.window(16), "window(left=16)"),
        (masks.window(2, 0), "window(left=2, right=0)"),
        (masks.wait_k(3) & masks.window(left=16), "wait_k(3) & window(left=16)"),
        (masks.causal() & (masks.prefix(2) | masks.blocks(4)), "causal() & (blocks(4) | prefix(2))"),
        (masks.causal() & masks.prefix(2) | masks.blocks(4), "blocks(4) | causal() & prefix(2)"),
        (~masks.causal(), "~causal()"),
        (~(masks.causal() & masks.prefix(2)), "~causal() | ~prefix(2)"),
        (~masks.causal() | masks.prefix(2), "~causal() | prefix(2)"),
        (masks.keep((9, 11), [2, 5], (4, 6)), "keep((2, 6), (9, 11))"),
        (masks.keep(examples=[[(2, 5)], []]), "keep(examples=(((2, 5),), ()))"),
        (masks.keep(passages=[3, 1]), "keep(passages=(1, 3))"),
        (masks.drop((2, 5)), "~keep((2, 5))"),
        (masks.monotonic(1, 2), "monotonic(slope=1.0, width=2)"),
        (masks.alignment(examples=[[1], [2, 0]], width=1), "alignment(width=1, examples=((1,), (2, 0)))"),
        (
            masks.heads({"2": "full()", "rest": "causal() & prefix(3)", 0: masks.window(8), 1: "window(8)"}),
            "heads({'0-1': window(left=8), 2: full(), 'rest': causal() & prefix(3)})",
        ),
        (
            masks.layers({0: masks.heads({0: "full()", "rest": "causal()"}), "rest": "full()"}),
            "layers({0: heads({0: full(), 'rest': causal()}), 'rest': full()})",
        ),
    ],
)
def test_text_form(mask, text):
    assert str(mask) == text


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("  causal ( )  ", masks.causal()),
        ("window(1, 2)", masks.window(1, 2)),
        ("window(1, right=2)", masks.window(1, 2)),
        ("window(right=2, left=1)", masks.window(1, 2)),
        ("wait_k(k=3)", masks.wait_k(3)),
        ("((causal()))", masks.causal()),
        ("~~causal()", masks.causal()),
        ("~ ~ ~causal()", ~masks.causal()),
        ("causal()&causal()", masks.causal()),
    ],
)
def test_other_spellings(text, mask):
    assert masks.parse(text) == mask


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "a mask's text must be rules joined by &, | and ~, got ''"),
        ("causal(", "a mask's text must be rules joined by &, | and ~, got 'causal('"),
        ("causal() &", "a mask's text must be rules joined by &, | and ~, got 'causal() &'"),
        ("causal(); full()", "a mask's text must be rules joined by &, | and ~, got 'causal(); full()'"),
        ("x = causal()", "a mask's text must be rules joined by &, | and ~, got"),
        ("causal() \0", "a mask's text must be rules joined by &, | and ~, got"),
        ("causal() and full()", "'causal() and full()' in the mask"),
        ("causal() ^ full()", "'causal() ^ full()' in the mask"),
        ("full() & -causal()", "'-causal()' in the mask"),
        ("not causal()", "'not causal()' in the mask"),
        ("full() | 3", "'3' in the mask"),
        (
            "full() | causal",
            "a rule must have brackets, got 'causal' in the mask 'full() | causal'; write causal(...)",
        ),
        ("full() | casual", "'casual' in the mask"),
        (
            "full() & casual()",
            "a rule must have a known name, got 'casual' in the mask 'full() & casual()'",
        ),
        ("masks.causal()", "'masks.causal()' in the mask"),
        ("causal()()", "'causal()()' in the mask"),
        ("[causal()]", "'[causal()]' in the mask"),
        ("full() & wait_k('3')", "\"wait_k('3')\" in the mask"),
        (
            "wait_k(3.0)",
            "'wait_k(3.0)' in the mask 'wait_k(3.0)': wait_k: k must be an integer of at least 1, got 3.0",
        ),
        ("wait_k(True)", "k must be an integer of at least 1, got True"),
        ("wait_k(1 + 2)", "or a tuple, list or dict of these, got 1 + 2"),
        ("wait_k(causal())", "k must be an integer of at least 1, got causal()"),
        ("wait_k(*k)", "or a tuple, list or dict of these, got *k"),
        ("keep((*a, 2))", "or a tuple, list or dict of these, got (*a, 2)"),
        ("heads({**a})", "or a tuple, list or dict of these, got {**a}"),
        ("heads({1.5: full()})", "a key must be a number or a string, got 1.5"),
        (
            "heads({0: 'casual()'})",
            "heads[0]: a rule must have a known name, got 'casual' in the mask 'casual()'",
        ),
        ("wait_k(**k)", "'wait_k(**k)' in the mask"),
        ("wait_k()", "'wait_k()' in the mask 'wait_k()': missing a required argument: 'k'"),
        ("wait_k(1, 2)", "'wait_k(1, 2)' in the mask 'wait_k(1, 2)': too many positional arguments"),
        ("wait_k(n=1)", "'wait_k(n=1)' in the mask"),
        ("wait_k(1, k=1)", "'wait_k(1, k=1)' in the mask"),
        ("window(left=1, left=2)", "every parameter must be named once, got 'window(left=1, left=2)' in the mask"),
        ("causal(1)", "'causal(1)' in the mask"),
        (
            "full() & wait_k(-1)",
            "'wait_k(-1)' in the mask 'full() & wait_k(-1)': wait_k: k must be",
        ),
        ("prefix(9223372036854775808)", "n must be smaller than 2**31"),
        ("é & causal()", "'é' in the mask"),
    ],
)
def test_unreadable_text_shows_the_offending_part(text, shown):
    with pytest.raises(masks.MaskError) as error:
        masks.parse(text)
    assert shown in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["~" * 5000 + "causal()", " & ".join(["causal()"] * 5000), "(" * 500 + ")" * 500])
def test_endless_text_is_refused(text):
    with pytest.raises(masks.MaskError) as error:
        masks.parse(text)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", [None, 3, b"causal()", masks.causal()])
def test_only_text_is_parsed(value):
    with pytest.raises(masks.MaskError, match="a mask's text must be a string"):
        masks.parse(value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('{path}')",
        "wait_k(__import__('os').mkdir('{path}'))",
        "(lambda: __import__('os').mkdir('{path}'))()",
        "[c for c in [__import__('os').mkdir('{path}')]]",
        "causal() if __import__('os').mkdir('{path}') else full()",
        "f\"{{__import__('os').mkdir('{path}')}}\"",
    ],
)
def test_nothing_is_evaluated(text, tmp_path):
    folder = tmp_path / "folder"
    with pytest.raises(masks.MaskError):
        masks.parse(text.format(path=folder))
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is an empty text"),
        (" \t\n", "it is an empty text"),
        ("()", "a mask must be made of rules with &, | and ~, got"),
        ("(causal(),)", "a mask must be made of rules with &, | and ~, got"),
        ("# causal()", "it has a comment"),
        ("causal() # & prefix(2)", "it has a comment"),
        ("keep((1, 2), # (3, 4),\n (5, 6))", "it has a comment"),
        ("causal()\n& prefix(2)", "it has a second line"),
        ("(causal()\r\n& prefix(2))", "it has a second line"),
        ("causal() \\\n & prefix(2)", "it has a second line"),
        ("causal()\f& prefix(2)", "it has a second line"),
        ("causal()\0& prefix(2)", "it has a NUL character"),
        ("lookup('\0')", "it has a NUL character"),
        ("causal() \\ prefix(2)", "it has a backslash"),
        ("causal() & \ud800", "lone surrogate at character 11"),
        ("heads({0: '\\ud800'})", "lone surrogate"),
        ("lookup('a' 'b')", "it has strings side by side"),
        ("lookup('''a''')", "it has strings side by side"),
        ("lookup(f'{1}')", "it has a string with a prefix"),
        ("lookup(b'a')", "it has a string with a prefix"),
        ("lookup('a", "it has a string that does not end"),
        ("lookup('\\d')", "unknown escape"),
        ("lookup('\\N{DASH}')", "unknown escape"),
        ("(m := causal())", "a mask must be made of rules with &, | and ~, got"),
        ("lambda: causal()", "a mask must be made of rules with &, | and ~, got"),
        ("await causal()", "a mask must be made of rules with &, | and ~, got"),
        ("*causal()", "must be rules joined by &, | and ~, got"),
        ("causal() if 1else full()", "numbers must be decimal and have at most 40 characters, got '1else'"),
        ("wait_k(0x10)", "numbers must be decimal and have at most 40 characters, got '0x10'"),
        ("wait_k(1j)", "numbers must be decimal and have at most 40 characters, got '1j'"),
        ("wait_k(" + "9" * 5000 + ")", "numbers must be decimal and have at most 40 characters"),
        ("wait_k(--1)", "a parameter must be"),
        ("wait_k(-True)", "a parameter must be"),
        ("wait_k(...)", "a parameter must be"),
        ("heads({0: causal(), 0: full()})", "every key must be there once, got 0 twice"),
        ("heads({'rest': causal(), 'rest': full()})", "every key must be there once, got 'rest' twice"),
        ("heads({0: causal(), '0': full()})", "every head once, got head 0 twice"),
        ("heads({0: causal(), False: full()})", "a key must be a number or a string, got False"),
        ("heads({0: 'heads({1: full(), 1: causal()})'})", "every key must be there once, got 1 twice"),
    ],
)
def test_other_python_is_refused(text, why):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(masks.MaskError) as error:
            masks.parse(text)
    assert why in str(error.value)
    assert str(error.value).isprintable()


@masks.register
def of_anything(q, k, value=None, other=None):
    return k.position >= 0


numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e-07, 0.0, -0.0, 1e300, 5e-324]),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(["'", '"', "'\"", "\\", "\n", "\0", "\u2028", "🙂", "a#b", "''' \"\"\"", "\\'"]),
)
parameters = st.recursive(numbers, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
lookups = st.builds(lambda value, other: masks.lookup("of_anything", value=value, other=other), parameters, parameters)
wide = st.recursive(
    st.one_of(rules, of_examples, lookups),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=12).map(lambda parts: reduce(lambda a, b: a & b, parts)),
        st.lists(inner, min_size=1, max_size=12).map(lambda parts: reduce(lambda a, b: a | b, parts)),
        inner.map(lambda mask: ~mask),
    ),
    max_leaves=60,
)


@randomised
@given(wide)
def test_whatever_is_printed_is_read_back(mask):
    assert masks.parse(str(mask)) == mask
    assert str(masks.parse(str(mask))) == str(mask)


def with_heads(mask):
    return "heads" in (rule.name for rule in mask.rules())


@randomised
@given(st.dictionaries(st.integers(0, 99), wide, max_size=5), wide)
def test_selections_of_wide_masks_are_read_back(chosen, rest):
    flat = {number: mask for number, mask in chosen.items() if not with_heads(mask)}
    heads = masks.heads({**flat, "rest": masks.full() if with_heads(rest) else rest})
    mask = masks.layers({0: heads, "rest": rest}) & masks.causal()
    assert masks.parse(str(mask)) == mask


SAME_NUMBER = (1, True, 1.0)


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: (n,), lambda n: ("a", (2, n))])
def test_parameters_of_different_types_are_different_masks(wrap):
    of_each_type = [masks.lookup("of_anything", value=wrap(n)) for n in SAME_NUMBER]
    assert len(set(of_each_type)) == 3
    for mask, number in zip(of_each_type, SAME_NUMBER, strict=True):
        assert str(mask) == f"lookup('of_anything', value={wrap(number)!r})"
        for combined in (mask & masks.causal(), ~mask, masks.heads({0: mask, "rest": "full()"})):
            assert masks.parse(str(combined)) == combined
            assert repr(wrap(number)) in str(combined)
    assert (of_each_type[0] | of_each_type[1]) != of_each_type[0]
    assert (of_each_type[0] & ~of_each_type[2]) != ~masks.full()


def test_minus_zero_is_written_as_given_where_it_matters():
    zero, minus = (masks.lookup("of_anything", value=number) for number in (0.0, -0.0))
    assert zero != minus
    assert masks.monotonic(-0.0, 1) == masks.monotonic(0, 1)
    assert str(masks.monotonic(-0.0, 1)) == "monotonic(slope=0.0, width=1)"


@pytest.fixture
def own_rule():
    @masks.rule
    @dataclass(frozen=True, repr=False)
    class own(masks.Rule):
        value: object = None
        name = "own_rule_of_a_test"

        def allows(self, q, k):
            return k.position >= 0

    yield own
    del registry.RULES[own.name]


def test_rules_of_your_own_distinguish_types_too(own_rule):
    of_each_type = [own_rule(n) for n in SAME_NUMBER]
    assert len(set(of_each_type)) == 3
    expected = [f"causal() & own_rule_of_a_test({number!r})" for number in SAME_NUMBER]
    assert [str(mask & masks.causal()) for mask in of_each_type] == expected
    assert own_rule(1) == own_rule(1)
    assert own_rule(1) != masks.prefix(1)


NOT_TEXT = {
    "not a number": float("nan"),
    "infinite": float("inf"),
    "a set": frozenset({1}),
    "a mapping": {"a": 1},
    "mappings": ({"a": 1},),
    "an object": SimpleNamespace(a=1),
    "bytes": b"a",
    "a complex number": 1j,
    "a function": len,
    "half a character": "\ud800",
    "a huge number": 10**5000,
    "huge numbers": (1, -(10**5000)),
    "deep": ((((((((((1,),),),),),),),),),),
}


@pytest.mark.parametrize("value", NOT_TEXT.values(), ids=NOT_TEXT.keys())
def test_parameters_that_no_text_can_hold_are_refused(value, own_rule):
    for build in (lambda: masks.lookup("of_anything", value=value), lambda: own_rule(value)):
        with pytest.raises(masks.MaskError, match="value must be") as error:
            build()
        assert len(str(error.value)) < 400
        assert str(error.value).isprintable()


def test_lists_within_lists_become_tuples():
    mask = masks.lookup("of_anything", value=[1, [2, [3]]])
    assert str(mask) == "lookup('of_anything', value=(1, (2, (3,))))"
    assert masks.parse("lookup('of_anything', value=[1, [2, [3]]])") == mask
    endless = []
    endless.append(endless)
    with pytest.raises(masks.MaskError, match="value must be"):
        masks.lookup("of_anything", value=endless)


def test_a_text_is_read_once_until_a_name_is_registered():
    text = "causal() & lookup('named_later', n=2)"
    with pytest.raises(masks.MaskError, match=r"must be that of a registered function .*, got 'named_later'"):
        masks.parse(text)
    register_later(lambda q, k, n: k.position >= 0)
    first = masks.parse(text)
    assert masks.parse(text) is first
    register_later(lambda q, k: k.position >= 0)
    with pytest.raises(masks.MaskError, match="unexpected keyword argument 'n'"):
        masks.parse(text)


def register_later(function):
    function.__name__ = function.__qualname__ = "named_later"
    masks.register(function)


def test_rules_of_one_name_are_read_by_the_last_one():
    def define(parameter):
        kind = make_dataclass("again", [(parameter, int)], bases=(masks.Rule,), frozen=True, repr=False)
        kind.name, kind.allows, kind.__module__ = "defined_again", lambda self, q, k: k.position >= 0, __name__
        return masks.rule(kind)

    try:
        first = define("n")
        assert isinstance(masks.parse("defined_again(n=1)"), first)
        second = define("m")
        assert isinstance(masks.parse("defined_again(m=1)"), second)
        with pytest.raises(masks.MaskError, match="missing a required argument: 'm'"):
            masks.parse("defined_again(n=1)")
    finally:
        del registry.RULES["defined_again"]


def test_no_cache_keeps_many_long_texts():
    caches = parse_function.__globals__
    assert caches["_read_short"].cache_info().maxsize * 1000 <= 2**18
    assert caches["_read_long"].cache_info().maxsize * 2**15 <= 2**18
