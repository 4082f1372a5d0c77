"""The names by which masks are read from text."""

from collections.abc import Callable

from .base import Mask, MaskError

RULES: dict[str, Callable[..., Mask]] = {}
"""What a text may call: rules, and functions that build masks of rules."""


def rule(builder):
    """Register a rule under its `name`, or a function that builds a mask under its own, so that text can call it.

    ```python
    @masks.rule
    @dataclass(frozen=True, repr=False)
    class every(masks.Rule):
        n: int
        name = "every"

        def allows(self, q, k):
            return (q.position - k.position) % self.n == 0
    ```

    Raises:
        MaskError: another rule has that name.
    """
    name = builder.name if isinstance(builder, type) else builder.__name__
    if not defined_again(builder, RULES.get(name)):
        raise MaskError(f"a mask rule named {name!r} exists already; choose another name")
    RULES[name] = builder
    return builder


def defined_again(new: Callable, old: Callable | None) -> bool:
    """Whether `new` may take the place of `old`: it is the same definition, run once more, as in a notebook's cell."""
    return old is None or (new.__module__, new.__qualname__) == (old.__module__, old.__qualname__)
