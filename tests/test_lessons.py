"""The course: each page runs as printed, has its picture, and says the same in both languages."""

import codeop
import json
import re
import runpy
from pathlib import Path

import pytest
from doc_examples import blocks, run_examples

LESSONS = Path(__file__).resolve().parents[1] / "docs" / "lessons"
NAMES = sorted(path.stem for path in LESSONS.glob("*.md") if path.stem != "index")
PAGES = [LESSONS / folder / f"{name}.md" for name in NAMES for folder in (".", "zh")]
PICTURES_LIMIT = 80_000


def page_id(path: Path) -> str:
    return path.relative_to(LESSONS).as_posix()


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_a_lesson_runs(name, tmp_path, monkeypatch):
    """In an empty namespace, so that all imports are on the page."""
    monkeypatch.chdir(tmp_path)
    assert run_examples((LESSONS / f"{name}.md").read_text(encoding="utf-8"), name) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_a_lesson_can_be_pasted_into_an_interactive_session(name):
    """Python reads it line by line there, and a blank line ends a statement with a body."""
    for block in blocks("python", (LESSONS / f"{name}.md").read_text(encoding="utf-8")):
        statement: list[str] = []
        for line in re.findall(r"^(?:>>>|\.\.\.)(?: (.*))?$", block, flags=re.M):
            statement.append(line)
            if codeop.compile_command("\n".join(statement)) is not None:
                statement = []
        assert not statement


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_code_and_picture(name):
    english, chinese = ((LESSONS / folder / f"{name}.md").read_text(encoding="utf-8") for folder in (".", "zh"))
    assert blocks("python", english) == blocks("python", chinese)
    for pattern in (r"pictures/[\w-]+\.png", r"^#+", r"<summary>"):
        assert len(found := re.findall(pattern, english, flags=re.M)) > 0
        assert re.findall(pattern, chinese, flags=re.M) == found


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_lesson_is_short_and_ends_with_questions(page):
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 125
    questions = text.split("\n## ")[-1]
    assert len(re.findall(r"<details markdown=\"1\">\n<summary>.+</summary>\n\n", questions)) in (2, 3)
    assert text.endswith("</details>\n")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_lesson_shows_its_picture(page):
    shown = re.findall(r"!\[.+\]\((\S+\.png)\)", page.read_text(encoding="utf-8"))
    assert [(page.parent / path).resolve() for path in shown] == [
        (LESSONS / "pictures" / f"{page.stem}.png").resolve()
    ]


def test_every_picture_is_small_and_the_script_makes_it():
    made = runpy.run_path(str(LESSONS / "pictures.py"))["PICTURES"]
    pictures = {path.stem: path.stat().st_size for path in (LESSONS / "pictures").glob("*.png")}
    assert sorted(made) == sorted(pictures) == NAMES
    assert all(size < PICTURES_LIMIT for size in pictures.values()), pictures


def test_the_notebook_is_kept_without_outputs():
    """`make docs` runs it."""
    cells = json.loads((LESSONS / "demonstration.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 4
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert "demonstration.ipynb" in (LESSONS.parents[1] / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", [".", "zh"])
def test_the_contents_name_every_lesson_in_the_order_of_the_navigation(folder):
    listed = re.findall(r"\]\(([\w-]+)\.md\)", (LESSONS / folder / "index.md").read_text(encoding="utf-8"))
    prefix = "lessons/" if folder == "." else "lessons/zh/"
    navigation = (LESSONS.parents[1] / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(listed) == NAMES
    assert re.findall(rf" {prefix}([\w-]+)\.md$", navigation, flags=re.M) == ["index", *listed]
