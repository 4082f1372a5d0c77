"""Mask values of another copy of this code: a model that `trust_remote_code` loads brings a copy of its own."""

from typing import Any


def is_foreign(value: Any, kind: type) -> bool:
    """Whether `value` would be of the class `kind` of this copy, had this copy made it.

    The package has the class in `crossmask.masks.expressions`, a saved model in a module `masks_crossmask`, and one
    that an earlier version saved in a module like `masks_expressions`.
    """
    if isinstance(value, kind):
        return False
    return any(cls.__name__ == kind.__name__ and _home(cls) == _home(kind) for cls in type(value).__mro__)


def _home(cls: type) -> str:
    """The folder of the package that the class is from."""
    *_, folder, name = ("", *cls.__module__.split("."))
    return "masks" if name.startswith("masks_") else folder
