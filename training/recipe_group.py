"""What the groups of a recipe's fields have in common: how values are read and checked."""

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ..utils.errors import InputError
from .validation import check_fields

SOURCES = ("train", "validation", "test")
# The command line gives mappings and lists as JSON, which is read before anything else looks at them.
if TYPE_CHECKING:
    Settings = dict[str, Any]
    Sources = dict[str, Any] | list[dict[str, Any]]
else:
    Settings = dict | str
    Sources = dict | str | list


@dataclass
class RecipeGroup:
    """Some fields of a recipe, checked one by one."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            opening = ("{", "[") if item.name in SOURCES else "{"
            if isinstance(value, str) and value.lstrip().startswith(opening):
                try:
                    setattr(self, item.name, json.loads(value))  # how the command line gives a mapping or a list
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{item.name}: {value[:80]!r} is not valid JSON: {error}") from error
        check_fields(self)
        for name in ("task_options", "model", "generation", "learning_rates", "lora", "search"):
            if isinstance(value := getattr(self, name, None), str):
                raise InputError(f"{name} must be a mapping from names to values, got {value!r}")
