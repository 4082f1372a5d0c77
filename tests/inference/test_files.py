"""Files of lines: what is written, and that a run which was stopped goes on."""

import gzip
import io
import json
import sys

import pytest
import torch
from command_line import command
from stopped_runs import stopped_at
from streaming_cases import TEXTS, tiny

from crossmask import translate_batch
from crossmask.data.sources import load_split
from crossmask.inference import files

main = command("translate")

LINES = [*TEXTS, "", "a small dog", "  ", "two\tcats", *reversed(TEXTS)]
QUIET = ("--quiet", "--device", "cpu", "--dtype", "float32")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    for part in tiny():
        part.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def short_portions(monkeypatch):
    monkeypatch.setattr(files, "PORTION", 5)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt.gz"
    path.write_bytes(gzip.compress("\n".join(LINES).encode()))
    return path


def expected(lines: list[str], **options) -> list[str]:
    model, tokenizer = tiny()
    made = translate_batch(model, tokenizer, lines, progress=False, **options)
    return [text if line.strip() else "" for text, line in zip(made, lines, strict=True)]


def test_every_line_has_its_own(model, lines, tmp_path):
    output = tmp_path / "out.txt"
    arguments = [str(model), str(lines), "--output", str(output), *QUIET]
    assert main([*arguments, "--num-beams", "3", "--cross-mask", "wait_k(2)", "--max-new-tokens", "6"]) == 0
    wanted = expected(LINES, num_beams=3, cross_mask="wait_k(2)", max_new_tokens=6)
    assert output.read_text().splitlines() == wanted
    assert len(set(wanted)) > 3
    assert {path.name for path in tmp_path.iterdir()} == {"lines.txt.gz", "out.txt"}


def test_pairs_are_a_source_for_training(model, lines, tmp_path):
    output = tmp_path / "back.tsv.gz"
    assert main([str(model), str(lines), "--output", str(output), "--pairs", *QUIET]) == 0
    records = load_split({"format": "tsv", "path": str(output)})
    kept = [line for line in LINES if line.strip()]
    assert records["target"][:] == [line.replace("\t", " ") for line in kept]
    assert records["source"][:] == expected(kept)


def test_a_stream_is_a_stream(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(LINES).encode())))
    assert main([str(model), *QUIET]) == 0
    assert capsys.readouterr().out.splitlines() == expected(LINES)


def test_samples_hang_on_the_seed(model, lines, tmp_path):
    texts = {}
    for name, seed in (("one", "1"), ("again", "1"), ("two", "2")):
        arguments = [str(lines), "--output", str(tmp_path / name), "--sample", "--seed", seed, *QUIET]
        assert main([str(model), *arguments]) == 0
        texts[name] = (tmp_path / name).read_text()
    assert texts["one"] == texts["again"] != texts["two"]
    made = texts["one"].splitlines()
    assert made[0] != made[-4]  # LINES[0] and the same again, in another portion


@pytest.mark.parametrize("name", ["out.txt", "out.txt.gz"])
def test_a_run_that_was_stopped_goes_on(model, lines, tmp_path, monkeypatch, capsys, name):
    arguments = [str(model), str(lines), "--sample", "--pairs", *QUIET, "--output"]
    assert main([*arguments, str(tmp_path / f"whole-{name}")]) == 0
    portion, done = files.LineTranslator.portion, []

    def note(self, lines, number, bar):
        done.append(number)
        return portion(self, lines, number, bar)

    output = tmp_path / name
    with stopped_at(2, monkeypatch):
        assert main([*arguments, str(output)]) == 130
    assert not output.exists()
    capsys.readouterr()
    assert main([*arguments, str(output), "--seed", "3"]) == 2
    assert "was begun, got 3; give the same to continue, choose another" in capsys.readouterr().err
    monkeypatch.setattr(files.LineTranslator, "portion", note)
    assert main([*arguments, str(output)]) == 0
    assert done == [2]
    assert output.read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    assert not output.with_name(f"{name}.parts").exists()
    assert main([*arguments, str(output)]) == 2
    assert f"{name} must not exist yet; delete it, or choose another output" in capsys.readouterr().err


def stopped_after_a_portion(monkeypatch, arguments):
    with stopped_at(1, monkeypatch):
        assert main(arguments) == 130


