"""Upload of a finished folder in one commit: the repository gets all files or none."""

import hashlib
import shlex
from os import PathLike, fspath
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub.errors import HTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from ..utils.errors import InputError

IGNORED = ["checkpoint-*/*", ".*", "*/.*", "*__pycache__/*"]


class UploadError(OSError):
    """An upload that failed. `missing` are the files that the repository lacks, or has with another content."""

    def __init__(self, message: str, missing: list[str]) -> None:
        super().__init__(message)
        self.missing = missing


def push_folder(
    folder: str | PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload model",
    revision: str | None = None,
) -> CommitInfo:
    """Upload the files of `folder`, without checkpoints and hidden files, to the repository `repo_id` as one commit.

    The repository and the branch `revision` are created where they do not exist. The folder is only read.
    (`HfApi.upload_folder` may split a folder into several commits, of which some may fail.)

    Args:
        private: whether a repository that is created here is private; by default as set in the account.
        token: as in all of `huggingface_hub`; by default that of `hf auth login` or of `HF_TOKEN`.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: it has no file to upload, or `repo_id` is not a valid name.
        UploadError: the upload failed; the message says why, what is missing on the remote, and how to try again.
    """
    folder = Path(folder)
    validate_repo_id(repo_id)
    files = local_files(folder)
    api, reached = HfApi(token=token), False
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        reached = True
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files]
        return api.create_commit(repo_id, operations, commit_message=commit_message, revision=revision)
    # HTTPError: answers and connections; RuntimeError: large files; ValueError: a card that the Hub refuses.
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        missing = _missing(api, folder, files, repo_id, revision) if reached else None
        state = (
            "the remote cannot be read, all may be missing there" if missing is None else "missing or different there"
        )
        missing = files if missing is None else missing
        command = _command(fspath(folder), repo_id, private, commit_message, revision)
        raise UploadError(
            f"the upload of {folder} to {repo_id} failed ({_reason(error)}); the folder is unchanged; "
            f"{state}: {', '.join(missing) or 'nothing'}; try again with: {command}",
            missing,
        ) from error


def local_files(folder: Path) -> list[str]:
    """The files of `folder` that are uploaded, relative to it, with `/`, sorted.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: it has no file to upload.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder; give the output folder of a finished run")
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = list(filter_repo_objects(paths, ignore_patterns=IGNORED))
    if not files:
        raise InputError(f"{folder} must have a file to upload, got none; give the output folder of a finished run")
    return files


def _missing(api: HfApi, folder: Path, files: list[str], repo_id: str, revision: str | None) -> list[str] | None:
    """The files that the remote lacks or has with another content; None if it cannot be asked."""
    try:
        remote = {
            entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
            for entry in api.list_repo_tree(repo_id, recursive=True, revision=revision)
            if isinstance(entry, RepoFile)
        }
    except (HTTPError, OSError, ValueError):
        return None
    return [name for name in files if remote.get(name) not in _hashes(folder / name)]


def _hashes(path: Path) -> tuple[str, str]:
    """The hashes by which the Hub identifies a file's content: sha256 of large files, git's blob hash of others."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            blob.update(chunk)
    return sha256, blob.hexdigest()


def _reason(error: BaseException) -> str:
    """The error in one line, with the one that caused it where it has one."""
    texts = [" ".join(str(each).split()) for each in (error, error.__cause__) if each is not None]
    return ": ".join(dict.fromkeys(texts))


def _command(folder: str, repo_id: str, private: bool | None, message: str, revision: str | None) -> str:
    words = ["hf", "upload", repo_id, folder, ".", "--commit-message", message]
    for pattern in IGNORED:
        words += ["--exclude", pattern]
    if revision is not None:
        words += ["--revision", revision]
    if private:
        words.append("--private")
    return shlex.join(words)
