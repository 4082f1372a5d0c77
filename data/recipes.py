"""Recipes, for the commands that read them besides `train.py`."""

from pathlib import Path
from typing import Any

from ..utils.errors import InputError
from ..utils.imports import import_all
from ..utils.type_checks import check_type
from .text_files import read_yaml

FOLDER = Path(__file__).resolve().parent.parent / "recipes"
SUFFIXES = (".yaml", ".yml")


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package.

    Raises:
        InputError: it is neither.
    """
    path = Path(name)
    if path.suffix in SUFFIXES:
        return path
    packaged = FOLDER / f"{path}.yaml"
    if len(path.parts) == 1 and packaged.is_file():
        return packaged
    known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.yaml")))
    raise InputError(f"a recipe must be a .yaml file or one of {known}, got {str(name)!r}; give one of these")


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
    check_type(f"{path}: imports", recipe.get("imports"), list[str] | None)
    import_all(recipe.get("imports") or ())  # which may register formats
    return recipe
