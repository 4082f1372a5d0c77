"""The search space of a recipe: what `crossmask tune` may set its fields to.

```yaml
search:
  learning_rate: {low: 1.0e-4, high: 3.0e-3, log: true}
  model.dropout: {low: 0.0, high: 0.4, step: 0.1}
  label_smoothing_factor: [0.0, 0.1]
```
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..utils.errors import InputError
from .nested import put, unshared
from .validation import check_names

if TYPE_CHECKING:
    import optuna

_SCORED = "trials would not be scored alike"
_PLACES = "crossmask tune gives every trial a folder of its own"
# Fields that no trial may have otherwise than another.
FIXED = {
    **dict.fromkeys(
        (
            "task", "task_options", "validation", "test", "data_dir", "metric_for_best_model", "greater_is_better",
            "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "generation_num_beams",
        ),
        _SCORED,
    ),
    **dict.fromkeys(("output_dir", "overwrite", "resume_from_checkpoint"), _PLACES),
    "search": "it is what is searched",
}  # fmt: skip
_RANGE, _CHOICES = ("low", "high", "step", "log"), ("choices",)


@dataclass(frozen=True)
class Parameter:
    """A field that is searched, by its name with dots, and the values that it may have: a range or choices.

    Attributes:
        low, high: the ends, which it may have too; None with choices. step: between its values; None for all.
        log: whether it is drawn by its logarithm.
    """

    name: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def is_whole(self) -> bool:
        return all(isinstance(end, int) for end in (self.low, self.high, self.step or 1))

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values to try before a search: both ends, or all choices."""
        return self.choices or (self.low, self.high)

    def suggest(self, trial: optuna.trial.BaseTrial) -> Any:
        """The value that a trial has."""
        if self.choices:
            of_label = {_label(choice): choice for choice in self.choices}
            return of_label[trial.suggest_categorical(self.name, list(of_label))]
        low, high = self.low or 0, self.high or 0
        if self.is_whole:
            return trial.suggest_int(self.name, int(low), int(high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, low, high, step=self.step, log=self.log)


def parse_space(search: Mapping[str, Any], current: Callable[[str], Any] = lambda name: None) -> tuple[Parameter, ...]:
    """The parameters of a recipe's `search`.

    Whole ends and a whole step give whole numbers, unless the field has a number that is not whole without a search.

    Args:
        current: what a field has without a search, by its name with dots.

    Raises:
        InputError: a field that cannot be searched, or values that are no range and no choices.
    """
    if not search:
        raise InputError(
            "search must have at least one field, got none; add for instance learning_rate: "
            "{low: 1.0e-4, high: 1.0e-3, log: true}"
        )
    for name in search:
        if not isinstance(name, str):
            raise InputError(f"search must have names of fields, got {name!r}; put model.dropout, for instance")
        top = name.partition(".")[0]
        if top in FIXED:
            raise InputError(f"search.{name} must be left out: {FIXED[top]}")
        outer = [other for other in search if name.startswith(f"{other}.")]
        if outer:
            raise InputError(f"search.{name} must be left out beside search.{outer[0]}, which it is a part of")
    return tuple(_parameter(name, given, current(name)) for name, given in search.items())


def _parameter(name: str, given: Any, current: Any) -> Parameter:
    place = f"search.{name}"
    if isinstance(given, list):
        given = {"choices": given}
    if not isinstance(given, Mapping):
        raise InputError(f"{place} must be a range {{low: ..., high: ...}} or a list of choices, got {given!r}")
    check_names(place, given, (*_RANGE, *_CHOICES))
    if "choices" in given:
        if beside := [key for key in given if key != "choices"]:
            raise InputError(f"{place} must have choices or a range, got choices and {beside[0]}; leave one out")
        return Parameter(name, choices=_choices(place, given["choices"]))
    for end in ("low", "high"):
        if end not in given:
            raise InputError(f"{place} must have low and high, or choices, got {end} left out; add it")
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{place}.log must be true or false, got {log!r}")
    low, high = (_number(f"{place}.{end}", given[end]) for end in ("low", "high"))
    step = None if given.get("step") is None else _number(f"{place}.step", given["step"])
    if not low < high:
        raise InputError(f"{place} must have a low that is less than high, got low {low} and high {high}")
    if log and low <= 0:
        raise InputError(f"{place}.low must be more than 0 with log: true, got {low}")
    if step is not None:
        _check_step(place, low, high, step, log)
    if isinstance(current, float):
        low, high, step = float(low), float(high), None if step is None else float(step)
    return Parameter(name, low, high, step, log)


def _check_step(place: str, low: float, high: float, step: float, log: bool) -> None:
    if log:
        raise InputError(f"{place}.step must be left out with log: true, got {step}")
    if step <= 0:
        raise InputError(f"{place}.step must be more than 0, got {step}")
    steps = (Decimal(str(high)) - Decimal(str(low))) / Decimal(str(step))
    if steps != int(steps) or steps < 1:
        raise InputError(f"{place}.step must divide the range from {low} to {high}, got {step}; change high or step")


def _choices(place: str, given: Any) -> tuple[Any, ...]:
    if not isinstance(given, list) or len(given) < 2:
        raise InputError(f"{place}.choices must be a list of two values or more, got {given!r}")
    if len({_label(choice) for choice in given}) < len(given):
        raise InputError(f"{place}.choices must be different values, got {given!r}; leave the repeated one out")
    return tuple(given)


def _number(place: str, given: Any) -> float:
    value = given
    if isinstance(given, str):
        try:
            value = float(given)  # PyYAML takes 1e-4 for text, since its version of YAML wants 1.0e-4
        except ValueError:
            value = None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(f"{place} must be a finite number, got {given!r}")
    return value


def _label(choice: Any) -> Any:
    """How a choice is stored: numbers, names and null as they are, lists and mappings as JSON."""
    return choice if choice is None or isinstance(choice, bool | int | float | str) else json.dumps(choice)


def with_values(recipe: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a recipe's fields without `search`, with other values of fields by their names with dots.

    Raises:
        InputError: a name that leads into something that is neither a mapping nor a list.
    """
    changed = {name: unshared(value) for name, value in recipe.items() if name != "search"}
    for name, value in values.items():
        put(changed, name.split("."), value, f"search.{name}")
    return changed
