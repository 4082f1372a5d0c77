"""Subclasses that are made as they are needed: a class of Transformers with something added, of the same name.

An object is given one by its `__class__`. It keeps its attributes, is pickled and copied, and is an instance of both.
"""

import copyreg
from typing import Any

_SUBCLASSES: dict[tuple[type["AddedToClass"], type], type] = {}


class AddedToClass:
    """Base of what is added to a class."""

    @classmethod
    def members_for(cls, plain: type) -> dict[str, Any]:
        """What a subclass of `plain` has beside both, by name."""
        return {}

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The subclass cannot be found by its name.
        return _rebuild, parts_of(type(self)), self.__getstate__()


def subclass_of(added: type[AddedToClass], plain: type) -> type:
    """The subclass of `plain` with `added` before it, always the same one."""
    if (added, plain) not in _SUBCLASSES:
        names = {name: getattr(plain, name) for name in ("__module__", "__qualname__", "__doc__")}
        _SUBCLASSES[added, plain] = type(plain.__name__, (added, plain), {**names, **added.members_for(plain)})
    return _SUBCLASSES[added, plain]


def parts_of(made: type) -> tuple[type[AddedToClass], type]:
    """What `subclass_of` made a class from, or the class that one inherits from."""
    return next(parts for base in made.__mro__ for parts, subclass in _SUBCLASSES.items() if subclass is base)


def _rebuild(added: type[AddedToClass], plain: type) -> Any:
    return copyreg.__newobj__(subclass_of(added, plain))  # type: ignore[attr-defined]
