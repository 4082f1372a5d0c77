"""The canonical form of a mask: masks that mean the same by the laws of `&`, `|` and `~` are the same value.

A rule is a yes or no of its own, of which nothing else is known. A combination is written out as the table of its
answers, and read off it again as the shorter of two normal forms: an "or" of "ands" or an "and" of "ors", negation at
the rules only, parts in the order of their text. The table has `2**n` bits for n different rules; beyond `MOST_RULES`
only what shows in the form itself is simplified.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import count

from .expressions import And, Mask, MaskError, Not, Or, by_text, canonical_form
from .limits import RULES_LIMIT, TEXT_LIMIT
from .rules.positional import full

MOST_RULES = 10
MOST_SIGNS = 512
"""The most rules, repetitions included, in a normal form; a longer one is simplified by its own form."""
_MOST_STEPS = 1000
_CACHED = 32

Cube = frozenset[tuple[int, bool]]
"""Rules, by number, and whether each must allow (or must not) for the cube to allow."""


class _TooLong(Exception):
    """A normal form has too many cubes, or takes too long to find."""


@canonical_form
def canonical(mask: Mask) -> Mask:
    """The one value that stands for all masks of this meaning; `~full()` for those that never allow.

    Masks of more than `MOST_RULES` rules, and those whose normal forms are long, keep their own form, without what is
    seen to be superfluous: two of them may have the same meaning and be different values.
    """
    found = _found(mask)
    # Outside of the cache: equal masks may have been made of different parts.
    return never(mask) if found == Not(full()) else found


def _found(mask: Mask) -> Mask:
    """The canonical form, from the cache for small masks: it must not keep large ones."""
    small = mask.extent.rules <= _CACHED and mask.extent.characters <= 2**10
    return _cached(mask) if small else _canonical(mask)


def _canonical(mask: Mask) -> Mask:
    if _few_rules(mask) is None:
        mask = _by_form(mask)
    rules = _few_rules(mask)
    return mask if rules is None else _by_table(mask, rules) or _by_form(mask)


_cached = lru_cache(maxsize=512)(_canonical)


def _few_rules(mask: Mask) -> list[Mask] | None:
    """The rules whose answers matter, in the order of their text; None where there are too many for a table."""
    everything = full()
    rules = {rule for rule in _atoms(mask) if rule != everything}
    return sorted(rules, key=by_text) if len(rules) <= MOST_RULES else None


def _by_table(mask: Mask, rules: list[Mask]) -> Mask | None:
    """The shorter normal form, None where both are too long. It depends on the mask's meaning alone."""
    rules, columns, table, ones = _tabulate(mask, rules)
    if table == ones:
        return full()
    if table == 0:
        return Not(full())
    either, both = _cubes(table, columns, ones), _cubes(table ^ ones, columns, ones)
    if both is not None and (either is None or _size(both) < _size(either)):
        clauses = [frozenset((rule, not wanted) for rule, wanted in cube) for cube in both]
        found = _write(clauses, rules, And, Or)
    elif either is None:
        return None
    else:
        found = _write(either, rules, Or, And)
    # Rules that are large themselves are not repeated many times.
    repeated = found.extent.rules > RULES_LIMIT or found.extent.characters > TEXT_LIMIT
    return None if repeated and len(list(_atoms(found))) > len(rules) else found


def _tabulate(mask: Mask, rules: list[Mask]) -> tuple[list[Mask], list[int], int, int]:
    """The rules on which the answer depends, their columns, the mask's table, and the table of all ones."""
    columns, ones = _columns(len(rules))
    table = _table(mask, dict(zip(rules, columns, strict=True)), ones)
    halves = [_halves(table, column, (column & -column).bit_length() - 1) for column in columns]
    needed = [rule for rule, (no, yes) in zip(rules, halves, strict=True) if no != yes]
    if len(needed) < len(rules):
        columns, ones = _columns(len(needed))
        table = _table(mask, dict(zip(needed, columns, strict=True)), ones)  # the others may answer anything
    return needed, columns, table, ones


@lru_cache(maxsize=MOST_RULES + 1)
def _columns(count: int) -> tuple[list[int], int]:
    """Bit j of a table answers the case in which rule i allows if bit i of j is set."""
    size = 1 << count
    return [sum(1 << j for j in range(size) if j >> i & 1) for i in range(count)], (1 << size) - 1


def never(mask: Mask) -> Mask:
    """`~full()`, which remembers for the error message what it was made of."""
    if mask == Not(full()):
        return mask
    return Not(full(), reason=_contradiction(mask))


def _contradiction(mask: Mask) -> str:
    """The innermost part of a mask that already never allows, as text."""
    parts = getattr(mask, "parts", ())
    known = [part.reason for part in parts if isinstance(part, Not) and part.reason]
    if known:
        return known[0]
    if mask.extent.rules <= _CACHED:
        inner = [part for part in parts if isinstance(part, And | Or) and _found(part) == Not(full())]
        if inner:
            return _contradiction(inner[0])
    return mask.brief_text()


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


def _atoms(mask: Mask) -> Iterable[Mask]:
    """The rules between the signs; those inside of `heads` and `layers` are a part of those."""
    if isinstance(mask, And | Or):
        for part in mask.parts:
            yield from _atoms(part)
    elif isinstance(mask, Not):
        yield from _atoms(mask.part)
    else:
        yield mask


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
    """Cubes, none to spare, that cover a table; None where there are too many."""
    steps = [_MOST_STEPS]
    try:
        cubes = _cover(table, table, columns, ones, steps)[0]
    except _TooLong:
        return None
    return cubes if sum(map(len, cubes)) <= MOST_SIGNS else None


