"""The canonical form of a mask: masks that are equal by the laws of `&`, `|` and `~` become the same value.

Of a rule nothing is known but that it either allows or not. Masks of few rules are written in a normal form, which
`normal_forms.py` finds from the table of all cases; in larger ones `simplification.py` removes what is superfluous at
sight.
"""

from collections.abc import Sequence
from functools import lru_cache

from .expressions import And, Mask, MaskError, Not, Or, by_text, canonical_form
from .normal_forms import MOST_RULES, leaves, normal_form
from .rules.positional import full
from .simplification import simplify

_CACHED = 32


@canonical_form
def canonical(mask: Mask) -> Mask:
    """The same value for all masks of the same meaning; `~full()` for those that never allow anything.

    Masks of more than `MOST_RULES` different rules, and those whose normal forms are long, keep their own form,
    simplified: two of them may have the same meaning and be different values.
    """
    result = _cached_if_small(mask)
    # Not cached: equal masks may come from different contradictions, which the error message shows.
    return never(mask) if result == Not(full()) else result


def _cached_if_small(mask: Mask) -> Mask:
    """The canonical form; of small masks only it is cached, since a cache must not keep large ones."""
    is_small = mask.extent.rules <= _CACHED and mask.extent.characters <= 2**10
    return _cached(mask) if is_small else _canonical(mask)


def _canonical(mask: Mask) -> Mask:
    if _rules_of_a_table(mask) is None:
        mask = simplify(mask)
    rules = _rules_of_a_table(mask)
    return mask if rules is None else normal_form(mask, rules) or simplify(mask)


_cached = lru_cache(maxsize=512)(_canonical)


def _rules_of_a_table(mask: Mask) -> list[Mask] | None:
    """The different rules but `full()`, in the order of their text; None if they are too many for a table."""
    everything = full()
    rules = {rule for rule in leaves(mask) if rule != everything}
    return sorted(rules, key=by_text) if len(rules) <= MOST_RULES else None


def never(mask: Mask) -> Mask:
    """`~full()` that keeps, for the error message, the text of the contradiction that it came from."""
    if mask == Not(full()):
        return mask
    return Not(full(), reason=_contradiction(mask))


def _contradiction(mask: Mask) -> str:
    """The text of the innermost part of a mask that never allows anything."""
    parts = getattr(mask, "parts", ())
    reasons = [part.reason for part in parts if isinstance(part, Not) and part.reason]
    if reasons:
        return reasons[0]
    if mask.extent.rules <= _CACHED:
        inner = [part for part in parts if isinstance(part, And | Or) and _cached_if_small(part) == Not(full())]
        if inner:
            return _contradiction(inner[0])
    return mask.brief_text()


def check_possible(layers: Sequence[Mask], name: str) -> None:
    """Check that masks allow something, as far as the laws tell; `~full()` may switch some of the layers off.

    Args:
        layers: the mask of each layer.
        name: of the argument, for the error.

    Raises:
        MaskError: a mask contradicts itself, or all layers are switched off; the message shows the contradiction.
    """
    closed = [mask for mask in layers if mask == Not(full())]
    contradictions = [mask.reason for mask in closed if mask.reason]
    if contradictions or len(closed) == len(layers):
        culprit = contradictions[0] if contradictions else "~full()"
        raise MaskError(
            f"{name} must allow something, got {culprit}, which never allows anything; join the rules by | or leave "
            "one of them out"
        )
