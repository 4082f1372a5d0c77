"""The flat code files: from folders with relative imports to one folder that Transformers can read."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

from crossmask.hub.remote_code import flatten, write_code_files
from crossmask.utils.atomic_write import write_text


def package(root: Path, **files: str) -> Path:
    """A package `pkg` with modules given as `folder__name="text"`."""
    for name, text in files.items():
        path = root / "pkg" / f"{name.replace('__', '/').replace('/init', '/__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return root / "pkg"


def body(text: str) -> str:
    """A flat file without its two header lines."""
    return text.split("\n", 2)[2]


def test_names_and_imports_become_flat(tmp_path):
    root = package(
        tmp_path,
        masks__init="from .base import (\n    Mask,  # the value\n    full,\n)\n",
        masks__base="class Mask:\n    pass\n\n\nfull = Mask\n",
        masks__unused="x = 1\n",
        modeling__net="from ..masks import Mask\nfrom ..masks.base import full as every\nfrom .layer import Layer\n",
        modeling__layer="import torch\n\n\ndef run():\n        from ..masks.base import Mask\n\n        return Mask\n",
    )
    flat = flatten(root, ["modeling/net.py"], "pkg")
    assert list(flat) == ["masks.py", "masks_base.py", "modeling_layer.py", "modeling_net.py"]
    assert body(flat["masks.py"]) == "from .masks_base import (\n    Mask,  # the value\n    full,\n)\n"
    assert body(flat["modeling_net.py"]) == (
        "from .masks import Mask\nfrom .masks_base import full as every\nfrom .modeling_layer import Layer\n"
    )
    assert "        from .masks_base import Mask\n\n        return Mask\n" in flat["modeling_layer.py"]
    assert flat["modeling_net.py"].splitlines()[1] == "# pkg: modeling/net.py, flattened."


def test_only_imports_change(tmp_path):
    text = (
        '"""From .here to there; see `from .b import x`."""\nfrom .b \\\n    import x\n\ns = "é"\n\x0cu = "from .b"\n'
    )
    root = package(tmp_path, m__a=text, m__b="x = 1\n")
    got = body(flatten(root, ["m/a.py"], "pkg")["m_a.py"])
    assert got == text.replace("from .b \\\n    import x", "\nfrom .m_b import x")
    assert got.count("\n") == text.count("\n")


def test_the_files_import_as_a_flat_package(tmp_path):
    root = package(
        tmp_path,
        m__init="from .a import value\n",
        m__a="from ..n.b import one\nvalue = one + 1\n",
        n__b="one = 1\n",
    )
    flat = tmp_path / "flat"
    for name, text in flatten(root, ["m/__init__.py"], "pkg").items():
        write_text(flat / name, text)
    write_text(flat / "__init__.py", "")
    code = "from flat.m import value; assert value == 2"
    subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("import os\nfrom . import b\n", 2, "has no flat form"),
        ("from .. import m\n", 1, "has no flat form"),
        ("\nimport pkg.m.b\n", 2, "imports pkg by name"),
        ("from pkg.m import b\n", 1, "imports pkg by name"),
        ("from .nowhere import x\n", 1, "names no module"),
        ("from ...other import x\n", 1, "leaves the package"),
        ("if True: from .b import x\n", 1, "must begin its line"),
        ("y = 1; from .b import x\n", 1, "must begin its line"),
        ('"""Use it so:\n\n    from .b import x\n"""\n', 3, "takes this line of text for an import"),
        ('s = """\nimport .b\n"""\n', 2, "takes this line of text for an import"),
    ],
)
def test_what_cannot_be_flat_is_refused_with_its_place(tmp_path, text, line, says):
    root = package(tmp_path, m__b="x = 1\n", m__a=text)
    with pytest.raises(ValueError, match=says) as error:
        flatten(root, ["m/a.py"], "pkg")
    assert f"a.py, line {line}" in str(error.value)
    assert "\n" not in str(error.value)


def test_two_modules_of_one_flat_name_are_refused(tmp_path):
    root = package(tmp_path, m__a_b="x = 1\n", m_a__b="y = 1\n", e__a="from ..m.a_b import x\nfrom ..m_a.b import y\n")
    with pytest.raises(ValueError, match=r"both become m_a_b\.py"):
        flatten(root, ["e/a.py"], "pkg")


def test_own_code_is_read_by_transformers_as_it_is(tmp_path):
    write_code_files(tmp_path)
    written = sorted(tmp_path.glob("*.py"))
    found = {Path(name).name for name in get_relative_import_files(tmp_path / "modeling_crossmask.py")}
    assert found | {"modeling_crossmask.py"} == {path.name for path in written}
    for path in written:
        tree = ast.parse(path.read_text())
        relative = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level == 1}
        assert set(get_relative_imports(path)) == relative


def test_own_code_needs_nothing_but_torch_and_transformers(tmp_path):
    write_code_files(tmp_path)
    allowed = {"torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names
    for path in tmp_path.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert {name.split(".")[0] for name in names} <= allowed, path.name


def test_writing_again_gives_the_same_bytes_and_a_new_date(tmp_path):
    write_code_files(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    inodes = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    changed = tmp_path / "modeling_crossmask.py"
    changed.write_text("# older\n")
    write_code_files(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert all(path.stat().st_mtime > 1 for path in tmp_path.iterdir())
    assert all(p.stat().st_ino == inodes[p.name] for p in tmp_path.iterdir() if p != changed)


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_code_files(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"
