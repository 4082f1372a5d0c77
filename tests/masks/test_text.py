import pytest
from hypothesis import given
from mask_cases import expressions, randomised

from crossmask import masks


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
        ("", "cannot read the mask ''"),
        ("causal(", "cannot read the mask 'causal('"),
        ("causal() &", "cannot read the mask 'causal() &'"),
        ("causal(); full()", "cannot read the mask 'causal(); full()'"),
        ("x = causal()", "cannot read the mask"),
        ("causal() \0", "cannot read the mask"),
        ("causal() and full()", "'causal() and full()' in the mask"),
        ("causal() ^ full()", "'causal() ^ full()' in the mask"),
        ("full() & -causal()", "'-causal()' in the mask"),
        ("not causal()", "'not causal()' in the mask"),
        ("full() | 3", "'3' in the mask"),
        ("full() | causal", "'causal' in the mask 'full() | causal' lacks its brackets: write causal(...)"),
        ("full() | casual", "'casual' in the mask"),
        (
            "full() & casual()",
            "'casual()' in the mask 'full() & casual()': no rule is named 'casual'",
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
        ("heads({0: 'casual()'})", "heads[0]: 'casual()' in the mask 'casual()': no rule is named 'casual'"),
        ("wait_k(**k)", "'wait_k(**k)' in the mask"),
        ("wait_k()", "'wait_k()' in the mask 'wait_k()': missing a required argument: 'k'"),
        ("wait_k(1, 2)", "'wait_k(1, 2)' in the mask 'wait_k(1, 2)': too many positional arguments"),
        ("wait_k(n=1)", "'wait_k(n=1)' in the mask"),
        ("wait_k(1, k=1)", "'wait_k(1, k=1)' in the mask"),
        ("window(left=1, left=2)", "in the mask 'window(left=1, left=2)': every parameter must be named once"),
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


@pytest.mark.parametrize("given", [None, 3, b"causal()", masks.causal()])
def test_only_text_is_parsed(given):
    with pytest.raises(masks.MaskError, match="a mask's text must be a string"):
        masks.parse(given)


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
    made = tmp_path / "made"
    with pytest.raises(masks.MaskError):
        masks.parse(text.format(path=made))
    assert not made.exists()
