"""`crossmask mask`: what it prints and draws, and one line for what it refuses."""

import pytest
from command_line import command

from crossmask import masks

main = command("mask")


def test_command_refuses_a_contradiction(capsys):
    assert main(["window(0) & ~window(0)"]) == 2
    assert "never allows anything" in capsys.readouterr().err
    assert main(["~full()"]) == 0


def test_command_prints_and_draws(tmp_path, capsys):
    file = tmp_path / "mask.png"
    assert main(["wait_k(3) & window(8)", "--source", "12", "--target", "10", "--png", str(file)]) == 0
    assert capsys.readouterr().out == masks.picture("wait_k(3) & window(8)", 12, 10) + "\n"
    assert file.stat().st_size > 1000


def test_command_takes_tokens(capsys):
    assert main(["causal()", "--source", "a b c", "--target", "2"]) == 0
    assert capsys.readouterr().out == masks.picture("causal()", source_tokens=["a", "b", "c"], target=2) + "\n"


def test_command_draws_a_small_gallery(tmp_path):
    file = tmp_path / "gallery.png"
    assert main(["--gallery", str(file)]) == 0
    assert 10_000 < file.stat().st_size < 300_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["full()", "--head", "-1"], "head must be a number from 0, got -1"),
        (["full()", "--layer", "-1"], "layer must be a number from 0, got -1"),
        (["full()", "--head", "9" * 30], "head must be a number from 0"),
        (["full()", "--head", "1000000"], "a picture must have at most 4,194,304 cells"),
        (["heads({'0-999999999': full()})"], "a picture must have at most 4,194,304 cells"),
        (["full()", "--source", "100000000"], "got 100000000 rows, 100000000 columns and 1 head"),
        (["full()", "--source", "3000", "--target", "3000"], "got 3000 rows, 3000 columns and 1 head"),
        (["full()", "--source", "9" * 5000], "--source must be a number of tokens of at most 9 digits"),
        (["full()", "--source", "0"], "source must be at least 1 token, got 0"),
        (["full()", "--target", "-3"], "target must be at least 1 token, got -3"),
        (["full()", "--source", ""], "source must be at least 1 token"),
        ([""], "it is an empty text"),
        (["\udcff()"], "must be valid Unicode"),
        (
            ["full()", "--png", "there/is/none/mask.png"],
            "the folder of a file must exist, got 'there/is/none/mask.png'",
        ),
        (["--gallery", "there/is/none/\udcff.png"], "argument 3 of the command line must be valid Unicode"),
    ],
)
def test_command_refuses_what_it_cannot_show(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert error.rstrip().isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wait_k(0)"], "k must be an integer of at least 1"),
        (["full()", "--source", "-1"], "source must be at least 1"),
        (["full()", "--source", "9" * 5000], "--source must be a number of tokens of at most 9 digits"),
        (["full()", "--png", "/proc/nowhere/mask.png"], "/proc/nowhere"),
    ],
)
def test_command_reports_errors_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["full()", "--gallery", "x.png"],
        ["--gallery", "x.png", "--source", "3"],
        ["--gallery", "x.png", "--png", "y.png"],
        ["full()", "--sauce", "3"],
        ["full()", "--png", ""],
    ],
)
def test_command_reports_usage_in_one_line(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
