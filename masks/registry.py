"""The names by which masks are read from text."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar

import torch

from .expressions import Mask, MaskError
from .parameters import check_parameter, same

Builder = TypeVar("Builder", bound=Callable[..., Mask])

RULES: dict[str, Callable[..., Mask]] = {}
"""What a text may call: rules, and functions that build masks of rules."""

_edition = [0]


def edition() -> int:
    """A number that changes whenever a name is registered: texts are read anew then."""
    return _edition[0]


def renew() -> None:
    """Say that what texts mean may have changed."""
    _edition[0] += 1


def rule(builder: Builder) -> Builder:
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

    A rule's parameters must be what a text can hold: numbers, strings, `None`, masks, and tuples of these.

    Raises:
        MaskError: another rule has that name; where a rule is built, a parameter that a text cannot hold.
    """
    name: str = getattr(builder, "name" if isinstance(builder, type) else "__name__")
    if not defined_again(builder, RULES.get(name)):
        raise MaskError(f"a mask rule named {name!r} exists already; choose another name")
    if isinstance(builder, type) and is_dataclass(builder):
        _check_parameters(builder)
    RULES[name] = builder
    renew()
    return builder


def _check_parameters(builder: type[Any]) -> None:
    """Make a class check its parameters, and tell `1`, `1.0` and `True` apart, which Python calls equal."""
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
        answer = equal(self, other)
        return all(same(getattr(self, name), getattr(other, name)) for name in names) if answer is True else answer

    for method in (__init__, __eq__):
        setattr(builder, method.__name__, method)


def defined_again(new: Callable[..., Any], old: Callable[..., Any] | None) -> bool:
    """Whether `new` may take the place of `old`: it is the same definition, run once more, as in a notebook's cell."""
    return old is None or (new.__module__, new.__qualname__) == (old.__module__, old.__qualname__)
