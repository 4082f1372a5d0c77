"""Masks that come from another copy of this code, as a model that `trust_remote_code` loads has one."""

from typing import Any


def is_foreign(value: Any, kind: type) -> bool:
    """Whether the class of `value` is `kind` in another copy of this code.

    The package has a class in `crossmask.masks.expressions`, a saved model has it in a module `masks_crossmask`, and
    one that an earlier version saved has it in a module like `masks_expressions`.
    """
    if isinstance(value, kind):
        return False
    return any(cls.__name__ == kind.__name__ and _folder(cls) == _folder(kind) for cls in type(value).__mro__)


def _folder(cls: type) -> str:
    """The folder of the package in which the class is defined."""
    *_, folder, name = ("", *cls.__module__.split("."))
    return "masks" if name.startswith("masks_") else folder
