"""Optimizers by name, and their options: refused where they are not installed, or would not be read."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer

from ..utils.errors import InputError
from .muon import OwnOptimizer, check_matrices, option_words, options_of
from .requirements import spread_by

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .run_arguments import RunArguments

ERRORS = (ImportError, ValueError, TypeError, KeyError, NotImplementedError, RuntimeError, AttributeError)
FIELDS = {"lr": "learning_rate", "weight_decay": "weight_decay"}  # which count, whatever the options say
SWITCHES = ("true", "false", "yes", "no", "1", "0")


def check_optimizer(arguments: RunArguments, model: PreTrainedModel | None = None) -> None:
    """Refuse an optimizer that is not installed, options that it does not read, and Adam's where it is another.

    Args:
        model: which some optimizers need; without one those are looked at no further than their package.

    Raises:
        InputError: with what was given.
    """
    name = arguments.optim.value
    if name == OwnOptimizer.MUON.value:
        options_of(arguments.optim_args)
        if (spread := spread_by(arguments)) is not None:
            raise InputError(
                f"optim must not be {name} under {spread}, where no process has a whole matrix; set it to "
                "adamw_torch_fused"
            )
        if model is not None:
            check_matrices(model)
        return
    try:
        options = _build(arguments, model)
    except ERRORS as error:
        if model is None and "model" in str(error):
            return  # only the model's own parameters can tell
        given = f" with optim_args {arguments.optim_args!r}" if arguments.optim_args else ""
        reason = " ".join(str(error).split())
        raise InputError(
            f"optim must be an optimizer that works here, got {name}{given} ({reason}); correct that, or set optim to "
            "adamw_torch_fused"
        ) from error
    for field, option in {"adam_beta1": "betas", "adam_beta2": "betas", "adam_epsilon": "eps"}.items():
        given = getattr(arguments, field)
        if option not in options and given != getattr(type(arguments), field):
            raise InputError(f"{field} must be left out with optim: {name}, which has none, got {given}")
    _check_options(name, arguments, model)


def _build(arguments: RunArguments, model: PreTrainedModel | None) -> dict[str, object]:
    """Build the optimizer over a parameter of no other use, and return its options."""
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    own = {key: value for key, value in options.items() if key not in ("params", "optimizer_dict", "model")}
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and len(own) == len(options):
        kind([torch.nn.Parameter(torch.zeros(2, 2, device=arguments.device))], **own)
    return own


def _check_options(name: str, arguments: RunArguments, model: PreTrainedModel | None) -> None:
    """Refuse what `optim_args` give twice, what Transformers would not read, and values that train nothing."""
    given: dict[str, str] = {}
    for word in option_words(arguments.optim_args):
        option, _, value = word.partition("=")
        if option in given:
            raise InputError(f"optim_args must name each option once, got {option} twice; leave one out")
        given[option] = value
    without = _outcome(arguments, model, None) if given else None
    for option, value in given.items():
        if option in FIELDS:
            raise InputError(f"optim_args must be without {option}, got {value}; set {FIELDS[option]} instead")
        unreadable = _outcome(arguments, model, f"{option}=?")
        if unreadable == without:
            raise InputError(f"optim_args must be options of optim: {name}, got {option!r}; set it to null")
        is_switch = isinstance(unreadable, dict) and isinstance(unreadable.get(option), bool)
        if is_switch and value.lower() not in SWITCHES:
            raise InputError(f"optim_args {option} must be true or false, got {value!r}")
        if (number := _number(value)) is not None and not math.isfinite(number):
            raise InputError(f"optim_args {option} must be a finite number, got {value!r}")
        if option == "momentum" and number is not None and number >= 1:
            raise InputError(f"optim_args momentum must be less than 1, got {value!r}")


def _outcome(arguments: RunArguments, model: PreTrainedModel | None, text: str | None) -> Any:
    """What Transformers makes of an optimizer with these `optim_args`: its options, or what it says against them."""
    other = copy.copy(arguments)
    other.optim_args = text
    try:
        return Trainer.get_optimizer_cls_and_kwargs(other, model)[1]
    except ERRORS as error:
        return repr(error)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
