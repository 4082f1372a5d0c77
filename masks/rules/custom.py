"""Masks of one's own, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from ..expressions import Allowed, MaskError, Rule, TokenPosition
from ..limits import brief, shorten
from ..parameters import DEEPEST, check_parameter
from ..registry import defined_again, renew, rule

_FUNCTIONS: dict[str, Callable[..., Allowed]] = {}


def register(function: Callable[..., Allowed]) -> Callable[..., Allowed]:
    """Register a function of two places under its name, for `lookup`.

    ```python
    >>> from crossmask import masks
    >>> @masks.register
    ... def every(q, k, n=2):
    ...     return k.position % n == 0
    >>> masks.lookup("every", n=3) & masks.causal()
    causal() & lookup('every', n=3)
    ```

    The function gets a query `q` and a key `k`, each with `position`, `segment`, `passage` and `example`, and
    `q.head`: plain integers, or tensors that broadcast. It answers with comparisons, arithmetic, `&`, `|` and `^`, so
    that it runs on both.

    Raises:
        MaskError: another function has that name.
    """
    if not defined_again(function, _FUNCTIONS.get(function.__name__)):
        raise MaskError(f"a mask named {function.__name__!r} is registered already; choose another name")
    _FUNCTIONS[function.__name__] = function
    renew()
    return function


@rule
@dataclass(frozen=True, repr=False, init=False)
class lookup(Rule):
    """The mask that was registered by `@masks.register` under this name, with parameters.

    ```
    lookup('even_keys')
    #.#.
    #.#.
    ```

    The picture is that of

    ```python
    @masks.register
    def even_keys(q, k):
        return k.position % 2 == 0
    ```

    When to use: a mask of one's own in a config, in text, or beside others. It must be registered wherever the model
    is loaded. Neighbours: `masks.rule` registers a class, for text of its own, checks and bounds
    (`masks/rules/positional.py`).

    Args:
        of: the function's name.
        parameters: the function's further arguments: numbers, strings, and tuples of them.

    Raises:
        MaskError: nothing is registered under the name, it has other parameters, or one cannot be written as text.
    """

    of: str
    parameters: tuple[tuple[str, Any], ...] = ()
    name = "lookup"

    def __init__(self, of: str, **parameters: Any):
        if not isinstance(of, str) or of not in _FUNCTIONS:
            known = shorten(", ".join(sorted(_FUNCTIONS))) or "none yet"
            raise MaskError(
                f"{self.name}: no mask is registered as {brief(of)} (there are: {known}); use @masks.register"
            )
        values = {name: _frozen(value) for name, value in parameters.items()}
        for name, value in values.items():
            check_parameter(value, f"{self.name}({of!r}): {name}")
        try:
            signature(_FUNCTIONS[of]).bind(None, None, **values)
        except TypeError as error:
            raise MaskError(f"{self.name}({of!r}): {error}; the function takes q, k and its parameters") from error
        object.__setattr__(self, "of", of)
        object.__setattr__(self, "parameters", tuple(sorted(values.items())))

    def text(self) -> str:
        return f"{self.name}({', '.join([repr(self.of), *(f'{name}={value!r}' for name, value in self.parameters)])})"

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        try:
            allowed = _FUNCTIONS[self.of](q, k, **dict(self.parameters))
        except RuntimeError as error:
            if "Boolean value of Tensor" not in str(error):
                raise
            raise MaskError(
                f"{self.brief_text()}: the function takes a tensor for one truth value; write &, | and ^ for and, or, "
                "not and if, and two comparisons for a chained one"
            ) from error
        if isinstance(allowed, bool) or (isinstance(allowed, torch.Tensor) and allowed.dtype == torch.bool):
            return allowed
        shown = allowed.dtype if isinstance(allowed, torch.Tensor) else type(allowed).__name__
        raise MaskError(
            f"{self.brief_text()}: the function must answer with True, False or a boolean tensor, got {shown}"
        )


def _frozen(value: Any, depth: int = 0) -> Any:
    """Lists as tuples, down to where nesting is refused, so that a list within itself ends there."""
    if not isinstance(value, list | tuple) or depth > DEEPEST:
        return value
    return tuple(_frozen(part, depth + 1) for part in value)
