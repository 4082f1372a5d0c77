"""The names of rules, by which a text calls them."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar

import torch

from .expressions import Mask, MaskError
from .parameters import check_parameter, same

Builder = TypeVar("Builder", bound=Callable[..., Mask])

RULES: dict[str, Callable[..., Mask]] = {}
"""What a text may call, by name: classes of rules, and functions that build masks."""

_edition = [0]


def edition() -> int:
    """A number that changes whenever a name is registered, because texts must be read again then."""
    return _edition[0]


def increase_edition() -> None:
    """Change the edition, since texts may now have another meaning."""
    _edition[0] += 1


def rule(builder: Builder) -> Builder:
    """Register a class under its `name`, or a function that builds a mask under its own name, for texts to call.

    ```python
    @masks.rule
    @dataclass(frozen=True, repr=False)
    class every(masks.Rule):
        n: int
        name = "every"

        def allows(self, q, k):
            return (q.position - k.position) % self.n == 0
    ```

    A rule's parameters must be what a text can have: numbers, strings, `None`, masks, and tuples of these.

    Raises:
        MaskError: another rule has that name; later, when a rule is built, a parameter that a text cannot have.
    """
    name: str = getattr(builder, "name" if isinstance(builder, type) else "__name__")
    if not defined_again(builder, RULES.get(name)):
        raise MaskError(f"a mask rule must have a new name, got {name!r}, which exists already; choose another name")
    if isinstance(builder, type) and is_dataclass(builder):
        _check_parameters(builder)
    RULES[name] = builder
    increase_edition()
    return builder


def _check_parameters(builder: type[Any]) -> None:
    """Make a class check its parameters, and distinguish `1`, `1.0` and `True`, which are equal in Python."""
    names = [field.name for field in fields(builder) if field.compare and field.init]
    if not names:
        return
    build: Any = builder.__init__
    equal: Any = builder.__eq__

    @wraps(build)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        if type(self) is builder and not torch.compiler.is_compiling():
            for name in names:
                check_parameter(getattr(self, name), f"{builder.name}: {name}")

    @wraps(equal)
    def __eq__(self: Any, other: object) -> bool:
        is_equal = equal(self, other)
        return all(same(getattr(self, name), getattr(other, name)) for name in names) if is_equal is True else is_equal

    for method in (__init__, __eq__):
        setattr(builder, method.__name__, method)


def defined_again(new: Callable[..., Any], old: Callable[..., Any] | None) -> bool:
    """Whether `new` may replace `old`: it is the same definition, run again, as in a cell of a notebook."""
    return old is None or (new.__module__, new.__qualname__) == (old.__module__, old.__qualname__)
