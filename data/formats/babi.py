"""bAbI."""

import fnmatch
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from ...utils.errors import InputError
from ..text_files import read_lines
from .records import Text
from .registry import register_format


@register_format("babi")
def read_babi(*, path: str | Path | Sequence[str | Path]) -> Iterator[dict[str, Text]]:
    """bAbI text (Weston et al. 2015): a file, several, or all `qa*.txt` and `qa*.txt.gz` of a folder.

    Columns `question`, `context` (the story's sentences so far, joined by spaces), `answers` (a list of one text),
    `support` (the sentences that the answer follows from, in the order in which the file names them), `group` (the
    task, `qa1` to `qa20`) and `story` (the same for all questions about one story).
    """
    for file in _babi_files(path):
        yield from _read_file(file)


@register_format("babi_hub")
def read_babi_hub(*, name: str, archive: str, members: str, revision: str | None = None) -> Iterator[dict[str, Text]]:
    """bAbI text in a tar archive of a dataset on the Hub; records as of `babi`.

    `archive` is the archive's path in the dataset `name`, and `members` the pattern of the files in it that are read.
    """
    try:
        downloaded = hf_hub_download(name, archive, repo_type="dataset", revision=revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise OSError(
            f"cannot fetch {archive} of {name!r} from the Hub: {reason}; check the name and the network"
        ) from None
    with _extracted(Path(downloaded), members) as files:
        for file in files:
            yield from _read_file(file)


@contextmanager
def _extracted(archive: Path, members: str) -> Iterator[list[Path]]:
    """The files of an archive whose names match a pattern, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive) as tar:
                matching = [item for item in tar if item.isfile() and fnmatch.fnmatchcase(item.name, members)]
                files = [_extract(tar, item, Path(folder, str(number))) for number, item in enumerate(matching)]
        except (tarfile.TarError, EOFError, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{archive} must be a readable tar archive: {reason}; fetch it again") from error
        if not files:
            raise InputError(
                f"members must match files of {archive}, got {members!r}; give a pattern such as en-10k/qa*_train.txt"
            )
        yield sorted(files, key=_task_number)


def _extract(tar: tarfile.TarFile, item: tarfile.TarInfo, folder: Path) -> Path:
    """A file of an archive, in a new folder: extractall is safe by its filter alone, which is new in Python 3.11.4."""
    place = folder / Path(item.name).name
    folder.mkdir()
    with tar.extractfile(item) as source, place.open("wb") as target:  # type: ignore[union-attr]
        shutil.copyfileobj(source, target)
    return place


def _task_number(file: Path) -> tuple[int, str]:
    return int((re.findall(r"\d+", file.name) or [0])[0]), file.name


def _babi_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(path, str | Path):
        return [Path(file) for file in path]
    if not Path(path).is_dir():
        return [Path(path)]
    files = [file for file in Path(path).iterdir() if re.fullmatch(r"qa\d+.*\.txt(\.gz)?", file.name)]
    if not files:
        raise FileNotFoundError(
            f"{path} must hold bAbI files such as qa1_single-supporting-fact_train.txt, got none; give another folder"
        )
    return sorted(files, key=_task_number)


def _read_file(file: Path) -> Iterator[dict[str, Text]]:
    task = match[0] if (match := re.match(r"qa\d+", file.name)) else file.name.split(".")[0]
    sentences: dict[str, str] = {}
    story = 0
    for number, line in enumerate(read_lines(file), start=1):
        match = re.match(r"(\d+) (.*)", line)
        if match is None:
            raise InputError(f"{file}, line {number}: must be `N sentence`, got {line[:40]!r}; number the sentence")
        if match[1] == "1":
            sentences, story = {}, story + 1
        fields = match[2].split("\t")
        if len(fields) == 1:
            sentences[match[1]] = fields[0].strip()
            continue
        question, answer = fields[0].strip(), fields[1].strip()
        if not question or not answer:
            raise InputError(
                f"{file}, line {number}: must be `N question TAB answer`, got {line[:40]!r}; write what is missing"
            )
        support = fields[2].split() if len(fields) > 2 else []
        if unknown := [key for key in support if key not in sentences]:
            raise InputError(
                f"{file}, line {number}: supporting lines must be sentences of the story so far, got {unknown[0]!r}; "
                "give their numbers, separated by spaces"
            )
        yield {
            "question": question,
            "context": " ".join(sentences.values()),
            "answers": [answer],
            "support": " ".join(sentences[key] for key in support),
            "group": task,
            "story": f"{task}-{story}",
        }
