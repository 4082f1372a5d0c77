"""Mask values of another copy of this code: a model that `trust_remote_code` loads brings a copy of its own."""

from typing import Any


def is_foreign(value: Any, kind: type) -> bool:
    """Whether `value` would be of the class `kind` of this copy, had this copy made it.

    The same module is `crossmask.masks.expressions` in the package, and ends in `.masks_expressions` beside a model.
    """
    if isinstance(value, kind):
        return False
    return any(cls.__name__ == kind.__name__ and _flat(cls) == _flat(kind) for cls in type(value).__mro__)


def _flat(cls: type) -> str:
    """The module's name as it is beside a saved model."""
    *_, folder, name = ("", *cls.__module__.split("."))
    return name if name.startswith("masks_") else f"{folder}_{name}"
