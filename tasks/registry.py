"""Tasks by name: what `task` in a recipe may be."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from ..utils.errors import InputError
from ..utils.type_checks import check_type
from .base import PrimaryMetric, Task

_TASKS: dict[str, type[Task]] = {}


def register_task(cls: type[Task]) -> type[Task]:
    """Class decorator: makes a `Task` known to `get_task` under its `name`. A name can be taken once."""
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name:
        raise TypeError(f"{cls.__qualname__} has no name; give the class an attribute name = '...'")
    if not isinstance(getattr(cls, "primary_metric", None), PrimaryMetric):
        raise TypeError(f"task {name!r} has no primary_metric; set it to PrimaryMetric(name, greater_is_better)")
    known = _TASKS.get(name)
    # The same class defined again (a notebook cell run twice, a module reloaded) replaces itself.
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        taken_by = f"{known.__module__}.{known.__qualname__}"
        raise InputError(f"the task name {name!r} is taken by {taken_by}; give {cls.__qualname__} another name")
    _TASKS[name] = cls
    return cls


def task_names() -> tuple[str, ...]:
    """The names that `get_task` knows, sorted."""
    return tuple(sorted(_TASKS))


def get_task(name: str, **options: Any) -> Task:
    """The task registered as `name`, built with `options`.

    Raises:
        InputError: an unknown name or option, or a class that does not define all that its kind asks for.

    >>> from crossmask.tasks import get_task
    >>> get_task("translation", tokenize="intl").name
    'translation'
    """
    if name not in _TASKS:
        raise InputError(f"unknown task {name!r}; known tasks: {', '.join(task_names())}")
    made = _TASKS[name]
    known = list(inspect.signature(made).parameters)
    for option in options:
        if option not in known:
            raise InputError(f"task {name!r} has no option {option!r}; its options: {', '.join(known) or 'none'}")
    if missing := sorted(made.__abstractmethods__):
        raise InputError(f"task {name!r} must define {', '.join(missing)}; add them to {made.__qualname__}")
    declared = get_type_hints(made.__init__)
    for option, value in options.items():
        check_type(f"task option {option}", value, declared.get(option, Any))
    return made(**options)
