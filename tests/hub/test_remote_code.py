"""The code files that lie beside a saved model: few, readable, and read by Transformers as they are."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

import crossmask
from crossmask.hub.remote_code import BUNDLES, ENTRIES, PIPELINES, write_code_files

ROOT = Path(crossmask.__file__).parent


@pytest.fixture(params=ENTRIES)
def code(tmp_path, request) -> list[Path]:
    """The code files of a model type, in the order of their imports."""
    write_code_files(tmp_path, request.param)
    written = {path.name for path in tmp_path.iterdir()}
    files = [tmp_path / bundle.name for bundle in BUNDLES if bundle.name in written]
    heads = ("classification" in request.param) + 2 * ("question" in request.param)
    assert len(files) == len(written) == 3 + heads + (request.param in PIPELINES)
    return files


def test_own_code_is_read_by_transformers_as_it_is(code):
    found = {Path(file) for path in code[-2:] for file in get_relative_import_files(path)}  # of model and pipelines
    assert found | set(code[-2:]) == set(code)
    for path in code:
        tree = ast.parse(path.read_text())
        relative = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level == 1}
        assert set(get_relative_imports(path)) == relative


def test_own_code_needs_nothing_but_torch_and_transformers(code):
    allowed = {"torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names
    for path in code:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert {name.split(".")[0] for name in names} <= allowed, path.name


@pytest.mark.parametrize("command", [["check"], ["format", "--diff"]], ids=["lint", "format"])
def test_own_code_passes_the_checks_of_the_package(code, command):
    ruff = [Path(sys.executable).with_name("ruff"), *command, "--no-cache", "--config", ROOT / "pyproject.toml"]
    done = subprocess.run([*ruff, *code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_definition_stands_as_in_its_module_under_a_heading_that_names_it(code):
    for path in code:
        start, *sections = path.read_text().split(f"# crossmask {crossmask.__version__}: ")
        assert f"crossmask {crossmask.__version__}" in start
        assert sections
        for section in sections:
            module, text = section.split("\n", 1)
            source = (ROOT / module).read_text()
            wanted, found = (
                [ast.unparse(node) for node in ast.parse(each).body if isinstance(node, ast.ClassDef)]
                for each in (source, "\n".join(text.split("\n")[1:]))
            )
            assert wanted == found or "    from ." in source, module
            comments = [line for line in source.splitlines() if line.startswith("# ")]
            assert all(line in text for line in comments), module
            assert (ast.get_docstring(ast.parse(source)) or "") in text, module


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
