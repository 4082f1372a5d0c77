"""The modules that some entry modules of a package need, in import order, and what to do with each import."""

import ast
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..utils.errors import InputError


@dataclass(frozen=True)
class Bundle:
    """A file to write: its name, the folders whose modules it holds, and its docstring.

    A file may import from those before it.
    """

    name: str
    folders: tuple[str, ...]
    docstring: str

    @property
    def stem(self) -> str:
        return self.name.removesuffix(".py")


@dataclass
class Module:
    """A module: its path, its text, and what to do with its imports."""

    path: Path
    relative: Path
    lines: list[str]
    tree: ast.Module
    bundle: Bundle
    imports: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """What to import at the top of the file, as (module or "", name, alias or ""), and its line in the module."""
    borrowed: list[tuple[str, Bundle, int]] = field(default_factory=list)
    """Names imported from other modules of the package, the file that must define them, and the line."""
    removed: list[ast.stmt] = field(default_factory=list)


def in_import_order(root: Path, entries: Iterable[str], bundles: Sequence[Bundle], package: str) -> list[Module]:
    """The modules that `entries` need, each after those that it imports at its top level."""
    done: dict[Path, Module] = {}
    running: list[Path] = []
    waiting = [root / entry for entry in entries]

    def visit(path: Path) -> None:
        if path in done:
            return
        if path in running:
            raise InputError(f"{path} and {running[-1]} import each other; move what both need to a third module")
        running.append(path)
        module = _read(root, path, bundles)
        for node in _imports(module.tree):
            target = _take(root, module, node, bundles, package)
            if target is not None and node in module.tree.body:
                visit(target)
            elif target is not None:
                waiting.append(target)
        done[running.pop()] = module

    while waiting:
        visit(waiting.pop(0))
    return list(done.values())


def _read(root: Path, path: Path, bundles: Sequence[Bundle]) -> Module:
    source = path.read_text(encoding="utf-8")
    relative = path.relative_to(root)
    bundle = _bundle_of(root, path, bundles)
    return Module(path, relative, io.StringIO(source).readlines(), ast.parse(source, filename=str(path)), bundle)


def _bundle_of(root: Path, path: Path, bundles: Sequence[Bundle]) -> Bundle:
    folder = path.relative_to(root).parts[0]
    for bundle in bundles:
        if folder in bundle.folders:
            return bundle
    folders = ", ".join(folder for bundle in bundles for folder in bundle.folders)
    raise InputError(f"{path} must be in one of the folders {folders}, got {folder}; import from another module")


def _imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return sorted(imports, key=lambda node: (node.lineno, node.col_offset))


def _take(
    root: Path, module: Module, node: ast.Import | ast.ImportFrom, bundles: Sequence[Bundle], package: str
) -> Path | None:
    """Record what to do with an import; returns the module of the package that it names, if it names one."""
    where = f"{module.path}, line {node.lineno}"
    if isinstance(node, ast.Import) or node.level == 0:
        source = "" if isinstance(node, ast.Import) else node.module or ""
        if source == "__future__":
            raise InputError(
                f"{where}: `{ast.unparse(node)}` would hold for all of {module.bundle.name}; leave it out"
            )
        if any((source or alias.name).split(".")[0] == package for alias in node.names):
            raise InputError(f"{where}: `{ast.unparse(node)}` must be relative; write `from .module import symbol`")
        if node in module.tree.body:
            _remove(module, node, where)
            module.imports |= {(source, alias.name, alias.asname or ""): node.lineno for alias in node.names}
        return None
    if node.module is None or node.names[0].name == "*":
        raise InputError(f"{where}: `{ast.unparse(node)}` must name a module and symbols; import from the module")
    target = _target(root, module.relative, node, where)
    other = _bundle_of(root, target, bundles)
    if bundles.index(other) > bundles.index(module.bundle):
        raise InputError(f"{where}: {module.bundle.name} cannot import from {other.name}, which comes after it")
    _remove(module, node, where)
    for alias in node.names:
        module.borrowed.append((alias.name, other, node.lineno))
        if other is not module.bundle:
            module.imports[f".{other.stem}", alias.name, alias.asname or ""] = node.lineno
        elif alias.asname not in (None, alias.name):
            raise InputError(f"{where}: {alias.name} must keep its name, since both modules go into {other.name}")
    return target


def _target(root: Path, relative: Path, node: ast.ImportFrom, where: str) -> Path:
    """The file of a relative import: a module, or a folder's `__init__`."""
    above = relative.parent.parts
    written = f"from {'.' * node.level}{node.module} import"
    if node.level - 1 > len(above):
        raise InputError(
            f"{where}: `{written}` must name a module of the package, got one above it; correct the import"
        )
    parts = (*above[: len(above) - node.level + 1], *(node.module or "").split("."))
    stem = root.joinpath(*parts)
    for candidate in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise InputError(f"{where}: `{written}` must name a module of the package, got none there; correct the import")


def _remove(module: Module, node: ast.stmt, where: str) -> None:
    """Record that a statement is removed; no other statement may share its lines."""
    before = module.lines[node.lineno - 1].encode()[: node.col_offset]
    after = module.lines[(node.end_lineno or node.lineno) - 1].encode()[node.end_col_offset :]
    if before.strip() or (after.strip() and not after.lstrip().startswith(b"#")):
        raise InputError(f"{where}: an import must be alone on its line; move the other statement")
    is_nested = node not in module.tree.body
    if is_nested and any([node] in _blocks(outer) for outer in ast.walk(module.tree)):
        raise InputError(f"{where}: the block is empty without this import; import at the top of the module")
    module.removed.append(node)


def _blocks(node: ast.AST) -> list[list[ast.stmt]]:
    return [
        getattr(node, name) for name in ("body", "orelse", "finalbody") if isinstance(getattr(node, name, 0), list)
    ]
