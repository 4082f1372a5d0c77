"""The output folder: nothing written before is lost, nothing half-written is used."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from crossmask.training.run_directory import (
    FINISHED,
    LOCK,
    full_disk_as_oserror,
    lock_folder,
    prepare_folder,
    remove_checkpoints,
    staged,
    whole_checkpoints,
)
from crossmask.utils.errors import InputError


def checkpoint(folder, step, state='{"global_step": 1}'):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return path


def test_a_new_folder_is_made_and_has_nothing_to_resume(tmp_path):
    assert prepare_folder(tmp_path / "a" / "b", resume=None) is None
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file/run cannot be written: .*--output_dir"):
        prepare_folder(tmp_path / "file" / "run", resume=None)


def test_the_last_whole_checkpoint_is_resumed(tmp_path):
    checkpoint(tmp_path, 9)
    last = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 11, state=None)  # killed before its state was written
    checkpoint(tmp_path, 12, state='{"global_')  # killed while it was
    assert prepare_folder(tmp_path, resume="last") == last
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
    assert prepare_folder(tmp_path, resume=str(tmp_path / "checkpoint-9")) == tmp_path / "checkpoint-9"


def test_an_unfinished_run_is_not_overwritten(tmp_path):
    checkpoint(tmp_path, 10)
    with pytest.raises(ValueError, match=r"checkpoint-10 of an unfinished run.*--resume_from_checkpoint last"):
        prepare_folder(tmp_path, resume=None)


@pytest.mark.parametrize("name", ["metrics.json", "config.json", "model.safetensors"])
def test_a_finished_model_is_not_overwritten_unless_that_is_asked_for(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=rf"holds a finished model \({name}\): replace it with --overwrite"):
        prepare_folder(tmp_path, resume=None)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match="holds a finished model"):
        prepare_folder(tmp_path, resume=str(checkpoint(other, 3)))
    with pytest.raises(InputError, match=rf"\({name}\) and no checkpoint to resume from: .* model_name_or_path"):
        prepare_folder(tmp_path, resume="last")
    assert prepare_folder(tmp_path, resume=None, overwrite=True) is None
    assert (tmp_path / name).exists()


def test_a_run_that_was_to_overwrite_goes_on(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    last = checkpoint(tmp_path, 3)
    assert prepare_folder(tmp_path, resume="last") == last
    assert prepare_folder(tmp_path, resume=None, overwrite=True) is None
    for resume in ("last", str(last)):
        with pytest.raises(InputError, match=r"overwrite starts anew and --resume_from_checkpoint .* leave one"):
            prepare_folder(tmp_path, resume=resume, overwrite=True)


def test_files_of_the_run_before_do_not_stay_beside_those_of_the_new_one(tmp_path):
    """Weights in several files would be read in place of those in one, or the other way around."""
    for name in (FINISHED, "model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.txt"):
        (tmp_path / name).write_text("old")
    with staged(tmp_path) as place:
        (place / "model.safetensors").write_text("new")
        (place / FINISHED).write_text("new")
        assert (tmp_path / FINISHED).read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {FINISHED, "model.safetensors", "notes.txt"}


def test_a_folder_with_files_of_two_runs_is_not_a_finished_one(tmp_path, monkeypatch):
    for name in (FINISHED, "model.safetensors", "config.json"):
        (tmp_path / name).write_text("old")

    def stop(*_):
        raise KeyboardInterrupt

    def fill():
        with staged(tmp_path) as place:
            for name in (FINISHED, "model.safetensors", "config.json"):
                (place / name).write_text("new")
            monkeypatch.setattr("crossmask.training.run_directory.os.replace", stop)

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert not (tmp_path / FINISHED).exists()


def lock_in_another_process(folder):
    script = (
        "import sys\nfrom filelock import FileLock\nlock = FileLock(sys.argv[1])\nlock.acquire(timeout=20)\n"
        "print('locked', flush=True)\ninput()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder / LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    return process


def test_two_runs_do_not_share_a_folder(tmp_path):
    half_written = tmp_path / ".staged-of-a-run"
    half_written.mkdir()
    other = lock_in_another_process(tmp_path)
    with pytest.raises(InputError, match=r"another run is using .* now: wait for its end, or choose another"):
        lock_folder(tmp_path)
    assert half_written.exists()
    other.kill()
    other.communicate()
    lock = lock_folder(tmp_path)
    assert not half_written.exists()  # the run that wrote it is gone
    half_written.mkdir()
    assert lock_folder(tmp_path) is lock  # a process may prepare a second job, to go on with the first
    assert half_written.exists()


def test_nothing_to_resume_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no whole checkpoint to resume from"):
        prepare_folder(tmp_path, resume="last")
    with pytest.raises(ValueError, match="is not a whole checkpoint"):
        prepare_folder(tmp_path, resume=str(tmp_path / "checkpoint-3"))


def test_files_are_replaced_only_when_all_are_written(tmp_path):
    (tmp_path / "model").write_text("old")

    def fill_disk():
        with staged(tmp_path) as place:
            (place / "model").write_text("new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fill_disk()
    assert (tmp_path / "model").read_text() == "old"
    with staged(tmp_path) as place:
        (place / "model").write_text("new")
        (place / FINISHED).write_text(json.dumps({}))
    assert (tmp_path / "model").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [FINISHED, "model"]


@pytest.fixture
def small_files():
    """Files of at most 10,000 bytes, which stand in for a full disk; Python ignores the signal of larger ones."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "save", [lambda path: save_file({"w": torch.ones(9000)}, path), lambda path: torch.save(torch.ones(9000), path)]
)
def test_a_full_disk_is_an_oserror_that_names_the_folder(save, small_files, tmp_path):
    with (
        pytest.raises(OSError, match=r"^here could not be written.*--resume_from_checkpoint"),
        full_disk_as_oserror(Path("here")),
    ):
        save(tmp_path / "file")


def test_other_errors_pass(tmp_path):
    def fail():
        with full_disk_as_oserror(tmp_path):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        fail()


def test_checkpoints_of_a_finished_run_go(tmp_path):
    checkpoint(tmp_path, 10)
    remove_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_later_ones_go_where_a_run_goes_on_from_an_earlier_one(tmp_path):
    for step in (10, 20, 100):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 30, state="half written")
    remove_checkpoints(tmp_path, after=tmp_path / "checkpoint-20")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-20"]


def test_the_last_checkpoint_goes_first(tmp_path, monkeypatch):
    """A deletion that is cut off leaves what a run can go on from to the same end."""
    for step in (10, 20, 100):
        checkpoint(tmp_path, step)

    def cut_off(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", cut_off)
    with pytest.raises(KeyboardInterrupt):
        remove_checkpoints(tmp_path)
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-20"]
