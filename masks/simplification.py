"""A mask of many rules without what is superfluous at sight, in time that grows with its length.

Superfluous are nesting, repetition, `full()`, a part beside its negation, and a part that another one implies.
"""

from collections.abc import Iterable
from itertools import count

from .expressions import And, Mask, Not, Or, by_text
from .normal_forms import combine_parts
from .rules.positional import full


def simplify(mask: Mask, negated: bool = False) -> Mask:
    """The mask, or its negation, simplified; to simplify the result again changes nothing."""
    if isinstance(mask, Not):
        return simplify(mask.part, not negated)
    if not isinstance(mask, And | Or):
        return Not(mask) if negated else mask
    kind, other = (And, Or) if isinstance(mask, And) != negated else (Or, And)
    return _Combining(kind, other).simplify([simplify(part, negated) for part in mask.parts])


class _Combining:
    """The parts of one combination: single rules, and combinations of the other kind, whose members are indexed."""

    def __init__(self, kind: type[And | Or], other: type[And | Or]):
        self.kind, self.other = kind, other
        self.neutral: Mask = full() if kind is And else Not(full())
        self.zero: Mask = Not(full()) if kind is And else full()
        self.single: set[Mask] = set()
        self.numbers = count()
        self.combinations: dict[int, set[Mask]] = {}
        self.holders: dict[Mask, list[int]] = {}  # the numbers of the combinations that have a member

    def simplify(self, parts: list[Mask]) -> Mask:
        """Add all parts: a single rule removes combinations with it, and shortens those with its negation."""
        todo = parts
        while todo:
            part = todo.pop()
            if isinstance(part, self.kind):
                todo.extend(part.parts)
            elif isinstance(part, self.other):
                todo.extend(self.add_combination(set(part.parts)))
            elif part == self.zero or _negation(part) in self.single:
                return self.zero
            elif part != self.neutral and part not in self.single:
                todo.extend(self.add_single(part))
        combinations = {
            combine_parts(self.other, sorted(members, key=by_text)) for members in self.combinations.values()
        }
        remaining = combinations | self.single
        return combine_parts(self.kind, sorted(remaining, key=by_text)) if remaining else self.neutral

    def add_combination(self, members: set[Mask]) -> Iterable[Mask]:
        """Add a combination of the other kind; returns what it is equal to, if that is a single part."""
        if not members.isdisjoint(self.single):
            return ()
        # `a` beside `(~a | b)` makes that `b`.
        members = {part for part in members if _negation(part) not in self.single}
        if not members:
            return (self.zero,)
        if len(members) == 1:
            return members
        number = next(self.numbers)
        self.combinations[number] = members
        for part in members:
            self.holders.setdefault(part, []).append(number)
        return ()

    def add_single(self, part: Mask) -> Iterable[Mask]:
        """Add a single rule; returns the single parts that combinations with its negation are reduced to."""
        self.single.add(part)
        for number in self.holders.get(part, ()):
            self.combinations.pop(number, None)
        negation = _negation(part)
        reduced: list[Mask] = []
        for number in () if negation is None else self.holders.get(negation, ()):
            members = self.combinations.get(number, set())
            members.discard(negation)
            if len(members) == 1:
                reduced.extend(self.combinations.pop(number))
        return reduced


def _negation(part: Mask) -> Mask | None:
    """The negation of a single rule; None for a combination."""
    if isinstance(part, And | Or):
        return None
    return part.part if isinstance(part, Not) else Not(part)
