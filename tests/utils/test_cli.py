"""The one boundary of all commands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from crossmask.cli.main import main
from crossmask.configuration.crossmask import CrossMaskConfig
from crossmask.masks.expressions import MaskError
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
    "arguments",
    [
        ["translate", "model", "a\udcff"],
        ["mask", "full()", "--source", "a \udcff"],
        ["latency", "\udcff", "--recipe", "x"],
    ],
)
def test_arguments_are_text(arguments, capsys):
    assert main(arguments) == 2
    assert re.search(r"argument \d of the command line must be valid Unicode, got", capsys.readouterr().err)


TRANSLATE, MEASURE = ["translate", "m"], ["latency", "m", "--recipe", "r"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [*TRANSLATE, "--num-beams", "0"],
            "'--num-beams': must be a whole number of at least 1, got '0'; see",
        ),
        (
            [*TRANSLATE, "--max-new-tokens", "many"],
            "must be a whole number of at least 1, got 'many'",
        ),
        ([*TRANSLATE, "--max-source-length", "0"], "'--max-source-length': must be a whole number"),
        ([*TRANSLATE, "--batch-tokens", "1.5"], "'--batch-tokens': must be a whole number of at least 1, got '1.5'"),
        ([*TRANSLATE, "--seed", "-1"], "'--seed': must be a whole number of at least 0, got '-1'"),
        ([*TRANSLATE, "--temperature", "nan"], "'--temperature': must be a finite number above 0, got 'nan'"),
        ([*TRANSLATE, "--temperature", "0"], "must be a finite number above 0, got '0'"),
        ([*TRANSLATE, "--length-penalty", "inf"], "'--length-penalty': must be a finite number, got 'inf'"),
        ([*TRANSLATE, "--dtype", "int4"], "'int4' is not one of"),
        ([*TRANSLATE, "--dtype", "int8"], "dtype must be one of auto, saved, float32, bfloat16, float16, got 'int8'"),
        ([*TRANSLATE, "--beams", "3"], "No such option: --beams"),
        (["translate"], "Missing argument 'MODEL'; see crossmask translate --help"),
        (["translat"], "crossmask: No such command 'translat'"),
        ([*MEASURE, "--k", "0"], "--k must be whole numbers of at least 1, got 0"),
        ([*MEASURE, "--k", "one"], "must be whole numbers separated by commas, got 'one'"),
        ([*MEASURE, "--align-att", "-1"], "--align-att must be whole numbers of at least 0, got -1"),
        ([*MEASURE, "--limit", "0"], "'--limit': must be"),
        ([*MEASURE, "--batch-size", "0"], "'--batch-size': must be"),
    ],
)
def test_arguments_are_checked_on_one_line(arguments, message, capsys):
    assert main(arguments) == 2
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
