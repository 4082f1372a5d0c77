"""The schedule of the learning rate, computed before the first step for the whole run, which a mistake would cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from ..utils.errors import InputError
from .validation import check_finite, one_line

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from .run_arguments import RunArguments

BY_METRIC = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
WITHOUT_WARMUP = (SchedulerType.CONSTANT, *BY_METRIC)
CONSTANT = (SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP)
SCHEDULE_FREE = {
    OptimizerNames.SCHEDULE_FREE_ADAMW: True,
    OptimizerNames.SCHEDULE_FREE_SGD: True,
    OptimizerNames.SCHEDULE_FREE_RADAM: False,
}
"""Optimizers whose averages stand in for a schedule, and whether they read `warmup_steps`."""
DECAY = "num_decay_steps"
SAMPLES = 1000
"""Steps at most whose rate is computed."""
EVALUATIONS = 50
"""Evaluations without progress that a schedule by the metric is tried on."""
_ERRORS = (ValueError, TypeError, KeyError, ZeroDivisionError, OverflowError)


def check_scheduler(arguments: RunArguments) -> None:
    """Refuse options of the schedule that it does not take, and with `max_steps`, a schedule that makes no sense.

    Raises:
        InputError: with the options.
    """
    name, options = SchedulerType(arguments.lr_scheduler_type).value, arguments.lr_scheduler_kwargs
    if options is not None and not isinstance(options, dict):
        raise InputError(f"lr_scheduler_kwargs must be a mapping from names to values, got {options!r}")
    check_finite("lr_scheduler_kwargs", options)
    if options and name in CONSTANT:
        raise InputError(
            f"lr_scheduler_kwargs must be left out with lr_scheduler_type: {name}, got {options}; it takes none"
        )
    if arguments.optim in SCHEDULE_FREE:
        _check_schedule_free(arguments, name)
    elif arguments.warmup_steps and name in WITHOUT_WARMUP:
        raise InputError(
            f"warmup_steps must be left out with lr_scheduler_type: {name}, got {arguments.warmup_steps:g}; or "
            "set lr_scheduler_type to constant_with_warmup, for instance"
        )
    if name in BY_METRIC:
        _check_by_metric(arguments, options or {})
    for option, value in (options or {}).items():
        is_share = option == DECAY and isinstance(value, float) and 0 < value < 1
        if option.endswith("_steps") and not is_share:
            _check_count(option, value, "steps, or a share of them below 1" if option == DECAY else "steps")
    if arguments.max_steps > 0:
        check_schedule_ends(arguments, arguments.max_steps)
    else:
        _build(arguments, warm_up=1, steps=10)  # how long the run is will be known with its data


def _check_schedule_free(arguments: RunArguments, name: str) -> None:
    """Refuse a schedule of the rate, and a warm-up that is not read."""
    optimizer: Any = arguments.optim
    if name != SchedulerType.CONSTANT:
        raise InputError(f"lr_scheduler_type must be constant with optim: {optimizer.value}, got {name}; set it")
    if arguments.warmup_steps and not SCHEDULE_FREE[optimizer]:
        raise InputError(
            f"warmup_steps must be left out with optim: {optimizer.value}, which needs none, got "
            f"{arguments.warmup_steps:g}"
        )


def follow_metric(arguments: TrainingArguments) -> None:
    """Tell a schedule by the metric, in `lr_scheduler_kwargs`, whether a higher one is better.

    Args:
        arguments: with the metric and its direction.

    Raises:
        InputError: the options say otherwise.
    """
    if arguments.lr_scheduler_type not in BY_METRIC:
        return
    options, mode = _options(arguments), "max" if arguments.greater_is_better else "min"
    if options.setdefault("mode", mode) != mode:
        raise InputError(
            f"lr_scheduler_kwargs.mode must be {mode} for {arguments.metric_for_best_model}, got {options['mode']}; "
            "leave it out"
        )
    arguments.lr_scheduler_kwargs = options


def _check_by_metric(arguments: TrainingArguments, options: dict[str, Any]) -> None:
    """Refuse factors, numbers of evaluations and bounds that a schedule by the metric cannot work with."""
    factor = options.get("factor", 0.5)
    if not isinstance(factor, int | float) or not 0 < factor < 1:
        raise InputError(f"lr_scheduler_kwargs.factor must be more than 0 and less than 1, got {factor!r}")
    for option in ("patience", "cooldown"):
        _check_count(option, options.get(option, 0), "evaluations")
    check_bounds(arguments, [arguments.learning_rate])


def check_bounds(arguments: TrainingArguments, rates: Sequence[float]) -> None:
    """Refuse bounds of a schedule by the metric, which holds all weights to them, that a rate is not between.

    Args:
        rates: with which the groups of parameters begin.

    Raises:
        InputError: with the bound.
    """
    name, options = SchedulerType(arguments.lr_scheduler_type), _options(arguments)
    if name not in BY_METRIC:
        return
    lowest, highest = (1e-3, 1.0) if name == SchedulerType.GREEDY else (0.0, math.inf)
    lowest, highest = options.get("min_lr", lowest), options.get("max_lr", highest)
    if not isinstance(lowest, int | float) or not 0 <= lowest < min(rates):
        raise _unfit_bound("min_lr", lowest, "less than", arguments, min(rates))
    if not isinstance(highest, int | float) or highest < max(rates):
        raise _unfit_bound("max_lr", highest, "at least", arguments, max(rates))


def _unfit_bound(option: str, value: Any, expected: str, arguments: TrainingArguments, rate: float) -> InputError:
    name = SchedulerType(arguments.lr_scheduler_type).value
    default = "" if option in _options(arguments) else f", the default of {name}"
    which = "learning_rate" if rate == arguments.learning_rate else "a learning rate of the run"
    message = f"must be one number, {expected} {which} ({rate:g}), got {value!r}{default}; set it"
    return InputError(f"lr_scheduler_kwargs.{option} {message}")


def _check_count(option: str, value: Any, unit: str) -> None:
    least = 1 if option == DECAY else 0
    if type(value) is not int or value < least:
        number = "a positive whole number" if least else "a whole number"
        raise InputError(f"lr_scheduler_kwargs.{option} must be {number} of {unit}, got {value!r}")


def check_schedule_ends(arguments: TrainingArguments, steps: int) -> None:
    """Refuse a schedule that does not fit into the steps of the run, fails in one, or has rates that make no sense.

    Raises:
        InputError: with the options, and the first step that is wrong.
    """
    warm_up = arguments.get_warmup_steps(steps)
    if warm_up >= steps:
        raise InputError(
            f"warmup_steps must be fewer than the run's {steps} steps, got {warm_up}; lower it, or train for longer"
        )
    options = schedule_options(arguments, steps)
    parts = [options.get(name) or 0 for name in ("num_stable_steps", DECAY)]
    if warm_up + sum(parts) > steps:
        raise InputError(
            f"warmup_steps ({warm_up}) and lr_scheduler_kwargs ({_options(arguments)}, {sum(parts)} steps) must be at "
            f"most the run's {steps} steps together; lower one, or train for longer"
        )
    schedule = _build(arguments, warm_up, steps)
    if isinstance(schedule, LambdaLR):
        _check_rates(arguments, schedule, warm_up, steps)


def _build(arguments: TrainingArguments, warm_up: int, steps: int) -> Any:
    """The schedule over an optimizer of no other use; one by the metric is tried on evaluations without progress."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    name = SchedulerType(arguments.lr_scheduler_type)
    try:
        options = schedule_options(arguments, steps)
        schedule = get_scheduler(name, optimizer, warm_up, steps, scheduler_specific_kwargs=options)
        if not isinstance(schedule, LambdaLR):
            optimizer.step()
            for _ in range(EVALUATIONS):
                schedule.step(1.0)
    except _ERRORS as error:
        raise _refusal(arguments, one_line(error)) from error
    return schedule


