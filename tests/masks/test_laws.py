import random

import pytest
from hypothesis import assume, given
from mask_cases import draw, expressions, randomised
from mask_texts import nested, parity

from crossmask import masks
from crossmask.masks.equivalence import check_possible
from crossmask.masks.expressions import And, Not, Or
from crossmask.masks.normal_forms import MOST_RULES

everything = masks.full()
nothing = ~everything


@randomised
@given(expressions, expressions, expressions)
def test_masks_equal_by_the_laws_are_the_same_value(a, b, c):
    assume(len({*a.rules(), *b.rules(), *c.rules()}) <= MOST_RULES)  # beyond, the laws hold in meaning only
    for left, right in (
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
        assert left == right
        assert hash(left) == hash(right)
        assert str(left) == str(right)


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
    mask = parts[0]
    for part in parts[1:]:
        mask = mask & part
    assert mask & parts[4] == mask
    assert mask & ~parts[4] == nothing
    assert mask | ~mask == everything
    assert mask & (parts[2] | masks.causal()) == mask
    assert ~~mask == mask
    assert masks.parse(str(mask)) == mask
    assert draw(mask, 2, 3) == draw(parts[0], 2, 3)


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
        assert (
            "cross_mask must allow something, got window(left=0) & ~window(left=0), which never allows anything"
            in str(error.value)
        )
    with pytest.raises(masks.MaskError, match="never allows"):
        check_possible((nothing, nothing), "cross_mask")
    check_possible((nothing, masks.full()), "cross_mask")  # a layer switched off


def answer(mask, cases):
    """Bit j of the result: what the mask says in case j, in which rule r says bit j of `cases[r]`."""
    if isinstance(mask, And | Or):
        answers = [answer(part, cases) for part in mask.parts]
        result = answers[0]
        for each in answers[1:]:
            result = result & each if isinstance(mask, And) else result | each
        return result
    return ~answer(mask.part, cases) if isinstance(mask, Not) else cases[str(mask)]


@pytest.mark.parametrize("rules", [2, 6, 9, 10, 11, 12, 20, 60])
def test_simplifying_never_changes_what_a_mask_means(rules):
    rng = random.Random(rules)
    numbers = [rng.getrandbits(500) for _ in range(rules)]
    cases = {f"prefix({n})": number for n, number in enumerate(numbers)} | {"full()": -1}
    every = (1 << 500) - 1

    def literal():
        name = rng.choice(["full()", "~full()"]) if rng.random() < 0.03 else f"prefix({rng.randrange(rules)})"
        return rng.choice(["", "~"]) + f"({name})"

    for _ in range(40):
        text = nested(rng, rng.randrange(1, 6), rng.randrange(2, 4), literal)
        text = f"~{text}" if rng.random() < 0.3 else text
        mask = masks.parse(text)
        meant = eval(text, {"prefix": numbers.__getitem__, "full": lambda: -1, "__builtins__": {}})
        assert answer(mask, cases) & every == meant & every
        assert masks.parse(str(mask)) == mask


def test_long_normal_forms_are_left_alone():
    for count in range(2, 10):
        mask = masks.parse(parity([*range(1, count + 1)]))
        assert masks.parse(str(mask)) == mask
        assert mask.extent.rules <= 1024
        cases = {f"wait_k({n + 1})": sum(1 << j for j in range(2**count) if j >> n & 1) for n in range(count)}
        assert answer(mask, cases) & (1 << 2**count) - 1 == sum(1 << j for j in range(2**count) if j.bit_count() % 2)


def test_one_rule_after_the_other_is_carried_to_the_end():
    chain = " & ".join(["prefix(0)", *(f"(~prefix({n}) | prefix({n + 1}))" for n in range(30))])
    assert masks.parse(chain) == masks.parse(" & ".join(f"prefix({n})" for n in range(31)))
    assert masks.parse(f"{chain} & ~prefix(30)") == nothing


def test_rules_that_do_not_matter_are_left_out():
    assert masks.parse("causal() & prefix(1) | causal() & ~prefix(1)") == masks.causal()
    many = " | ".join(f"prefix({n}) & ~prefix({n})" for n in range(20))
    assert masks.parse(f"causal() | {many}") == masks.causal()
