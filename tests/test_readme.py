"""Every example in README runs as printed."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import small_config

from crossmask import CrossMaskForConditionalGeneration
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.training.arguments import parse_run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, flags=re.S) for line in block.splitlines()]


def blocks(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", README, flags=re.S))


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


def test_the_python_examples(workplace):
    examples = doctest.DocTestParser().get_doctest(blocks("python"), {}, "README", "README.md", 0)
    assert len(examples.examples) > 20
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples, out=report.append)
    assert not report, "".join(report)


def test_the_commands_that_print():
    shown = re.findall(r"```bash\n\$ (python -m [^\n]*)\n(.+?)```", README, flags=re.S)
    assert shown
    for command, expected in shown:
        done = subprocess.run(
            [sys.executable, *shlex.split(command)[1:]], capture_output=True, text=True, check=True, cwd=ROOT.parent
        )
        assert [line.rstrip() for line in done.stdout.splitlines()] == [
            line.rstrip() for line in expected.splitlines()
        ]


def test_the_training_commands_name_recipes_and_fields_that_exist():
    commands = [line for line in COMMANDS if line.startswith("python train.py")]
    assert commands
    for command in commands:
        recipe, *options = shlex.split(command)[2:]
        assert parse_run([str(ROOT / recipe), *options], command=command).recipe.task


def test_the_files_that_it_links_to_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


@pytest.mark.slow
def test_the_demo_in_a_clean_clone(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VIRTUAL_ENV")}
    subprocess.run(["make", "demo"], cwd=clone, env=environment, check=True)
    assert (clone / "runs" / "cldr-demo" / "metrics.json").is_file()
