"""Every example in README and in pages of the docs runs as printed, and every link leads to a file."""

import ast
import os
import pkgutil
import re
import runpy
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from doc_examples import run_examples
from small_models import small_config

from crossmask import CrossMaskForConditionalGeneration
from crossmask.cli.main import main
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.training.parsing import parse_run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, flags=re.S) for line in block.splitlines()]


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder where `runs/cldr-demo` holds a model, as after `make demo`, only untrained."""
    texts = ["<2de> Monday, June 3, 2019; 5 kilometers", "in 1 Woche", "Kroatien", "Croatia in 1 week"]
    tokenizer = train_tokenizer(texts, vocab_size=330, special_tokens=["<2de>", "<2fr>", "<2zh>"])
    model = CrossMaskForConditionalGeneration(small_config(vocab_size=len(tokenizer)))
    model.generation_config.max_new_tokens = 8
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "runs" / "cldr-demo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("page", "fewest"), [("README.md", 15), ("docs/usage.md", 20), ("docs/bridge.md", 20), ("docs/pretrained.md", 20)]
)
def test_the_python_examples(workplace, page, fewest):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert run_examples(text, page) > fewest


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


CLIENTS = ("libretranslatepy", "deep_translator")  # of our server, which need not be here


@pytest.mark.parametrize("page", PAGES)
def test_python_that_is_not_run_imports_what_there_is(page):
    """Blocks that name models of the Hub, or the fields of a class, are only read."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M):
        if ">>>" not in block:
            imports = [line for line in ast.parse(block).body if isinstance(line, ast.Import | ast.ImportFrom)]
            absolute = [line for line in imports if not getattr(line, "level", 0)]
            absolute = [line for line in absolute if getattr(line, "module", None) not in CLIENTS]
            exec(compile(ast.Module(absolute, []), page, "exec"), {})


def test_the_quickstart_is_short():
    quickstart = README.split("## Quickstart")[1].split("```python\n")[1].split("```")[0]
    assert len(quickstart.strip().splitlines()) <= 15


def test_the_commands_that_print(capsys):
    shown = re.findall(r"```bash\n\$ crossmask ([^\n]*)\n(.+?)```", README, flags=re.S)
    assert shown
    for command, expected in shown:
        assert main(shlex.split(command)) == 0
        printed = capsys.readouterr().out
        assert [line.rstrip() for line in printed.splitlines()] == [line.rstrip() for line in expected.splitlines()]


def test_the_training_commands_name_recipes_and_fields_that_exist():
    commands = [line for line in COMMANDS if line.startswith("python train.py")]
    assert commands
    for command in commands:
        recipe, *options = shlex.split(command)[2:]
        assert parse_run([str(ROOT / recipe), *options], command=command).recipe.data.task


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "LOG.md"]


CARDS = sorted((ROOT / "model_cards").glob("*/README.md"))


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_to_files_and_headings(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http", "mailto"))]
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, link


def test_the_site_has_every_page_and_every_module_that_a_page_names():
    listed = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.M)
    pages = {path.relative_to(ROOT / "docs").as_posix(): path for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(pages)
    named = [name for path in pages.values() for name in re.findall(r"^::: (\S+)$", path.read_text(), flags=re.M)]
    assert len(named) > 20
    for name in named:
        assert pkgutil.resolve_name(name).__doc__, name


@pytest.mark.parametrize(
    ("page", "link", "shown"),
    [
        ("index.md", "[README](../README.md#install)", "README (`README.md` in the repository)"),
        ("lessons/index.md", "[Masks](../masks.md#blind-spans)", "[Masks](../masks.md#blind-spans)"),
        ("lessons/zh/index.md", "[日志](../../../CHANGELOG.md)", "日志 (`CHANGELOG.md` in the repository)"),
    ],
)
def test_the_site_names_files_that_it_does_not_have(page, link, shown):
    rewrite = runpy.run_path(str(ROOT / "docs" / "links.py"))["on_page_markdown"]
    context = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert rewrite(link, page=context, config=None, files=None) == shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_plain_english(page):
    words = r"house|rooms?|floors?|arrows?|doors?|mend(?:s|ed|ing)?|so many|as many"
    assert re.findall(rf"\b(?:{words})\b", page.read_text(encoding="utf-8"), flags=re.IGNORECASE) == []


@pytest.mark.slow
def test_the_demo_in_a_clean_clone(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VIRTUAL_ENV")}
    subprocess.run(["make", "demo"], cwd=clone, env=environment, check=True)
    assert (clone / "runs" / "cldr-demo" / "metrics.json").is_file()
