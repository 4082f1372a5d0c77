"""bAbI."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets import Dataset

from ...utils.errors import InputError
from ..text_files import read_lines
from .records import Text, to_dataset
from .registry import register_format


@register_format("babi")
def load_babi(*, path: str | Path | Sequence[str | Path]) -> Dataset:
    """bAbI text (Weston et al. 2015): a file, several, or all `qa*.txt` and `qa*.txt.gz` of a folder.

    Columns `question`, `context` (the story's sentences so far, joined by spaces), `answers` (a list of one text),
    `support` (the sentences that the answer follows from, in the file's order), `group` (the task, `qa1` to `qa20`)
    and `story` (the same for all questions about one story).
    """
    rows: list[dict[str, Text]] = []
    for file in _babi_files(path):
        task = match[0] if (match := re.match(r"qa\d+", file.name)) else file.name.split(".")[0]
        rows.extend(_read_babi(file, task))
    return to_dataset(rows, ("question", "context", "answers", "support", "group", "story"), path)


def _babi_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(path, str | Path):
        return [Path(file) for file in path]
    if not Path(path).is_dir():
        return [Path(path)]
    files = [file for file in Path(path).iterdir() if re.fullmatch(r"qa\d+.*\.txt(\.gz)?", file.name)]
    if not files:
        raise FileNotFoundError(f"{path} has no bAbI files: expected names like qa1_single-supporting-fact_train.txt")
    return sorted(files, key=lambda file: (int(re.findall(r"\d+", file.name)[0]), file.name))


def _read_babi(file: Path, task: str) -> Iterator[dict[str, Text]]:
    sentences: dict[str, str] = {}
    story = 0
    for number, line in enumerate(read_lines(file), start=1):
        match = re.match(r"(\d+) (.*)", line)
        if match is None:
            raise InputError(f"{file}, line {number}: no sentence number in {line[:40]!r}: expected `N sentence`")
        if match[1] == "1":
            sentences, story = {}, story + 1
        fields = match[2].split("\t")
        if len(fields) == 1:
            sentences[match[1]] = fields[0].strip()
            continue
        question, answer = fields[0].strip(), fields[1].strip()
        if not question or not answer:
            raise InputError(
                f"{file}, line {number}: a question without text or answer: expected `N question TAB answer`"
            )
        support = fields[2].split() if len(fields) > 2 else []
        if missing := [line for line in support if line not in sentences]:
            raise InputError(
                f"{file}, line {number}: supporting line {missing[0]!r} is not a sentence of the story so far: "
                "expected numbers of its lines, separated by spaces"
            )
        yield {
            "question": question,
            "context": " ".join(sentences.values()),
            "answers": [answer],
            "support": " ".join(sentences[line] for line in support),
            "group": task,
            "story": f"{task}-{story}",
        }
