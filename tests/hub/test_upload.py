"""`push_folder` against the loopback Hub: one commit or none, and errors that say what is missing and how to go on."""

import hashlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi
from loopback_hub import TOKEN, Failure

from crossmask.hub.upload import UploadError, local_files, push_folder

CARD = "---\nlicense: apache-2.0\n---\n\n# A model\n"


@pytest.fixture
def folder(tmp_path):
    """A run's output folder: five files to upload, and what must stay at home."""
    root = tmp_path / "runs" / "my run"
    for name, text in {
        "README.md": CARD,
        "config.json": "{}",
        "model.safetensors": "weights" * 100,
        "plots/curve.png": "png",
        "modeling_crossmask.py": "x = 1\n",
        "checkpoint-10/model.safetensors": "older",
        ".modeling_crossmask.py.1.tmp": "half",
        "__pycache__/x.pyc": "c",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in local_files(folder)}


def snapshot(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_one_commit_holds_all_files_but_checkpoints(hub, folder):
    info = push_folder(folder, "tester/m", commit_message="First")
    remote = hub.files("tester/m")
    assert {name: data for name, data in remote.items() if name != ".gitattributes"} == content(folder)
    assert set(content(folder)) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "plots/curve.png",
        "modeling_crossmask.py",
    }
    assert hub.repos["tester/m"].messages == ["initial commit", "First"]
    assert hub.repos["tester/m"].branches["main"] == info.oid
    assert set(hub.lfs) == {
        hashlib.sha256(content(folder)[n]).hexdigest() for n in ("model.safetensors", "plots/curve.png")
    }


def test_pushing_again_commits_only_what_changed(hub, folder):
    push_folder(folder, "tester/m")
    puts = [path for method, path in hub.requests if method == "PUT"]
    push_folder(folder, "tester/m")
    assert len(hub.repos["tester/m"].messages) == 2
    (folder / "config.json").write_text('{"a": 1}')
    push_folder(folder, "tester/m", commit_message="Third")
    assert hub.repos["tester/m"].messages[-1] == "Third"
    assert hub.files("tester/m")["config.json"] == b'{"a": 1}'
    assert [path for method, path in hub.requests if method == "PUT"] == puts


def test_name_without_owner_private_and_branch(hub, folder):
    push_folder(folder, "m", private=True, revision="second")
    repo = hub.repos["tester/m"]
    assert repo.private
    assert "config.json" in hub.files("tester/m", "second")
    assert "config.json" not in hub.files("tester/m", "main")
    with pytest.raises(huggingface_hub.errors.RepositoryNotFoundError):
        HfApi(token=False).model_info("tester/m")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Failure("PUT", r"^/lfs/", 403, nth=2), "403"),
        (Failure("POST", r"/commit/main$", 503), "503"),
        (Failure("POST", r"/commit/main$", 0), "Server disconnected"),
        (Failure("POST", r"/preupload/", 403), "403"),
        (Failure("POST", r"/validate-yaml$", 400), ""),
    ],
    ids=["second large file", "commit 503", "commit cut off", "preupload", "card refused"],
)
def test_a_failed_upload_leaves_both_sides_whole_and_says_what_is_missing(hub, folder, failure, reason):
    push_folder(folder, "tester/m")
    before, remote = snapshot(folder), hub.files("tester/m")
    (folder / "model.safetensors").write_text("better weights")
    (folder / "plots/more.png").write_text("more")
    (folder / "notes.txt").write_text("new")
    changed = snapshot(folder)
    hub.failures.append(failure)
    with pytest.raises(UploadError) as error:
        push_folder(folder, "tester/m")
    assert error.value.missing == ["model.safetensors", "notes.txt", "plots/more.png"]
    text = str(error.value)
    assert "\n" not in text
    assert TOKEN not in text
    assert f"the upload of {folder} to tester/m failed (" in text
    assert reason in text
    assert "missing or different there: model.safetensors, notes.txt, plots/more.png;" in text
    assert hub.files("tester/m") == remote
    assert snapshot(folder) == changed != before

    hub.failures.clear()
    push_folder(folder, "tester/m")
    assert {n: d for n, d in hub.files("tester/m").items() if n != ".gitattributes"} == content(folder)


def test_the_command_in_the_message_finishes_the_upload(hub, folder, tmp_path):
    hub.failures.append(Failure("PUT", r"^/lfs/", 403, times=1))
    with pytest.raises(UploadError) as error:
        push_folder(folder, "tester/m", commit_message="It's here", revision="second", private=True)
    command = shlex.split(re.search(r"try again with: (.*)$", str(error.value))[1])
    assert command[:2] == ["hf", "upload"]
    command[0] = str(Path(sys.executable).with_name("hf"))
    subprocess.run(command, env={**os.environ, **hub.environment(tmp_path / "home")}, check=True, capture_output=True)
    assert {n: d for n, d in hub.files("tester/m", "second").items() if n != ".gitattributes"} == content(folder)
    assert hub.repos["tester/m"].messages[-1] == "It's here"


def test_without_a_right_token_all_is_missing(hub, folder):
    with pytest.raises(
        UploadError, match=r"the remote cannot be read, all may be missing there: README\.md, "
    ) as error:
        push_folder(folder, "tester/m", token="hf_wrong")
    assert error.value.missing == local_files(folder)
    assert hub.repos == {}
    assert "hf_wrong" not in str(error.value)


def test_a_remote_that_is_not_there_is_not_asked_twice(hub, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(
        UploadError, match=r"failed \(\[Errno \d+\] Connection refused\); the folder is unchanged; the remote"
    ):
        push_folder(folder, "tester/m")


def test_an_answer_lost_after_the_commit_is_told_from_a_failure(hub, folder):
    push_folder(folder, "tester/m")
    hub.failures.append(Failure("POST", r"/commit/main$", 503, after=True))
    (folder / "notes.txt").write_text("new")
    with pytest.raises(UploadError, match="missing or different there: nothing;"):
        push_folder(folder, "tester/m")


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda p: None, NotADirectoryError, "must be a folder"),
        (lambda p: p.write_text("x"), NotADirectoryError, "must be a folder"),
        (lambda p: p.mkdir(), ValueError, "must have a file to upload, got none"),
    ],
)
def test_nothing_to_upload(hub, tmp_path, make, error, says):
    make(tmp_path / "run")
    with pytest.raises(error, match=says):
        push_folder(tmp_path / "run", "tester/m")
    assert hub.requests == []


def test_a_name_that_is_none_is_refused_before_anything_is_sent(hub, folder):
    with pytest.raises(ValueError, match="tester/m/x"):
        push_folder(folder, "tester/m/x")
    assert hub.requests == []


def test_the_loopback_hub_checks_what_it_is_sent(hub, folder):
    push_folder(folder, "tester/m")
    request = huggingface_hub.utils.get_session().put(f"{hub.endpoint}/lfs/{'0' * 64}", content=b"other")
    assert request.status_code == 400
    assert "0" * 64 not in hub.lfs
