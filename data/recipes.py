"""Recipes, for the commands that read them besides `train.py`."""

from pathlib import Path
from typing import Any

from ..utils.errors import InputError
from ..utils.type_checks import check_type
from .text_files import read_yaml


def read_recipe(path: Path, part: str) -> dict[str, Any]:
    """A recipe, of which `part` (`train`, `validation` or `test`) and `data_dir` are checked.

    Raises:
        OSError: it cannot be read.
        InputError: it is not YAML, or does not say where the records of `part` are.
    """
    recipe = read_yaml(path)
    if not isinstance(recipe, dict) or not isinstance(recipe.get(part), dict | list):
        raise InputError(f"{path} must be a recipe with `{part}`, which says where records are; give another")
    check_type(f"{path}: data_dir", recipe.get("data_dir"), str | None)
    return recipe
