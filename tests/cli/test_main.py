"""`crossmask` itself: how it starts, what it lists, and one line for what it refuses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import crossmask
from crossmask.cli import recipes
from crossmask.cli.main import main

ROOT = Path(crossmask.__file__).parent
LIGHT = """
import sys
sys.path.insert(0, {folder!r})
import crossmask_cli.main
status = crossmask_cli.main.main({arguments!r})
heavy = [name for name in ("torch", "transformers", "crossmask", "datasets") if name in sys.modules]
assert not heavy, heavy
sys.exit(status)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder as the wheel is installed: the command line is a package of its own."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "crossmask_cli").symlink_to(ROOT / "cli")
    (folder / "crossmask").symlink_to(ROOT)
    return folder


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["--version"], ["translate", "--help"], ["recipes"], ["recipes", "cldr-demo"]]
)
def test_what_needs_no_model_loads_no_torch(installed, arguments):
    code = LIGHT.format(folder=str(installed), arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_version_is_the_package_s(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"crossmask {crossmask.__version__}\n"


def test_the_recipes_are_listed_and_printed(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    assert names == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    assert all(len(line.split()) > 3 for line in lines)
    assert main(["recipes", "cldr-demo"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["task"] == "translation"
    assert main(["recipes", "nonsense"]) == 2
    assert "NAME must be one of babi-qa, cldr-demo" in capsys.readouterr().err
    assert recipes.complete("cldr") == ["cldr-demo"]


COMMANDS = (
    "train", "tune", "recipes", "translate", "summarize", "answer", "classify", "label", "stream", "serve", "evaluate",
    "latency", "mask", "audit", "explore", "extract", "export", "push",
)  # fmt: skip
PAGES = [ROOT / "README.md", ROOT / "Makefile", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_commands_of_the_docs_have_the_options_that_they_are_shown_with(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = {}
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        shown[name] = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    found = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = "".join(re.findall(r"```bash\n(.*?)```", text, flags=re.S))
        pattern = r"(?:^\$ |^|\| |/)crossmask ([a-z]+)([^|\n]*)"
        shown_there = re.findall(pattern, blocks if page.suffix else text, flags=re.M)
        for name, rest in [*shown_there, *re.findall(r"`crossmask ([a-z]+)([^`]*)`", text)]:
            assert name in COMMANDS, (page.name, name)
            if name not in ("train", "tune"):  # which take the fields of recipes too
                assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= shown[name], (page.name, name, rest)
            found += 1
    assert found > 20


def test_every_command_has_help_of_its_own(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f" {name} " in shown
        assert main([name, "--help"]) == 0
        assert f"crossmask {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "crossmask train: Missing argument 'RECIPE'; see crossmask train --help"),
        (["train", "nonsense"], "crossmask train: a recipe must be a .yaml file or one of babi-qa, "),
        (["train", "nowhere.yaml"], "crossmask train: nowhere.yaml must be a text file"),
        (["train", "cldr-demo", "--learning_rat", "1"], "crossmask train: no field is named '--learning_rat'"),
        (["train", "cldr-demo", "--model.nonsense", "1"], "crossmask train: "),
        (["evaluate", "m"], "--task must be given without --recipe, got neither"),
        (["evaluate", "m", "--task", "translation"], "--data must be given without --recipe"),
        (["evaluate", "m", "--task", "translation", "--data", "x.txt"], "--data must end with .tsv, .jsonl, .json"),
        (["evaluate", "m", "--task", "nonsense", "--data", "x.tsv"], "unknown task 'nonsense'"),
        (["evaluate", "/no/model", "--recipe", "cldr-demo"], "'/no/model' must be a folder that holds a model"),
        (["push", "nowhere", "user/name"], "nowhere must be a folder"),
        (["push", ".", "a/b/c"], "REPOSITORY must be user/name, got 'a/b/c'"),
        (["export", "/no/model", "out", "--to", "ctranslate2"], "'/no/model' must be a folder"),
        (["export", "m", ".", "--to", "onnx"], ". must not exist yet"),
        (["export", "m", "out", "--to", "onnx", "--dtype", "int3"], "dtype must be one of"),
        (["extract", "cldr-demo", "--column", "nonsense"], "--column must be one of source, target, group"),
        (["answer", "/no/model"], "'/no/model' must be a folder"),
        (["classify", "/no/model"], "'/no/model' must be a folder"),
        (["audit", "/no/model", "--source", "a"], "'/no/model' must be a folder"),
        (["serve", "m", "--port", "70000"], "must be a whole number from 1 to 65535, got '70000'"),
        (["explore", "m", "--port", "0"], "must be a whole number from 1 to 65535, got '0'"),
        (["stream", "/no/model", "--cross-mask", "wait(3)"], "wait"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
