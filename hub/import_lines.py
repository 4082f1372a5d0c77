"""Import statements as a formatter writes them: grouped, sorted, one statement for each module."""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable

WIDTH = 119


def render_imports(imports: Iterable[tuple[str, str, str]]) -> str:
    """The statements for `(module, name, alias)`: of the standard library, of other packages, relative ones.

    `module` is `""` for `import name`; `alias` is `""` where there is none.
    """
    groups: dict[int, list[tuple[str, str, str]]] = defaultdict(list)
    for module, name, alias in set(imports):
        groups[_group(module or name)].append((module, name, alias))
    return "\n".join("".join(_statements(groups[number])) for number in sorted(groups))


def _group(module: str) -> int:
    if module.startswith("."):
        return 2
    return 0 if module.split(".")[0] in sys.stdlib_module_names else 1


def _statements(imports: list[tuple[str, str, str]]) -> list[str]:
    plain = sorted((name, alias) for module, name, alias in imports if not module)
    lines = [f"import {name}{f' as {alias}' if alias else ''}\n" for name, alias in plain]
    for module in sorted({module for module, _, _ in imports if module}, key=_natural):
        members = sorted(((n, a) for m, n, a in imports if m == module), key=lambda member: _member_order(member[0]))
        if names := [name for name, alias in members if not alias]:
            lines.append(_from(module, names))
        lines += [f"from {module} import {name} as {alias}\n" for name, alias in members if alias]
    return lines


def _from(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}\n"
    if len(line) <= WIDTH + 1:
        return line
    return "\n".join((f"from {module} import (", *(f"    {name}," for name in names), ")\n"))


def _member_order(name: str) -> tuple[int, list[int | str]]:
    """Constants, then classes, then the rest."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2), _natural(name)


def _natural(name: str) -> list[int | str]:
    """A key by which `a2` sorts before `a10`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
