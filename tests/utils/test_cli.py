"""The one boundary of all commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from crossmask.configuration.crossmask import CrossMaskConfig
from crossmask.inference.__main__ import main as translate
from crossmask.masks.__main__ import main as show
from crossmask.masks.expressions import MaskError
from crossmask.streaming.__main__ import main as measure
from crossmask.utils import errors
from crossmask.utils.cli import run_command
from crossmask.utils.disk import naming_full_disks
from crossmask.utils.errors import InputError, MissingLibraryError

ROOT = Path(__file__).parents[2]


def raising(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("k must be\n 3"), 2, "prog: k must be 3"),
        (MaskError("no rule"), 2, "prog: no rule"),
        (MissingLibraryError("figures need matplotlib"), 2, "prog: figures need matplotlib"),
        (
            FileNotFoundError(2, "No such file or directory", "a.txt"),
            2,
            "prog: [Errno 2] No such file or directory: 'a.txt'",
        ),
        (ConnectionError("no network"), 2, "prog: no network"),
        (KeyboardInterrupt(), 130, "prog: interrupted"),
    ],
)
def test_what_is_not_our_fault_is_one_line(capsys, error, status, line):
    assert run_command("prog", raising(error), []) == status
    assert capsys.readouterr().err == f"{line}\n"


def test_any_folder_may_add_its_error_of_input(capsys):
    class FolderError(ValueError):
        pass

    with pytest.raises(FolderError):
        run_command("prog", raising(FolderError("not known yet")), [])
    before = list(errors._errors_of_input)
    try:
        errors.count_as_error_of_input(FolderError)
        errors.count_as_error_of_input(FolderError)
        assert len(errors._errors_of_input) == len(before) + 1
        assert run_command("prog", raising(FolderError("known")), []) == 2
    finally:
        errors._errors_of_input[:] = before
    assert capsys.readouterr().err == "prog: known\n"


def test_a_strict_config_says_its_cause(capsys):
    assert run_command("prog", lambda: CrossMaskConfig(hidden_size="wide"), []) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "hidden_size" in error


@pytest.mark.parametrize("error", [ValueError("a bug"), TypeError("a bug"), KeyError("a bug"), RuntimeError("a bug")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error), match="a bug"):
        run_command("prog", raising(error), [])


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (translate, ["model", "--input", "a\udcff"]),
        (show, ["full()", "--source", "a \udcff"]),
        (measure, ["\udcff", "--recipe", "x"]),
    ],
)
def test_arguments_are_text(main, arguments, capsys):
    assert main(arguments) == 2
    assert "must be valid Unicode, got a lone surrogate '\\udcff'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (translate, ["m", "--num-beams", "0"], "--num-beams: must be a whole number of at least 1, got '0'"),
        (translate, ["m", "--num-beams", "-3"], "--num-beams: must be a whole number"),
        (translate, ["m", "--max-new-tokens", "9" * 5000], "--max-new-tokens: must be a whole number"),
        (translate, ["m", "--max-source-length", "0"], "--max-source-length: must be"),
        (translate, ["m", "--batch-tokens", "1.5"], "--batch-tokens: must be"),
        (translate, ["m", "--seed", "-1"], "--seed: must be a whole number of at least 0"),
        (translate, ["m", "--temperature", "nan"], "--temperature: must be a finite number above 0, got 'nan'"),
        (translate, ["m", "--temperature", "0"], "--temperature: must be a finite number above 0"),
        (translate, ["m", "--length-penalty", "inf"], "--length-penalty: must be a finite number, got 'inf'"),
        (translate, ["m", "--dtype", "int8"], "--dtype: invalid choice"),
        (translate, [], "the following arguments are required: model"),
        (measure, ["m", "--recipe", "r", "--k", "0"], "--k: must be a whole number of at least 1"),
        (measure, ["m", "--recipe", "r", "--align-att", "-1"], "--align-att: must be a whole number of at least 0"),
        (measure, ["m", "--recipe", "r", "--limit", "0"], "--limit: must be"),
        (measure, ["m", "--recipe", "r", "--batch-size", "0"], "--batch-size: must be"),
    ],
)
def test_arguments_are_checked_on_one_line(main, arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_closed_pipe_ends_a_command_quietly():
    code = (
        "import sys; from crossmask.utils.cli import run_command\n"
        "sys.exit(run_command('prog', lambda: [print('line') for _ in range(100_000)] and None, []))"
    )
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first.stdout.readline()
    first.stdout.close()
    assert first.stderr.read() == b""
    assert first.wait() == 141


def test_a_pipe_that_is_not_standard_output_is_named(capsys):
    assert run_command("prog", raising(BrokenPipeError(32, "Broken pipe")), []) == 2
    assert capsys.readouterr().err == "prog: [Errno 32] Broken pipe\n"


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError("[Errno 28] Error writing. Detail: [errno 28] No space")]
)
def test_full_disks_are_named(error, tmp_path):
    with (
        pytest.raises(OSError, match=f"no space left on the device; free space, .*: '{tmp_path}'"),
        naming_full_disks(tmp_path),
    ):
        raise error


def test_other_faults_of_files_stay(tmp_path):
    for error in (OSError(28, "No space left", "there"), FileNotFoundError(2, "none"), ValueError("a bug")):
        with pytest.raises(type(error)) as caught, naming_full_disks(tmp_path):
            raise error
        assert caught.value is error
