"""bAbI."""

import fnmatch
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from datasets import Dataset
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

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
    return _to_dataset(_babi_files(path), path)


@register_format("babi_hub")
def load_babi_hub(*, name: str, archive: str, members: str, revision: str | None = None) -> Dataset:
    """bAbI text in a tar archive of a dataset on the Hub; records as of `babi`.

    `archive` is the archive's path in the dataset `name`, and `members` the pattern of the files in it that are read.
    """
    try:
        file = hf_hub_download(name, archive, repo_type="dataset", revision=revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise OSError(
            f"cannot fetch {archive} of {name!r} from the Hub: {reason}: check the name and the network"
        ) from None
    with _extracted(Path(file), members) as files:
        return _to_dataset(files, f"{name}/{archive}")


@contextmanager
def _extracted(archive: Path, members: str) -> Iterator[list[Path]]:
    """The files of an archive that a pattern names, in a folder that is there for a while."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive) as tar:
                wanted = [item for item in tar if item.isfile() and fnmatch.fnmatchcase(item.name, members)]
                tar.extractall(folder, members=wanted, filter="data")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise InputError(f"{archive}: not a readable tar archive ({error}); fetch it again") from error
        if not wanted:
            raise InputError(f"{archive} has no file {members!r}: expected a pattern such as en-10k/qa*_train.txt")
        yield sorted((Path(folder, item.name) for item in wanted), key=_task_number)


def _to_dataset(files: Sequence[Path], place: object) -> Dataset:
    rows: list[dict[str, Text]] = []
    for file in files:
        task = match[0] if (match := re.match(r"qa\d+", file.name)) else file.name.split(".")[0]
        rows.extend(_read_babi(file, task))
    return to_dataset(rows, ("question", "context", "answers", "support", "group", "story"), place)


def _task_number(file: Path) -> tuple[int, str]:
    return int((re.findall(r"\d+", file.name) or [0])[0]), file.name


def _babi_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(path, str | Path):
        return [Path(file) for file in path]
    if not Path(path).is_dir():
        return [Path(path)]
    files = [file for file in Path(path).iterdir() if re.fullmatch(r"qa\d+.*\.txt(\.gz)?", file.name)]
    if not files:
        raise FileNotFoundError(f"{path} has no bAbI files: expected names like qa1_single-supporting-fact_train.txt")
    return sorted(files, key=_task_number)


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
