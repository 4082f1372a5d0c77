"""Masks of your own: functions that are registered under a name."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from ..expressions import Allowed, MaskError, Rule, TokenPosition
from ..limits import brief, shorten
from ..parameters import DEEPEST, check_parameter
from ..registry import defined_again, increase_edition, rule

_FUNCTIONS: dict[str, Callable[..., Allowed]] = {}


def register(function: Callable[..., Allowed]) -> Callable[..., Allowed]:
    """Register a function of a query and a key under its name, for `lookup`.

    ```python
    >>> from crossmask import masks
    >>> @masks.register
    ... def every(q, k, n=2):
    ...     return k.position % n == 0
    >>> masks.lookup("every", n=3) & masks.causal()
    causal() & lookup('every', n=3)
    ```

    The function gets a query `q` and a key `k`, each with `position`, `segment`, `passage` and `example`, and
    `q.head`: plain integers, or tensors that broadcast. It returns whether `q` may see `k`, by comparisons,
    arithmetic, `&`, `|` and `^`, which work on both.

    Raises:
        MaskError: another function has that name.
    """
    if not defined_again(function, _FUNCTIONS.get(function.__name__)):
        raise MaskError(
            f"a mask must have a new name, got {function.__name__!r}, which is registered already; choose another name"
        )
    _FUNCTIONS[function.__name__] = function
    increase_edition()
    return function


@rule
@dataclass(frozen=True, repr=False, init=False)
class lookup(Rule):
    """The function that was registered by `@masks.register` under this name, with parameters.

    ```
    lookup('even_keys')
    #.#.
    #.#.
    ```

    The picture is of this function:

    ```python
    @masks.register
    def even_keys(q, k):
        return k.position % 2 == 0
    ```

    When to use: for a mask of your own, in a config, in a text, or combined with other rules. It must be registered
    wherever the model is loaded.

    See also: `masks.rule` registers a class, which has a text form of its own, checks and `key_ranges`
    (`masks/rules/positional.py`).

    Args:
        of: the function's name.
        parameters: further arguments of the function: numbers, strings, and tuples of these.

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
                f"{self.name}: the name must be that of a registered function ({known}), got {brief(of)}; register it "
                "with @masks.register"
            )
        values = {name: _frozen(value) for name, value in parameters.items()}
        for name, value in values.items():
            check_parameter(value, f"{self.name}({of!r}): {name}")
        try:
            signature(_FUNCTIONS[of]).bind(None, None, **values)
        except TypeError as error:
            raise MaskError(
                f"{self.name}({of!r}): parameters must be those of the function after q and k, got "
                f"{brief(values)} ({error}); write the names that its definition has"
            ) from error
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
                f"{self.brief_text()}: the function must not use a tensor as one truth value; write &, | and ^ "
                "instead of and, or, not and if, and two comparisons instead of a chained one"
            ) from error
        if isinstance(allowed, bool) or (isinstance(allowed, torch.Tensor) and allowed.dtype == torch.bool):
            return allowed
        kind = allowed.dtype if isinstance(allowed, torch.Tensor) else type(allowed).__name__
        raise MaskError(
            f"{self.brief_text()}: the function must return True, False or a boolean tensor, got {kind}; compare "
            "numbers"
        )


def _frozen(value: Any, depth: int = 0) -> Any:
    """Lists as tuples, down to the depth that is refused, so that a list that holds itself comes to an end."""
    if not isinstance(value, list | tuple) or depth > DEEPEST:
        return value
    return tuple(_frozen(part, depth + 1) for part in value)
