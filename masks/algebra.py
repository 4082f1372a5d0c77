"""The canonical form of a mask: masks that mean the same by the laws of `&`, `|` and `~` are the same value.

A rule is a yes or no of its own, of which nothing else is known. A combination is written out as the table of its
answers, and read off it again as the shorter of two normal forms: an "or" of "ands" or an "and" of "ors", negation at
the rules only, parts in the order of their text. The table has `2**n` bits for n different rules; beyond `MOST_RULES`
only what shows in the form itself is simplified.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from .base import And, Mask, MaskError, Not, Or, Rule
from .rules import full

MOST_RULES = 10

Cube = frozenset[tuple[int, bool]]
"""Rules, by number, and whether each must allow (or must not) for the cube to allow."""


def canonical(mask: Mask) -> Mask:
    """The one value that stands for all masks of this meaning; `~full()` for those that never allow."""
    found = _canonical(mask)
    # Outside of the cache: equal masks may have been made of different parts.
    return never(mask) if found == Not(full()) else found


@lru_cache(maxsize=1024)
def _canonical(mask: Mask) -> Mask:
    everything = full()
    rules = sorted({rule for rule in _atoms(mask) if rule != everything}, key=str)
    if len(rules) > MOST_RULES:
        return _by_form(mask)
    size = 1 << len(rules)
    ones = (1 << size) - 1
    # Bit j of a table answers the case in which rule i allows if bit i of j is set.
    columns = [sum(1 << j for j in range(size) if j >> i & 1) for i in range(len(rules))]
    table = _table(mask, dict(zip(rules, columns, strict=True)), ones)
    if table == ones:
        return everything
    if table == 0:
        return Not(everything)
    either = _cover(table, table, columns, ones)[0]
    both = _cover(table ^ ones, table ^ ones, columns, ones)[0]
    if _size(both) < _size(either):
        clauses = [frozenset((rule, not wanted) for rule, wanted in cube) for cube in both]
        return _write(clauses, rules, And, Or)
    return _write(either, rules, Or, And)


def never(mask: Mask) -> Mask:
    """`~full()`, which remembers for the error message what it was made of."""
    if mask == Not(full()):
        return mask
    known = [part.reason for part in getattr(mask, "parts", ()) if isinstance(part, Not) and part.reason]
    return Not(full(), reason=known[0] if known else str(mask))


def check_possible(layers: Sequence[Mask], name: str) -> None:
    """Check that masks allow something, as far as the algebra can tell; some layers may be switched off by `~full()`.

    Args:
        layers: the mask of each layer.
        name: of the argument, for the error.

    Raises:
        MaskError: a mask contradicts itself, or no layer may see anything; the message shows what contradicts.
    """
    closed = [mask for mask in layers if mask == Not(full())]
    contradictory = [mask.reason for mask in closed if mask.reason]
    if contradictory or len(closed) == len(layers):
        what = contradictory[0] if contradictory else "~full()"
        raise MaskError(f"{name}: {what} never allows anything; join the rules by | or leave one of them out")


def _atoms(mask: Mask) -> Iterable[Rule]:
    """The rules between the signs; those inside of `heads` and `layers` are a part of those."""
    if isinstance(mask, And | Or):
        for part in mask.parts:
            yield from _atoms(part)
    elif isinstance(mask, Not):
        yield from _atoms(mask.part)
    else:
        yield mask


def _table(mask: Mask, columns: dict[Rule, int], ones: int) -> int:
    match mask:
        case And(parts=parts):
            table = ones
            for part in parts:
                table &= _table(part, columns, ones)
            return table
        case Or(parts=parts):
            table = 0
            for part in parts:
                table |= _table(part, columns, ones)
            return table
        case Not(part=part):
            return _table(part, columns, ones) ^ ones
    return columns.get(mask, ones)


def _cover(low: int, high: int, columns: list[int], ones: int) -> tuple[list[Cube], int]:
    """Cubes, none to spare, that cover `low` and stay within `high`, and what they cover.

    Minato's irredundant sum of products (https://doi.org/10.1109/12.277292); it depends on the table alone.
    """
    if low == 0:
        return [], 0
    if high == ones:
        return [frozenset()], ones
    *columns, column = columns
    shift, index = (column & -column).bit_length() - 1, len(columns)
    (low_no, low_yes), (high_no, high_yes) = (_halves(table, column, shift) for table in (low, high))
    no, covered_no = _cover(low_no & ~high_yes, high_no, columns, ones)
    yes, covered_yes = _cover(low_yes & ~high_no, high_yes, columns, ones)
    rest = low_no & ~covered_no | low_yes & ~covered_yes
    free, covered = _cover(rest, high_no & high_yes, columns, ones)
    cubes = [cube | {(index, False)} for cube in no] + [cube | {(index, True)} for cube in yes] + free
    return cubes, covered_no & ~column | covered_yes & column | covered


def _halves(table: int, column: int, shift: int) -> tuple[int, int]:
    """The table if a rule forbids, and if it allows, each written over both cases."""
    no, yes = table & ~column, table & column
    return no | no << shift, yes | yes >> shift


def _size(cubes: list[Cube]) -> tuple[int, int]:
    return sum(map(len, cubes)), len(cubes)


def _write(terms: Iterable[Cube], rules: list[Rule], outer: type[Mask], inner: type[Mask]) -> Mask:
    ordered = sorted((sorted(term) for term in terms), key=lambda term: (len(term), term))
    written = [_join(inner, [rules[i] if wanted else Not(rules[i]) for i, wanted in term]) for term in ordered]
    return _join(outer, written)


def _join(kind: type[Mask], parts: list[Mask]) -> Mask:
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


def _by_form(mask: Mask, negated: bool = False) -> Mask:
    """Simplify what shows: nesting, repetition, `full()`, parts beside their contraries, a part within another."""
    if isinstance(mask, Not):
        return _by_form(mask.part, not negated)
    if not isinstance(mask, And | Or):
        return Not(mask) if negated else mask
    kind, other = (And, Or) if isinstance(mask, And) != negated else (Or, And)
    simple = [_by_form(part, negated) for part in mask.parts]
    parts = {leaf for part in simple for leaf in (part.parts if isinstance(part, kind) else (part,))}
    neutral, zero = (full(), Not(full())) if kind is And else (Not(full()), full())
    parts.discard(neutral)
    short = {_without_contraries(part, parts) if isinstance(part, other) else part for part in parts}
    if zero in parts or None in short or any(part.part in parts for part in parts if isinstance(part, Not)):
        return zero
    kept = [part for part in short if not (isinstance(part, other) and any(p in short for p in part.parts))]
    return _join(kind, sorted(kept, key=str)) if kept else neutral


def _without_contraries(inner: Mask, outside: set[Mask]) -> Mask | None:
    """`a & b` beside `| ~a` is `b`; None where nothing is left."""
    left = [part for part in inner.parts if (part.part if isinstance(part, Not) else Not(part)) not in outside]
    return _join(type(inner), left) if left else None