def _cover(low: int, high: int, columns: list[int], ones: int, steps: list[int]) -> tuple[list[Cube], int]:
    """Cubes, none to spare, that cover `low` and stay within `high`, and what they cover.

    Minato's irredundant sum of products (https://doi.org/10.1109/12.277292); it depends on the table alone.

    Raises:
        _TooLong: it would take more than `steps` steps, which are counted down.
    """
    if low == 0:
        return [], 0
    if high == ones:
        return [frozenset()], ones
    steps[0] -= 1
    if steps[0] < 0:
        raise _TooLong
    *columns, column = columns
    shift, index = (column & -column).bit_length() - 1, len(columns)
    (low_no, low_yes), (high_no, high_yes) = (_halves(table, column, shift) for table in (low, high))
    no, covered_no = _cover(low_no & ~high_yes, high_no, columns, ones, steps)
    yes, covered_yes = _cover(low_yes & ~high_no, high_yes, columns, ones, steps)
    rest = low_no & ~covered_no | low_yes & ~covered_yes
    free, covered = _cover(rest, high_no & high_yes, columns, ones, steps)
    cubes = [cube | {(index, False)} for cube in no] + [cube | {(index, True)} for cube in yes] + free
    return cubes, covered_no & ~column | covered_yes & column | covered


def _halves(table: int, column: int, shift: int) -> tuple[int, int]:
    """The table if a rule forbids, and if it allows, each written over both cases."""
    no, yes = table & ~column, table & column
    return no | no << shift, yes | yes >> shift


def _size(cubes: list[Cube]) -> tuple[int, int]:
    return sum(map(len, cubes)), len(cubes)


def _write(terms: Iterable[Cube], rules: list[Mask], outer: type[And | Or], inner: type[And | Or]) -> Mask:
    ordered = sorted((sorted(term) for term in terms), key=lambda term: (len(term), term))
    written = [_join(inner, [rules[i] if wanted else Not(rules[i]) for i, wanted in term]) for term in ordered]
    return _join(outer, written)


def _join(kind: type[And | Or], parts: list[Mask]) -> Mask:
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


def _by_form(mask: Mask, negated: bool = False) -> Mask:
    """Simplify what shows: nesting, repetition, `full()`, parts beside their contraries, a part within another.

    The result is simple in itself: once more changes nothing.
    """
    if isinstance(mask, Not):
        return _by_form(mask.part, not negated)
    if not isinstance(mask, And | Or):
        return Not(mask) if negated else mask
    kind, other = (And, Or) if isinstance(mask, And) != negated else (Or, And)
    return _Level(kind, other).simplify([_by_form(part, negated) for part in mask.parts])


class _Level:
    """The parts of one combination: single rules, and combinations of the other kind, whose rules are watched."""

    def __init__(self, kind: type[And | Or], other: type[And | Or]):
        self.kind, self.other = kind, other
        self.neutral: Mask = full() if kind is And else Not(full())
        self.zero: Mask = Not(full()) if kind is And else full()
        self.single: set[Mask] = set()
        self.numbers = count()
        self.joined: dict[int, set[Mask]] = {}
        self.holders: dict[Mask, list[int]] = {}

    def simplify(self, parts: list[Mask]) -> Mask:
        """Take in all parts; each single rule shortens or drops the combinations that hold it or its contrary."""
        todo = parts
        while todo:
            part = todo.pop()
            if isinstance(part, self.kind):
                todo.extend(part.parts)
            elif isinstance(part, self.other):
                todo.extend(self.join(set(part.parts)))
            elif part == self.zero or _contrary(part) in self.single:
                return self.zero
            elif part != self.neutral and part not in self.single:
                todo.extend(self.add(part))
        kept = {_join(self.other, sorted(rest, key=by_text)) for rest in self.joined.values()} | self.single
        return _join(self.kind, sorted(kept, key=by_text)) if kept else self.neutral

    def join(self, members: set[Mask]) -> Iterable[Mask]:
        """Keep a combination of the other kind; returns what it comes to, where that is a single part."""
        if not members.isdisjoint(self.single):
            return ()
        # `a & b` beside `| ~a` is `b`.
        members = {part for part in members if _contrary(part) not in self.single}
        if not members:
            return (self.zero,)
        if len(members) == 1:
            return members
        number = next(self.numbers)
        self.joined[number] = members
        for part in members:
            self.holders.setdefault(part, []).append(number)
        return ()

    def add(self, part: Mask) -> Iterable[Mask]:
        """Keep a single rule; returns what is left of combinations that hold its contrary."""
        self.single.add(part)
        for number in self.holders.get(part, ()):
            self.joined.pop(number, None)
        contrary = _contrary(part)
        left: list[Mask] = []
        for number in () if contrary is None else self.holders.get(contrary, ()):
            members = self.joined.get(number, set())
            members.discard(contrary)
            if len(members) == 1:
                left.extend(self.joined.pop(number))
        return left


def _contrary(part: Mask) -> Mask | None:
    """What a single rule excludes, and is excluded by; a combination has nothing so simple."""
    if isinstance(part, And | Or):
        return None
    return part.part if isinstance(part, Not) else Not(part)
