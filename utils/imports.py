"""Python that a recipe brings along: importing it registers tasks, formats, mask rules and attention backends."""

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from .errors import InputError


def import_all(names: Iterable[str]) -> None:
    """Import Python files, by their paths, and modules, by their names; each once.

    The folder of a file is appended to `sys.path`, so that other processes find it by the same name.

    Raises:
        InputError: there is none, or the file has the name of another module.
    """
    for name in names:
        path = Path(name)
        if path.suffix == ".py":
            _import_file(path)
        else:
            _import_installed(name)


def _import_installed(name: str) -> None:
    fault = f"imports must be Python files, such as tasks/mine.py, or installed modules, got {name!r}"
    if not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"{fault}; correct the name")
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):  # one that the module itself imports
            raise
        raise InputError(f"{fault}; install it, or correct the name") from None


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"imports must be files that exist, got {path}; correct the path")
    if not path.stem.isidentifier():
        raise InputError(
            f"imports must be files with the name of a module, got {path.name}; use letters, digits and _"
        )
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    found = getattr(import_module(path.stem), "__file__", None)
    if found is None or not path.samefile(found):
        raise InputError(f"imports must have names of their own, got {path}, but {path.stem} is {found}; rename it")
