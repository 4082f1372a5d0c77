"""Modules of a package as few files: what stays, what goes, and what is refused with its place."""

import subprocess
import sys
from pathlib import Path

import pytest

from crossmask.hub.code_bundle import write_bundles
from crossmask.hub.import_lines import render_imports
from crossmask.hub.module_imports import Bundle

LOW, HIGH = Bundle("low.py", ("m", "n"), "Low."), Bundle("high.py", ("z",), "High.")
LINE = "# " + 117 * "-"


def package(root: Path, **files: str) -> Path:
    """A package `pkg` with modules given as `folder__name="text"`."""
    for name, text in files.items():
        path = root / "pkg" / f"{name.replace('__', '/').replace('/init', '/__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return root / "pkg"


def bundle(root: Path, *entries: str) -> dict[str, str]:
    return write_bundles(root, entries, (LOW, HIGH), "pkg", "1.2")


def test_a_file_has_its_modules_in_the_order_of_their_imports(tmp_path):
    root = package(
        tmp_path,
        m__init='"""All."""\n\nfrom .base import Mask, full\n\n__all__ = ["Mask", "full"]\n',
        m__base='"""Base."""\n\nimport torch\n\n\nclass Mask(torch.A):\n    # A value.\n    pass\n\n\nfull = Mask\n',
        m__unused="x = 1\n",
        n__rule="# Why.\nfrom ..m import Mask\nfrom ..m.base import full\n\n\nclass Rule(Mask):\n    every = full\n",
        z__net="import torch\nimport os\nfrom ..n.rule import Rule\nfrom ..m import full as every\n\nx = os, torch\n",
    )
    text = bundle(root, "z/net.py", "n/rule.py")
    assert text["low.py"] == (
        "# SPDX-License-Identifier: Apache-2.0\n"
        "# Written by pkg 1.2 from its modules in m/, n/, in the order of their imports.\n"
        '"""Low."""\n\nimport torch\n\n'
        f'{LINE}\n# pkg 1.2: m/base.py\n{LINE}\n"""Base."""\n\n\n'
        "class Mask(torch.A):\n    # A value.\n    pass\n\n\nfull = Mask\n\n\n"
        f"{LINE}\n# pkg 1.2: n/rule.py\n{LINE}\n\n\n"
        "class Rule(Mask):\n    every = full\n"
    )
    assert text["high.py"].split('"""High."""\n')[1] == (
        "\nimport os\n\nimport torch\n\nfrom .low import Rule\nfrom .low import full as every\n\n"
        f"{LINE}\n# pkg 1.2: z/net.py\n{LINE}\n\nx = os, torch\n"
    )


LATE = {
    "m__a": "from math import e\n\n\ndef run():\n    # Late.\n    from .b import inner\n\n    return e + inner()\n",
    "m__b": "from .a import run\n\n\ndef inner():\n    import os\n\n    return len(os.sep)\n\n\ntwice = run\n",
}


def test_the_files_run(tmp_path):
    root = package(
        tmp_path, **LATE, z__c="def run():\n    from ..m.b import twice\n\n    return twice()\n\n\nvalue = run()\n"
    )
    for name, text in bundle(root, "z/c.py").items():
        (tmp_path / "flat").mkdir(exist_ok=True)
        (tmp_path / "flat" / name).write_text(text)
    assert "Late" not in (tmp_path / "flat" / "low.py").read_text()
    (tmp_path / "flat" / "__init__.py").touch()
    code = "from flat.high import value; assert value > 3"
    subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, check=True)