@pytest.mark.parametrize("stdin", [False, True])
def test_a_run_does_not_go_on_with_other_lines(model, tmp_path, monkeypatch, capsys, stdin):
    path, output = tmp_path / "lines.txt", tmp_path / "out.txt"
    arguments = [str(model), "--output", str(output), *QUIET] + ([] if stdin else [str(path)])

    def give(lines):
        path.write_text("\n".join(lines))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))

    give(LINES)
    stopped_after_a_portion(monkeypatch, arguments)
    capsys.readouterr()
    give([*LINES[:4], "two dogs", *LINES[5:]])
    assert main(arguments) == 2
    parts = output.with_name("out.txt.parts")
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"crossmask translate: lines 1 to 5 must be those that {output} was begun with, got others; "
        f"give the same input to continue, choose another output, or delete {parts}"
    )
    later = [*LINES[:5], "two dogs", *LINES[6:]]  # nothing was made of that line yet
    give(later)
    assert main(arguments) == 0
    assert output.read_text().splitlines() == expected(later)


def retrain(model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight[7, 3] += 1


def widen_the_mask(model, tokenizer):
    model.config.encoder_mask = "full()"


def ask_for_beams(model, tokenizer):
    model.generation_config.num_beams = 2


def learn_another_subword(model, tokenizer):
    tokenizer.add_tokens(["barking"])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (retrain, "weights"),
        (widen_the_mask, "config"),
        (ask_for_beams, "config"),
        (learn_another_subword, "tokenizer"),
    ],
)
def test_a_run_does_not_go_on_with_another_model(lines, tmp_path, monkeypatch, capsys, change, what):
    folder, output = tmp_path / "model", tmp_path / "out.txt"
    arguments = [str(folder), str(lines), "--output", str(output), *QUIET]
    for part in tiny():
        part.save_pretrained(folder)
    stopped_after_a_portion(monkeypatch, arguments)
    capsys.readouterr()
    other = tiny()
    change(*other)
    for part in other:
        part.save_pretrained(folder)
    assert main(arguments) == 2
    message = f"that {output} was begun with, got another {what}; give the same to continue, choose another output, or"
    assert message in capsys.readouterr().err.splitlines()[-1]
    for part in tiny():
        part.save_pretrained(folder)
    assert main(arguments) == 0
    assert output.read_text().splitlines() == expected(LINES)


def test_a_prefix_is_read_and_not_written(model, lines, tmp_path):
    output = tmp_path / "out.tsv"
    arguments = [str(model), str(lines), "--output", str(output), "--pairs", *QUIET]
    assert main([*arguments, "--source-prefix", "dogs "]) == 0
    first = output.read_text().splitlines()[0]
    assert first.split("\t") == [*expected([f"dogs {LINES[0]}"]), LINES[0]]


@pytest.mark.parametrize(("overlong", "lost"), [("truncate", 0), ("drop", 2)])
def test_long_lines(model, lines, tmp_path, capsys, overlong, lost):
    arguments = [str(model), str(lines), "--max-source-length", "15", *QUIET]
    assert main(arguments) == 2
    assert (
        "line 3 must have at most 15 tokens, got 17; shorten it, or give --overlong split," in capsys.readouterr().err
    )
    assert main([*arguments, "--overlong", overlong]) == 0
    made = capsys.readouterr().out.splitlines()
    whole = expected(LINES)
    assert len(made) == len(LINES)
    assert sum(not text for text in made) == 2 + lost
    assert [a == b for a, b in zip(made, whole, strict=True)].count(False) == 2


