"""How the chains of `make` go on: what they would run, by `make --dry-run`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIRST, THIRD = "runs/news-en-de", "runs/news-en-de-diversified"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def _dry_run(folder: Path) -> str:
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    command = ["make", "--dry-run", "-f", str(ROOT / "Makefile"), "news"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def _runs(folder: Path) -> dict[str, str]:
    """The trainings of `make news` by recipe and folder, and how each begins."""
    text = _dry_run(folder)
    lines = [line.split("train.py ", 1)[1] for line in text.splitlines() if "train.py" in line]
    beginnings = ("--resume_from_checkpoint last", "--overwrite")
    return {line.split()[0].removeprefix("recipes/") if "--output_dir" not in line else "reverse":
            next((one for one in beginnings if one in line), "anew") for line in lines}  # fmt: skip


def _file(path: Path, seconds: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (seconds, seconds))


def test_trainings_begin_anew_where_there_is_nothing(tmp_path):
    assert _runs(tmp_path) == {"news-en-de.yaml": "anew", "reverse": "anew", "news-en-de-diversified.yaml": "anew"}


def test_a_training_that_was_interrupted_goes_on(tmp_path):
    _file(tmp_path / FIRST / "checkpoint-1000" / "trainer_state.json")
    (tmp_path / THIRD / "checkpoint-500").mkdir(parents=True)  # of which the writing was not finished
    assert _runs(tmp_path) == {
        "news-en-de.yaml": "--resume_from_checkpoint last",
        "reverse": "anew",
        "news-en-de-diversified.yaml": "anew",
    }


def test_a_model_takes_the_place_of_one_that_is_older_than_what_it_is_made_of(tmp_path):
    _file(tmp_path / THIRD / "metrics.json", seconds=1)
    _file(tmp_path / FIRST / "metrics.json", seconds=2)
    assert _runs(tmp_path) == {"reverse": "anew", "news-en-de-diversified.yaml": "--overwrite"}
    _file(tmp_path / THIRD / "checkpoint-500" / "trainer_state.json")
    assert _runs(tmp_path)["news-en-de-diversified.yaml"] == "--resume_from_checkpoint last"


def test_translations_by_a_model_that_is_older_give_way(tmp_path):
    translated = "runs/news-translated/de-en.tsv.gz"
    _file(tmp_path / translated, seconds=1)
    _file(tmp_path / FIRST / "metrics.json", seconds=2)
    lines = _dry_run(tmp_path).splitlines()
    after = lines[lines.index(f"rm -f {translated}") + 1]
    assert "crossmask translate runs/news-en-de " in after
    assert f"--output {translated}" in after