def _check_rates(arguments: TrainingArguments, schedule: LambdaLR, warm_up: int, steps: int) -> None:
    """Refuse shares of `learning_rate` outside of 0 to 1, and after the warm-up a rate of 0 for longer than a step, or
    one that stays what it is."""
    stride = max(steps // SAMPLES, 1)
    last = steps - 1 if schedule_options(arguments, steps).get(DECAY, 1) > 1 else steps  # one step decays to its end
    before, shares = 1.0, set()
    for step in sorted({*range(0, steps, stride), steps - 1, steps}):  # it is asked once more after the last step
        try:
            share = float(schedule.lr_lambdas[0](step))
        except _ERRORS as error:
            raise _refusal(arguments, f"it fails at step {step} of {steps}: {one_line(error)}") from error
        if not math.isfinite(share) or not -1e-6 <= share <= 1 + 1e-6:
            rate = share * arguments.learning_rate
            what = f"the rate is {rate:g} at step {step} of {steps}, where it must be from 0 to learning_rate"
            raise _refusal(arguments, what)
        if warm_up <= step <= last:
            shares.add(round(share, 9))
        if warm_up < step < steps:
            if share == before == 0:
                raise _refusal(
                    arguments, f"the rate is 0 long before the end, from step {step - stride} of {steps} on"
                )
            before = share
    if len(shares) == 1 and arguments.lr_scheduler_type not in CONSTANT:
        raise _refusal(arguments, "the rate stays what it is: set lr_scheduler_type to constant_with_warmup for that")


def _refusal(arguments: TrainingArguments, reason: str) -> InputError:
    name, options = SchedulerType(arguments.lr_scheduler_type).value, _options(arguments)
    return InputError(f"lr_scheduler_kwargs must be options of lr_scheduler_type: {name}, got {options}; {reason}")


def schedule_options(arguments: TrainingArguments, steps: int) -> dict[str, Any]:
    """`lr_scheduler_kwargs` as Transformers reads them in a run of `steps`: a share of its steps as their number."""
    options = _options(arguments)
    if isinstance(share := options.get(DECAY), float):
        options[DECAY] = max(int(share * steps), 1)  # a share as warm-up is rounded up, so both fit
    return options


def _options(arguments: TrainingArguments) -> dict[str, Any]:
    """A copy, from which Transformers may take what it needs."""
    return dict(given) if isinstance(given := arguments.lr_scheduler_kwargs, dict) else {}