def test_the_bar_counts_lines(model, lines, tmp_path, capsys):
    assert main([str(model), str(lines), "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert f"{len(LINES)}/{len(LINES)}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "no.txt"], "no.txt must be a text file"),
        (["/no/model", "LINES"], "/no/model"),
        (["MODEL", "LINES", "--top-p", "0.5"], "--top-p must come with --sample"),
        (["MODEL", "LINES", "--max-source-length", "65"], "must be from 2 to the model's 64, got 65"),
        (["MODEL", "LINES", "--cross-mask", "wait(3)"], "wait"),
        (["MODEL", "LINES", "--cross-mask", "keep(examples=(((0, 1),),))"], "must not be laid out"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(model, lines, capsys, arguments, message):
    assert main([{"MODEL": str(model), "LINES": str(lines)}.get(word, word) for word in arguments] + [*QUIET]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]  # behind the bar that Transformers has for weights
    assert line.startswith("crossmask translate: ")
    assert message in line


@pytest.mark.parametrize("given", ["gpu", "cuda", "cuda:1", "meta", ""])
def test_a_device_that_is_not_there_is_named_before_anything_is_read(monkeypatch, capsys, given):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    assert main(["/no/model", "no.txt", "--device", given]) == 2
    assert f"crossmask translate: device must be one of cpu, got {given!r}" in capsys.readouterr().err


def test_the_devices_that_are_there_are_named(monkeypatch, capsys):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert main(["/no/model", "--device", "cuda:2"]) == 2
    assert "device must be one of cpu, cuda, cuda:0, cuda:1, got 'cuda:2'" in capsys.readouterr().err
    assert main(["/no/model", "--device", "cuda:1"]) == 2
    assert "/no/model" in capsys.readouterr().err


def test_two_runs_do_not_share_an_output(model, lines, tmp_path, monkeypatch, capsys):
    output, portion, seen = tmp_path / "out.txt", files.LineTranslator.portion, []
    arguments = [str(model), str(lines), "--output", str(output), *QUIET]

    def run_beside(self, lines, number, bar):
        if not seen:
            seen.append(main(arguments))
        return portion(self, lines, number, bar)

    monkeypatch.setattr(files.LineTranslator, "portion", run_beside)
    assert main(arguments) == 0
    assert seen == [2]
    assert (
        f"{output} must not be in use by another run; wait for it, or choose another output" in capsys.readouterr().err
    )
    assert output.read_text().splitlines() == expected(LINES)
    assert {path.name for path in tmp_path.iterdir()} == {"lines.txt.gz", "out.txt"}


def test_what_a_killed_run_was_writing_goes(model, lines, tmp_path, monkeypatch):
    output, parts = tmp_path / "out.txt", tmp_path / "out.txt.parts"
    arguments = [str(model), str(lines), "--output", str(output), *QUIET]
    stopped_after_a_portion(monkeypatch, arguments)
    (parts / ".000001-abc.4711.tmp").write_text("half a por")
    (parts / ".whole.tmp").write_text("half of all")
    portion, seen = files.LineTranslator.portion, []

    def look(self, lines, number, bar):
        seen.extend(parts.glob(".*.tmp"))
        return portion(self, lines, number, bar)

    monkeypatch.setattr(files.LineTranslator, "portion", look)
    assert main(arguments) == 0
    assert not seen
    assert output.read_text().splitlines() == expected(LINES)


def test_a_full_disk_is_named_and_the_run_goes_on(model, lines, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out.txt"
    arguments = [str(model), str(lines), "--output", str(output), *QUIET]

    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", full)
        assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no space left on the device; free space and give the same command to continue" in error
    assert f"{output}.parts" in error
    assert main(arguments) == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"seed": 0}', '{"digests": 3}'])
def test_settings_that_cannot_be_read(model, lines, tmp_path, monkeypatch, capsys, text):
    output = tmp_path / "out.txt"
    arguments = [str(model), str(lines), "--output", str(output), *QUIET]
    stopped_after_a_portion(monkeypatch, arguments)
    (tmp_path / "out.txt.parts" / "settings.json").write_text(text)
    assert main(arguments) == 2
    assert f"{output}.parts/settings.json" in capsys.readouterr().err.splitlines()[-1]


def test_json_keeps_what_a_line_cannot_have(model, lines, capsys):
    assert main([str(model), str(lines), "--json", *QUIET]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(row) for row in rows] == [["translation_text"]] * len(LINES)
    assert [" ".join(row["translation_text"].split()) for row in rows] == [
        " ".join(x.split()) for x in expected(LINES)
    ]
    assert main([str(model), str(lines), "--json", "--pairs", *QUIET]) == 2
    assert "--json must be left out beside --pairs" in capsys.readouterr().err


def test_long_lines_are_split_into_sentences(model, tmp_path, capsys):
    path = tmp_path / "long.txt"
    sentences = [f"{text}." for text in (TEXTS[1], TEXTS[3], TEXTS[1])]
    path.write_text(f"{sentences[0]}  {sentences[1]} {sentences[2]}\n{sentences[1]}\n")
    split = [str(model), str(path), "--overlong", "split", "--max-source-length", "10", *QUIET]
    assert main(split) == 0
    one, two, three = expected(sentences)
    assert capsys.readouterr().out.splitlines() == [f"{one}  {two} {three}", two]
    path.write_text(f"{TEXTS[2]}, {TEXTS[0]}. {TEXTS[1]}\n")
    assert main(split) == 2
    assert "line 1: the sentence 'the old man" in capsys.readouterr().err


def test_a_language_has_rules_of_its_own_where_the_library_is_installed(model, lines, monkeypatch, capsys):
    split = [str(model), str(lines), "--language", "en", *QUIET]
    assert main(split) == 2
    assert "--language must come with --overlong split" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sentencex", None)
    assert main([*split, "--overlong", "split"]) == 2
    assert "--language needs sentencex, which is not installed; pip install sentencex" in capsys.readouterr().err
