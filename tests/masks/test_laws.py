import pytest
from hypothesis import assume, given
from mask_cases import draw, expressions, randomised

from crossmask import masks
from crossmask.masks.algebra import MOST_RULES, check_possible

everything = masks.full()
nothing = ~everything


@randomised
@given(expressions, expressions, expressions)
def test_masks_equal_by_the_laws_are_the_same_value(a, b, c):
    assume(len({*a.rules(), *b.rules(), *c.rules()}) <= MOST_RULES)  # beyond, the laws hold in meaning only
    for one, other in (
        (a & b, b & a),
        (a | b, b | a),
        ((a & b) & c, a & (b & c)),
        ((a | b) | c, a | (b | c)),
        (a & (b | c), (a & b) | (a & c)),
        (a | (b & c), (a | b) & (a | c)),
        (a & (a | b), a),
        (a | (a & b), a),
        (a & a, a),
        (a | a, a),
        (~(a & b), ~a | ~b),
        (~(a | b), ~a & ~b),
        (~~a, a),
        (a & everything, a),
        (a | nothing, a),
        (a & nothing, nothing),
        (a | everything, everything),
        (a & ~a, nothing),
        (a | ~a, everything),
        ((a & b) | (a & ~b), a),
    ):
        assert one == other
        assert hash(one) == hash(other)
        assert str(one) == str(other)


@randomised
@given(expressions, expressions)
def test_the_canonical_form_allows_what_its_parts_say(a, b):
    pairs = list(zip(draw(a, 5, 6), draw(b, 5, 6), strict=True))
    for combined, sign in ((a & b, min), (a | b, max)):
        order = {".": 0, "#": 1, "\n": 2}
        assert draw(combined, 5, 6) == "".join(sign(pair, key=order.get) for pair in pairs)
    assert draw(~a, 5, 6) == draw(a, 5, 6).translate({ord("#"): ".", ord("."): "#"})


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("causal() & (prefix(2) | blocks(4))", "causal() & (blocks(4) | prefix(2))"),
        ("(causal() & prefix(2)) | (causal() & blocks(4))", "causal() & (blocks(4) | prefix(2))"),
        ("~(causal() & ~prefix(2))", "~causal() | prefix(2)"),
        ("window(0) & causal() & window(0)", "causal() & window(left=0)"),
        ("causal() & ~causal() | prefix(1)", "prefix(1)"),
        ("full() & full()", "full()"),
        ("~~full()", "full()"),
    ],
)
def test_canonical_forms(text, canonical):
    assert str(masks.parse(text)) == canonical


def test_many_rules_are_simplified_by_form():
    parts = [masks.prefix(n) for n in range(MOST_RULES + 3)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole & part
    assert whole & parts[4] == whole
    assert whole & ~parts[4] == nothing
    assert whole | ~whole == everything
    assert whole & (parts[2] | masks.causal()) == whole
    assert ~~whole == whole
    assert masks.parse(str(whole)) == whole
    assert draw(whole, 2, 3) == draw(parts[0], 2, 3)


def test_kinds_of_combination_differ():
    a, b = masks.causal(), masks.prefix(2)
    assert a & b != a | b
    assert a != ~a
    assert len({a, b, a & b, a | b, ~a, ~(a & b), masks.parse("causal()")}) == 6


def test_what_never_allows_is_built_and_then_refused_by_what_it_was_made_of():
    never = masks.window(0) & ~masks.window(0)
    assert never == nothing
    for mask in (never, never & masks.causal(), masks.parse("causal() & (window(0) & ~window(0))")):
        with pytest.raises(masks.MaskError) as error:
            check_possible((mask, masks.full()), "cross_mask")
        assert "cross_mask: window(left=0) & ~window(left=0) never allows anything" in str(error.value)
    with pytest.raises(masks.MaskError, match="never allows"):
        check_possible((nothing, nothing), "cross_mask")
    check_possible((nothing, masks.full()), "cross_mask")  # a layer switched off
