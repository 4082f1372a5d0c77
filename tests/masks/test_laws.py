from hypothesis import given
from mask_cases import draw, expressions, randomised

from crossmask import masks


def same(a: masks.Mask, b: masks.Mask) -> bool:
    return draw(a, 6, 7) == draw(b, 6, 7)


@randomised
@given(expressions)
def test_double_negation_is_the_mask_itself(m):
    assert ~~m == m
    assert str(~~m) == str(m)


@randomised
@given(expressions, expressions, expressions)
def test_association_does_not_show(a, b, c):
    assert (a & b) & c == a & (b & c)
    assert (a | b) | c == a | (b | c)
    assert str((a & b) & c) == str(a & (b & c))
    assert str((a | b) | c) == str(a | (b | c))


@randomised
@given(expressions, expressions)
def test_repeated_parts_are_dropped(a, b):
    assert a & a == a | a == a
    assert a & b & a == a & b
    assert a | b | a == a | b


@randomised
@given(expressions, expressions)
def test_de_morgan(a, b):
    assert same(~(a & b), ~a | ~b)
    assert same(~(a | b), ~a & ~b)


@randomised
@given(expressions, expressions, expressions)
def test_lattice(a, b, c):
    assert same(a & b, b & a)
    assert same(a | b, b | a)
    assert same(a & (b | c), (a & b) | (a & c))
    assert same(a | (b & c), (a | b) & (a | c))
    assert same(a & (a | b), a)
    assert same(a | (a & b), a)


@randomised
@given(expressions)
def test_bounds(a):
    nothing = ~masks.full()
    assert same(a & masks.full(), a)
    assert same(a | nothing, a)
    assert same(a & nothing, nothing)
    assert same(a | ~a, masks.full())
    assert same(a & ~a, nothing)


def test_kinds_of_combination_differ():
    a, b = masks.causal(), masks.prefix(2)
    assert a & b != a | b
    assert a != ~a
    assert len({a, b, a & b, a | b, ~a, ~(a & b), masks.parse("causal()")}) == 6
