"""Several modules of a package joined into a few readable files.

Each file holds the modules of some folders, in the order in which Python would run them, each under a heading. Imports
between modules of one file are removed; all others are merged at its top. The rest stays unchanged. Code that would
have another meaning in a shared file is refused, with its file and line, so that the source can be changed.
"""

import ast
import builtins
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..utils.errors import InputError
from .import_lines import render_imports
from .module_imports import Bundle, Module, in_import_order

# Transformers finds relative imports line by line, in strings too.
_READ_AS_IMPORT = re.compile(r"^[^\S\n]*(?:from\s+\.\S+\s+import|import\s+\.\S+\s*$)", re.MULTILINE)
_RULE = "# " + 117 * "-"
# It is the same in each module, and one per file is enough.
_LOGGER = "logger = logging.get_logger(__name__)"


def write_bundles(
    root: Path, entries: Iterable[str], bundles: Sequence[Bundle], package: str, version: str
) -> dict[str, str]:
    """The texts of `bundles`, by file name, with the modules that `entries` need, themselves included.

    Args:
        root: the folder that is the package.
        entries: paths of modules, relative to `root`, with `/`.
        bundles: the files, lowest first.
        package: the name under which `root` is imported; importing it by that name is refused.
        version: of the package, for the headings.

    Raises:
        ValueError: an import that a shared file cannot hold, or one name for two things; names file and line.
    """
    modules = in_import_order(root, entries, bundles, package)
    defined = {bundle.name: _names(module for module in modules if module.bundle is bundle) for bundle in bundles}
    for module in modules:
        for name, bundle, line in module.borrowed:
            if name not in defined[bundle.name]:
                raise InputError(
                    f"{module.path}, line {line}: {name} must be defined by a module of {bundle.name}; correct the "
                    "import"
                )
    files = {}
    for bundle in bundles:
        if inside := [module for module in modules if module.bundle is bundle]:
            files[bundle.name] = _text_of(bundle, inside, package, version)
    return files


def _names(modules: Iterable[Module]) -> set[str]:
    """The names that the modules of a file define or import at their top level.

    Raises:
        ValueError: a name has two meanings, or hides a builtin from the other modules.
    """
    meanings: dict[str, tuple[str, Path, str]] = {}  # what the name means, and where it is defined first

    def add(name: str, meaning: str, module: Module, line: int) -> None:
        place = f"{module.path}, line {line}"
        # Python's own; interactive shells and tools add others.
        if getattr(getattr(builtins, name, None), "__module__", "") == "builtins":
            raise InputError(f"{place}: {name} hides a builtin from all of {module.bundle.name}; rename it")
        first_meaning, path, first_place = meanings.setdefault(name, (meaning, module.path, place))
        if first_meaning != meaning and path != module.path:
            raise InputError(
                f"{place}: {name} means something else in {first_place}, and both go into {module.bundle.name}; "
                "rename one"
            )

    for module in modules:
        for (source, name, alias), line in module.imports.items():
            bound = alias or (name if source else name.split(".")[0])
            # `import torch` and `import torch.nn` bind the same.
            add(bound, f"{source}:{name}" if source or alias else bound, module, line)
        for node in module.tree.body:
            if node in module.removed or _is_all(node) or _is_logger(node):
                continue
            for name in _bound(node):
                add(name, f"{module.path}", module, node.lineno)
        if any(_is_logger(node) for node in module.tree.body):
            add("logger", _LOGGER, module, 1)
    return set(meanings)


def _bound(node: ast.AST) -> set[str]:
    """The names that a statement binds in its scope."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return set()
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Store) else set()
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.split(".")[0] for alias in node.names}
    return {name for child in ast.iter_child_nodes(node) for name in _bound(child)}


def _is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _is_logger(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node) == _LOGGER


def _text_of(bundle: Bundle, modules: list[Module], package: str, version: str) -> str:
    folders = ", ".join(dict.fromkeys(f"{module.relative.parts[0]}/" for module in modules))
    header = (
        "# SPDX-License-Identifier: Apache-2.0\n"
        f"# Written by {package} {version} from its modules in {folders}, in the order of their imports.\n"
        f'"""{bundle.docstring}"""\n'
    )
    sections = []
    has_logger = False
    for module in modules:
        drop = [node for node in module.tree.body if _is_all(node)]
        loggers = [node for node in module.tree.body if _is_logger(node)]
        drop += loggers if has_logger else []
        has_logger = has_logger or bool(loggers)
        if code := _code(module, [*module.removed, *drop]):
            sections.append(f"{_heading(module, package, version)}{code}")
    imports = render_imports({each for module in modules for each in module.imports})
    text = "\n".join([header, *([imports] if imports else []), "\n\n".join(sections)])
    _check_readable(text, imports, bundle, modules)
    return text


def _heading(module: Module, package: str, version: str) -> str:
    return f"{_RULE}\n# {package} {version}: {module.relative.as_posix()}\n{_RULE}\n"


def _code(module: Module, removed: list[ast.stmt]) -> str:
    """A module's text without the statements `removed`, each with the comment above it; "" if no statement is left."""
    body = module.tree.body
    has_docstring = ast.get_docstring(module.tree) is not None
    if not [node for node in body[has_docstring:] if node not in removed]:
        return ""
    lines: list[str | None] = list(module.lines)
    for node in removed:
        first, last = node.lineno - 1, node.end_lineno or node.lineno
        while first > 0 and module.lines[first - 1].lstrip().startswith("#"):
            first -= 1
        while last < len(lines) and not module.lines[last].strip():
            last += 1
        lines[first:last] = [None] * (last - first)
    start = 0
    docstring = ""
    if has_docstring:
        start = body[0].end_lineno or 1
        docstring = "".join(module.lines[body[0].lineno - 1 : start])
    code = "".join(line for line in lines[start:] if line is not None).strip("\n")
    # As a formatter would: two empty lines before a definition.
    space = "\n\n" if code.startswith(("class ", "def ", "async ", "@", "#")) else "\n"
    return f"{docstring}{space}{code}\n"


def _check_readable(text: str, imports: str, bundle: Bundle, modules: list[Module]) -> None:
    """Refuse a text in which Transformers would find relative imports besides those at its top."""
    if len(_READ_AS_IMPORT.findall(text)) == len(_READ_AS_IMPORT.findall(imports)):
        return
    for module in modules:
        source = "".join(module.lines)
        removed = {node.lineno for node in module.removed}
        for match in _READ_AS_IMPORT.finditer(source):
            line = source.count("\n", 0, match.start()) + 1
            if line not in removed:
                raise InputError(
                    f"{module.path}, line {line}: Transformers takes this line of text for an import; reword it"
                )
    raise InputError(f"{bundle.name}: Transformers takes a line of its docstring for an import; reword it")
