"""The quality/latency curve of a tiny model."""

import json

import pytest
import yaml
from command_line import command
from new_process import run_code
from streaming_cases import REFERENCES, TEXTS, tiny
from transformers import BartConfig, BartForConditionalGeneration

from crossmask.streaming.latency import Latency
from crossmask.streaming.text import translate

main = command("latency")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = tiny()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "s.txt").write_text("\n".join(TEXTS) + "\n")
    (folder / "t.txt").write_text("\n".join(REFERENCES) + "\n")
    test = {"format": "lines", "source": str(folder / "s.txt"), "target": str(folder / "t.txt")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"task": "translation", "test": test}))
    return folder


def test_the_prefix_is_that_of_the_recipe_or_the_model(saved, tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    model, tokenizer = tiny()
    model.config.task_specific_params = {"translation": {"prefix": "the man "}}
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    recipe = yaml.safe_load((saved / "recipe.yaml").read_text())
    for prefix, own in (("the man ", {}), ("a ", {"source_prefix": "a "})):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump({**recipe, **own}))
        assert main([str(tmp_path), "--recipe", str(tmp_path / "r.yaml"), "--k", "3", "--no-offline"]) == 0
        log = (tmp_path / "streaming" / "instances-wait-3.log").read_text().splitlines()
        rows = list(translate(model, tokenizer, TEXTS, prefix=prefix, cross_mask="wait_k(3)"))
        assert [json.loads(line)["prediction"] for line in log] == [row.text for row in rows]
        assert [json.loads(line)["delays"] for line in log] == [row.delays for row in rows]


def test_table_picture_and_logs(saved, tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    arguments = [str(saved), "--recipe", str(saved / "recipe.yaml"), "--output", str(tmp_path)]
    assert main([*arguments, "--k", "1,5", "--align-att", "2", "--batch-size", "2"]) == 0
    rows = json.loads((tmp_path / "curve.json").read_text())
    assert [row["policy"] for row in rows] == ["wait-1", "wait-5", "AlignAtt 2", "offline"]
    lag = {row["policy"]: row["AL"] for row in rows}
    assert lag["wait-1"] < lag["wait-5"] <= lag["offline"]
    assert lag["AlignAtt 2"] <= lag["offline"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "curve.md").read_text().splitlines()
    assert lines[0] == "| policy | sacrebleu | AL | LAAL | DAL |"
    assert lines[2].startswith("| wait-1 |")
    log = [json.loads(line) for line in (tmp_path / "instances-wait-5.log").read_text().splitlines()]
    assert [entry["source"] for entry in log] == list(TEXTS)
    again = Latency.of([e["delays"] for e in log], [e["source_length"] for e in log], [e["reference"] for e in log])
    assert pytest.approx(lag["wait-5"]) == again.AL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--recipe", "nothing.yaml"], "nothing.yaml must be a text file"),
        (["nowhere", "--recipe", "nothing.yaml", "--k", "", "--no-offline"], "must leave something to measure"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_model_that_looks_ahead_is_refused(saved, tmp_path, capsys):
    model, tokenizer = tiny(encoder_mask="full()")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert main([str(tmp_path), "--recipe", str(saved / "recipe.yaml")]) == 2
    assert "encoder_mask full() looks ahead" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("[" * 3000, "recipe.yaml: must be valid YAML: nested too deep"),
        ("a: 1\n b: 2", "recipe.yaml, line 2, column 3: must be valid YAML"),
        ("- 1", "recipe.yaml must be a recipe with `test`"),
        ("test: 3", "recipe.yaml must be a recipe with `test`"),
        ("test: {format: cldr}\ntask: 3", "recipe.yaml: task must be text, got 3"),
        ("test: {format: cldr}\ntask: nonsense", "unknown task 'nonsense'"),
        ("test: {format: cldr}\ntask_options: [1]", "recipe.yaml: task_options must be a mapping, got [1]"),
        ("test: {format: cldr}\ntask_options: {lowercase: 3}", "task option lowercase must be true or false, got 3"),
        ("test: {format: cldr, seed: x}", "test: seed must be a whole number, got 'x'"),
        ("test: []", "test must have at least one source, got an empty list"),
        ("test: {format: tsv, path: no.tsv}", "test: no.tsv must be a text file"),
    ],
)
def test_a_bad_recipe_is_one_line(tmp_path, capsys, recipe, message):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe)
    assert main(["nowhere", "--recipe", str(file)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_model_that_is_not_there_and_one_that_does_not_stream(saved, tmp_path, capsys):
    arguments = ["--recipe", str(saved / "recipe.yaml")]
    assert main([str(tmp_path / "none"), *arguments]) == 2
    assert "none' must be a folder that holds a model" in capsys.readouterr().err
    _, tokenizer = tiny()
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    BartForConditionalGeneration(BartConfig(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert main([str(tmp_path), *arguments]) == 2
    assert "must be a crossmask model, got BartForConditionalGeneration" in capsys.readouterr().err


INSTALLS = {"matplotlib": "pip install 'crossmask[plots]'", "sacrebleu": "pip install sacrebleu"}


def test_a_missing_library_is_named_before_anything_is_translated(tmp_path):
    """The model and the data are nowhere, so that reading them first would be another error."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: translation\ntest: {format: tsv, path: nowhere.tsv}\n")
    code = """
    import contextlib, io

    recipe, *libraries = sys.argv[1:]
    sys.modules.update(dict.fromkeys(libraries))  # none of which can be imported
    from crossmask.cli.main import main

    for library in libraries:
        for other in libraries:
            sys.modules.pop(other, None)
        sys.modules[library] = None
        with contextlib.redirect_stderr(io.StringIO()) as error:
            assert main(["latency", "nowhere", "--recipe", recipe]) == 2
        print(error.getvalue().splitlines()[-1])
    """
    lines = run_code(code, recipe, *INSTALLS, cwd=tmp_path, has_crossmask=True).splitlines()
    for line, install in zip(lines, INSTALLS.values(), strict=True):
        assert install in line
