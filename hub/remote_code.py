"""The model's code as flat files, so that a saved folder loads where crossmask is not installed.

`from_pretrained(..., trust_remote_code=True)` copies the module that `auto_map` names, and what it imports by lines of
the form `from .name import symbol`, out of one flat folder. Our modules lie in folders. So when a model is saved, the
modules that it needs are written beside its weights under flat names, `masks/layout.py` as `masks_layout.py`,
`masks/__init__.py` as `masks.py`, with the relative imports rewritten to match and nothing else changed.
"""

import ast
import io
import os
import re
import tokenize
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..utils.atomic_write import write_text
from ..utils.errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent
NAME = __name__.partition(".")[0]
ENTRIES = ("configuration/crossmask.py", "modeling/crossmask.py")

# Transformers finds relative imports line by line, in strings too.
_READ_AS_IMPORT = re.compile(r"^[^\S\n]*(?:from\s+\.\S+\s+import|import\s+\.\S+\s*$)", re.MULTILINE)


def write_code_files(folder: str | os.PathLike[str]) -> None:
    """Write the flat code files of the CrossMask classes into `folder`, each one whole.

    Raises:
        ValueError: a module of the package imports in a way that has no flat form.
        OSError: the folder cannot be written.
    """
    for name, text in _own_files().items():
        write_text(Path(folder) / name, text)


def flatten(root: Path, entries: Iterable[str], package: str) -> dict[str, str]:
    """The modules that `entries` need, themselves included, as flat file names and texts, sorted by name.

    Args:
        root: the folder that is the package.
        entries: paths of modules, relative to `root`, with `/`.
        package: the name under which `root` is imported; importing it by that name is refused.

    Raises:
        ValueError: an import that has no flat form, or two modules with the same flat name; names file and line.
    """
    files: dict[str, str] = {}
    origin: dict[str, Path] = {}
    waiting = [root / entry for entry in entries]
    while waiting:
        path = waiting.pop()
        name = f"{_flat_name(path.relative_to(root))}.py"
        if origin.setdefault(name, path) != path:
            raise InputError(f"{path} and {origin[name]} both become {name}; rename one of them")
        if name in files:
            continue
        files[name], needed = _flatten_module(root, path, package)
        waiting.extend(needed)
    return dict(sorted(files.items()))


@cache
def _own_files() -> dict[str, str]:
    return flatten(PACKAGE, ENTRIES, NAME)


def _flat_name(relative: Path) -> str:
    parts = relative.with_suffix("").parts
    return "_".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _flatten_module(root: Path, path: Path, package: str) -> tuple[str, list[Path]]:
    """A module's flat text, and the modules that it imports."""
    source = path.read_text(encoding="utf-8")
    relative = path.relative_to(root)
    lines = io.StringIO(source).readlines()
    needed: list[Path] = []
    rewritten: set[int] = set()
    # From the last import to the first, so that the positions of those before stay right.
    for node in reversed(_imports(ast.parse(source, filename=str(path)))):
        where = f"{path}, line {node.lineno}"
        if isinstance(node, ast.Import) or node.level == 0:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if any(name.split(".")[0] == package for name in names):
                raise InputError(f"{where}: imports {package} by name; write `from .module import symbol`")
            continue
        if node.module is None:
            raise InputError(f"{where}: `from {'.' * node.level} import ...` has no flat form; import from the module")
        target = _target(root, relative, node, where)
        needed.append(target)
        rewritten.add(_rewrite(lines, node, f"from .{_flat_name(target.relative_to(root))} ", where))
    text = "".join(lines)
    _check_readable(text, rewritten, path)
    header = f"# SPDX-License-Identifier: Apache-2.0\n# {package}: {relative.as_posix()}, flattened.\n"
    return header + text, needed[::-1]


def _imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def _target(root: Path, relative: Path, node: ast.ImportFrom, where: str) -> Path:
    """The file that a relative import names: a module, or a folder's `__init__`."""
    above = relative.parent.parts
    written = f"from {'.' * node.level}{node.module} import"
    if node.level - 1 > len(above):
        raise InputError(f"{where}: `{written}` leaves the package")
    parts = (*above[: len(above) - node.level + 1], *node.module.split("."))
    stem = root.joinpath(*parts)
    for candidate in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise InputError(f"{where}: `{written}` names no module of the package")


def _rewrite(lines: list[str], node: ast.ImportFrom, start: str, where: str) -> int:
    """Put `start` in the place of all that stands before the `import` of a `from ... import`; returns its line."""
    first = node.lineno - 1
    indent = lines[first][: node.col_offset]
    if indent.strip():
        raise InputError(f"{where}: a relative import must begin its line, or Transformers does not see it")
    # Read from where it begins, an indented statement is a whole text for the tokenizer.
    statement = [lines[first][node.col_offset :], *lines[first + 1 : node.end_lineno]]
    tokens = tokenize.generate_tokens(io.StringIO("".join(statement)).readline)
    row, column = next(token.start for token in tokens if token.type == tokenize.NAME and token.string == "import")
    # Lines joined into one leave empty ones behind, so that the lines after them keep their numbers.
    lines[first : first + row] = ["\n"] * (row - 1) + [indent + start + statement[row - 1][column:]]
    return first + row


def _check_readable(text: str, rewritten: set[int], path: Path) -> None:
    """Refuse a text in which Transformers would find other relative imports than there are."""
    for match in _READ_AS_IMPORT.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if line not in rewritten:
            raise InputError(
                f"{path}, line {line}: Transformers takes this line of text for an import; word it another way"
            )