def test_one_logger_is_enough(tmp_path):
    logger = "import logging\n\nlogger = logging.get_logger(__name__)\n\n"
    root = package(tmp_path, m__b=f"{logger}x = logger\n", m__a=f"from .b import x\n{logger}y = x or logger\n")
    assert bundle(root, "m/a.py")["low.py"].count("get_logger") == 1


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("import os\nfrom . import b\n", 2, "must name a module"),
        ("from .. import m\n", 1, "must name a module"),
        ("from .b import *\n", 1, "must name a module and symbols"),
        ("\nimport pkg.m.b\n", 2, "must be relative"),
        ("from pkg.m import b\n", 1, "must be relative"),
        ("from __future__ import annotations\n", 1, "would hold for all of low.py"),
        ("from .nowhere import x\n", 1, "must name a module of the package, got none there"),
        ("from ...other import x\n", 1, "must name a module of the package, got one above it"),
        ("from .b import nothing\n", 1, "nothing must be defined by a module of low.py"),
        ("from .b import x as y\n", 1, "x must keep its name"),
        ("from ..z.top import y\n", 1, "low.py cannot import from high.py"),
        ("def f():\n    from ..z.top import y\n\n    return y\n", 2, "low.py cannot import from high.py"),
        ("def f():\n    from .b import x\n", 2, "the block is empty without this import"),
        ("try:\n    from .b import x\nexcept ImportError:\n    x = 1\n", 2, "the block is empty without this import"),
        ("if True: from .b import x\n", 1, "must be alone on its line"),
        ("y = 1; from .b import x\n", 1, "must be alone on its line"),
        ("from .b import x; y = 1\n", 1, "must be alone on its line"),
        ('"""Use it so:\n\n    from .b import x\n"""\n\ny = 1\n', 3, "takes this line of text for an import"),
        ('s = """\nimport .b\n"""\n', 2, "takes this line of text for an import"),
        ("from .b import x\n\nx = 2\n", 3, "x means something else in"),
        ("from .b import x\n\n\ndef x():\n    pass\n", 4, "x means something else in"),
        ("from .b import x\n\n\nclass x:\n    pass\n", 4, "x means something else in"),
        ("from .b import x\n\nif x:\n    x = 3\n", 3, "x means something else in"),
        ("from .b import x\n\nfor x in range(3):\n    pass\n", 3, "x means something else in"),
        ("from .b import x\nfrom os import path as x\n", 2, "x means something else in"),
        ("from .b import x\n\n(y, [x]) = 1, [2]\n", 3, "x means something else in"),
        ("def filter():\n    pass\n", 1, "hides a builtin"),
        ("input = 1\n", 1, "hides a builtin"),
        ("from torch import max\n", 1, "hides a builtin"),
    ],
)
def test_what_cannot_share_a_file_is_refused_with_its_place(tmp_path, text, line, says):
    root = package(tmp_path, m__b="x = 1\n", m__a=text, z__top="y = 1\n")
    with pytest.raises(ValueError, match=says) as error:
        bundle(root, "m/a.py")
    assert f"a.py, line {line}" in str(error.value)
    assert "\n" not in str(error.value)


def test_both_places_of_a_name_are_given(tmp_path):
    root = package(tmp_path, m__b="\n_SIZE = 1\nx = _SIZE\n", n__a="from ..m.b import x\n\n_SIZE = x\n")
    with pytest.raises(
        ValueError, match=r"a\.py, line 3: _SIZE means .* in .*b\.py, line 2, and both go into low\.py"
    ):
        bundle(root, "n/a.py")


@pytest.mark.parametrize("left", ["import random\n", "from torch import random\n", "def random():\n    pass\n"])
def test_one_name_for_two_things_is_refused_wherever_it_comes_from(tmp_path, left):
    root = package(tmp_path, m__b=f"{left}\nx = 1\n", n__a="from ..m.b import x\n\nrandom = x\n")
    with pytest.raises(ValueError, match="random means something else"):
        bundle(root, "n/a.py")


def test_modules_that_run_each_other_are_refused(tmp_path):
    root = package(tmp_path, m__a="from .b import x\n\ny = 1\n", m__b="from .a import y\n\nx = 1\n")
    with pytest.raises(ValueError, match="import each other"):
        bundle(root, "m/a.py")


def test_a_folder_without_a_file_is_refused(tmp_path):
    root = package(tmp_path, m__a="from ..other.b import x\n", other__b="x = 1\n")
    with pytest.raises(ValueError, match=r"must be in one of the folders .*, got other"):
        bundle(root, "m/a.py")


def test_imports_are_written_as_a_formatter_would(tmp_path):
    members = {
        "": ["torch", "os"],
        "torch": ["nn", "Tensor"],
        "collections.abc": ["Iterable"],
        "collections": ["OrderedDict"],
        ".low": ["a10", "a2", "MAX", "Mask"],
        "typing": ["Any"],
        "transformers.modeling_outputs": [f"Output{number}OfSomething" for number in range(6)],
    }
    imports = {(module, name, "") for module, names in members.items() for name in names}
    imports |= {("", "numpy", "np"), (".low", "b", "c")}
    (tmp_path / "a.py").write_text(f'"""A file."""\n\n{render_imports(imports)}')
    ruff = Path(sys.executable).with_name("ruff")
    options = ["--isolated", "--no-cache", "--line-length", "119"]
    for command in (["check", "--select", "I"], ["format", "--diff"]):
        done = subprocess.run([ruff, *command, *options, tmp_path / "a.py"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
