"""The shorter of two normal forms of a mask: an "or" of "ands", or an "and" of "ors", found from its truth table.

A table has a bit for each case of which rules allow, `2**n` for n rules. It depends on the mask's meaning alone, and
so does the normal form: negation stands at rules only, and parts are in the order of their text.
"""

from collections.abc import Iterable
from functools import lru_cache

from .expressions import And, Mask, Not, Or
from .limits import RULES_LIMIT, TEXT_LIMIT
from .rules.positional import full

MOST_RULES = 10
"""The most different rules for which a table is made."""
_MOST_TERMS = 512  # rules in a normal form, repetitions included
_MOST_STEPS = 1000

Cube = frozenset[tuple[int, bool]]
"""Some rules, by number, and for each whether it allows: the cases in which all of this holds."""


class _TooLongError(Exception):
    """A normal form has too many cubes, or takes too long to find."""


def leaves(mask: Mask) -> Iterable[Mask]:
    """The rules that `&`, `|` and `~` combine; a rule inside of `heads` or `layers` is not one of them."""
    if isinstance(mask, And | Or):
        for part in mask.parts:
            yield from leaves(part)
    elif isinstance(mask, Not):
        yield from leaves(mask.part)
    else:
        yield mask


def combine_parts(kind: type[And | Or], parts: list[Mask]) -> Mask:
    """The parts in one combination; a single part is itself."""
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


def normal_form(mask: Mask, rules: list[Mask]) -> Mask | None:
    """The shorter normal form, None if both are too long.

    Args:
        rules: the different rules of the mask, `MOST_RULES` at most.
    """
    rules, columns, table, ones = _tabulate(mask, rules)
    if table == ones:
        return full()
    if table == 0:
        return Not(full())
    allowing, forbidding = _cubes(table, columns, ones), _cubes(table ^ ones, columns, ones)
    if forbidding is not None and (allowing is None or _length(forbidding) < _length(allowing)):
        clauses = [frozenset((rule, not allows) for rule, allows in cube) for cube in forbidding]
        result = _write(clauses, rules, And, Or)
    elif allowing is None:
        return None
    else:
        result = _write(allowing, rules, Or, And)
    # Rules that are large themselves must not be repeated many times.
    is_large = result.extent.rules > RULES_LIMIT or result.extent.characters > TEXT_LIMIT
    return None if is_large and len(list(leaves(result))) > len(rules) else result


def _tabulate(mask: Mask, rules: list[Mask]) -> tuple[list[Mask], list[int], int, int]:
    """The rules that matter, their columns, the mask's table, and the table of all ones."""
    columns, ones = _columns(len(rules))
    table = _table(mask, dict(zip(rules, columns, strict=True)), ones)
    halves = [_halves(table, column, _distance(column)) for column in columns]
    needed = [rule for rule, (no, yes) in zip(rules, halves, strict=True) if no != yes]
    if len(needed) < len(rules):
        columns, ones = _columns(len(needed))
        table = _table(mask, dict(zip(needed, columns, strict=True)), ones)  # the other rules count as allowing
    return needed, columns, table, ones


@lru_cache(maxsize=MOST_RULES + 1)
def _columns(count: int) -> tuple[list[int], int]:
    """The tables of `count` rules, and one of all ones: in case j, which is bit j, rule i allows if j has bit i."""
    size = 1 << count
    return [sum(1 << j for j in range(size) if j >> i & 1) for i in range(count)], (1 << size) - 1


def _table(mask: Mask, columns: dict[Mask, int], ones: int) -> int:
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


def _cubes(table: int, columns: list[int], ones: int) -> list[Cube] | None:
    """Cubes that cover a table, none of them superfluous; None if they are too many."""
    steps = [_MOST_STEPS]
    try:
        cubes = _cover(table, table, columns, ones, steps)[0]
    except _TooLongError:
        return None
    return cubes if sum(map(len, cubes)) <= _MOST_TERMS else None


def _cover(low: int, high: int, columns: list[int], ones: int, steps: list[int]) -> tuple[list[Cube], int]:
    """Cubes that cover `low` and stay within `high`, none of them superfluous, and the table that they cover.

    Minato's irredundant sum of products (https://doi.org/10.1109/12.277292).

    Raises:
        _TooLongError: it takes more than `steps` steps, which are counted down.
    """
    if low == 0:
        return [], 0
    if high == ones:
        return [frozenset()], ones
    steps[0] -= 1
    if steps[0] < 0:
        raise _TooLongError
    *columns, column = columns
    distance, index = _distance(column), len(columns)
    (low_no, low_yes), (high_no, high_yes) = (_halves(table, column, distance) for table in (low, high))
    no, covered_no = _cover(low_no & ~high_yes, high_no, columns, ones, steps)
    yes, covered_yes = _cover(low_yes & ~high_no, high_yes, columns, ones, steps)
    rest = low_no & ~covered_no | low_yes & ~covered_yes
    free, covered = _cover(rest, high_no & high_yes, columns, ones, steps)
    cubes = [cube | {(index, False)} for cube in no] + [cube | {(index, True)} for cube in yes] + free
    return cubes, covered_no & ~column | covered_yes & column | covered


def _distance(column: int) -> int:
    """How far apart the bits of two cases are that differ in this rule only."""
    return (column & -column).bit_length() - 1


def _halves(table: int, column: int, distance: int) -> tuple[int, int]:
    """The table if a rule forbids, and the table if it allows, each as one that does not depend on the rule."""
    no, yes = table & ~column, table & column
    return no | no << distance, yes | yes >> distance


def _length(cubes: list[Cube]) -> tuple[int, int]:
    return sum(map(len, cubes)), len(cubes)


def _write(terms: Iterable[Cube], rules: list[Mask], outer: type[And | Or], inner: type[And | Or]) -> Mask:
    ordered = sorted((sorted(term) for term in terms), key=lambda term: (len(term), term))
    written = [
        combine_parts(inner, [rules[index] if allows else Not(rules[index]) for index, allows in term])
        for term in ordered
    ]
    return combine_parts(outer, written)
