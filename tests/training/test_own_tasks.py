"""Tasks of users, each one file that a recipe imports: trained, evaluated and used as the package's own are."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from question_cases import tiny_tokenizer
from tiny_encoders import encoder_config
from training_jobs import SIZES, corpus
from transformers import BertModel, pipeline

from crossmask.cli.main import main
from crossmask.tasks import get_task, registry
from crossmask.utils.errors import InputError
from crossmask.utils.imports import import_all

DOCS = Path(__file__).parents[2] / "docs" / "own-tasks.md"
NAMES = ("ann", "bob", "carl", "dora")
CPU = ["--device", "cpu", "--dtype", "float32", "--quiet"]


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    """Neither tasks nor modules stay behind for other tests."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    yield
    for name in ("correction", "inference_task", "paraphrase"):
        sys.modules.pop(name, None)


def test_the_task_of_the_docs_is_one_file_and_a_recipe(tmp_path, monkeypatch, capsys):
    page = DOCS.read_text()
    code, recipe = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1] for kind in ("python", "yaml"))
    monkeypatch.chdir(tmp_path)
    Path("correction.py").write_text(code)
    pairs = [f"{example.source}\t{example.source.replace('hu', 'ha')}\n" for example in corpus(40)]
    for name in ("train", "dev", "test"):
        Path(f"{name}.tsv").write_text("".join(pairs[: 40 if name == "train" else 6]))
    small = {"model": SIZES, "tokenizer": {"vocab_size": 280}, "max_steps": 2, "eval_strategy": "no"}
    more = {"save_strategy": "no", "load_best_model_at_end": False, "report_to": [], "disable_tqdm": True}
    more |= {"generation": {"max_new_tokens": 4}, "max_source_length": 64, "max_target_length": 64}
    Path("correction.yaml").write_text(yaml.safe_dump(yaml.safe_load(recipe) | small | more))
    assert main(["train", "correction.yaml"]) == 0
    trained = json.loads(Path("runs/correction/metrics.json").read_text())
    assert {"exact_match", "unchanged"} <= set(trained)
    capsys.readouterr()
    assert main(["evaluate", "runs/correction", "--recipe", "correction.yaml", "--json", *CPU]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name: found[name] for name in ("exact_match", "unchanged")} == {
        name: trained[name] for name in ("exact_match", "unchanged")
    }
    bad = "{format: tsv, path: dev.tsv, columns: {wrong: 0, text: 1}}"
    assert main(["evaluate", "runs/correction", "--recipe", "correction.yaml", "--data", bad, *CPU]) == 2
    assert "dev.tsv, record 1: the record must have a column 'right'" in capsys.readouterr().err


def test_a_task_of_two_texts(tmp_path, capsys):
    texts = [
        f"{one} left {other} in the garden ." for one in ("ann", "bob", "carl") for other in ("dora", "ann", "bob")
    ]
    labels = ["entailment", "neutral", "contradiction"]
    rows = [f"{text}\t{texts[n // 2]}\t{labels[n % 3]}\n" for n, text in enumerate(texts)]
    (tmp_path / "nli.tsv").write_text("".join(rows))
    config = encoder_config("bert")
    config.vocab_size = len(tiny_tokenizer())
    torch.manual_seed(0)
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tiny_tokenizer().save_pretrained(tmp_path / "encoder")
    columns = {"premise": 0, "hypothesis": 1, "label": 2}
    data = {"format": "tsv", "path": str(tmp_path / "nli.tsv"), "columns": columns}
    recipe, folder = str(tmp_path / "nli.yaml"), tmp_path / "run"
    values = {
        "imports": [str(Path(__file__).with_name("inference_task.py"))], "task": "natural-language-inference",
        "train": data, "validation": {**data, "limit": 5}, "test": data, "max_source_length": 32, "max_steps": 2,
        "encoder_name_or_path": str(tmp_path / "encoder"), "model": {"initializer_range": 0.3},
        "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "report_to": [],
        "disable_tqdm": True, "output_dir": str(folder),
    }  # fmt: skip
    Path(recipe).write_text(yaml.safe_dump(values))
    assert main(["train", recipe]) == 0
    assert " / " in (folder / "samples.md").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--recipe", recipe, "--json", *CPU]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"] == metrics["accuracy"]
    # The second text counts, in the task's features and in the pipeline, which has the same scores.
    task, classify = get_task("natural-language-inference"), pipeline("text-classification", model=str(folder))
    one, other = (task.example({"premise": texts[0], "hypothesis": text, "label": "neutral"}) for text in texts[4:6])
    scores = [task.output(classify.model, classify.tokenizer, example) for example in (one, other)]
    assert scores[0] != pytest.approx(scores[1], abs=1e-4)
    best = classify({"text": one.source, "text_pair": one.second}, function_to_apply="none")
    best = best[0] if isinstance(best, list) else best
    assert best["score"] == pytest.approx(max(scores[0]), abs=1e-4)
    assert [len(text) for text in task.texts(one)] == [len(one.source), len(one.second)]


def test_the_classifier_of_the_docs(tmp_path, monkeypatch, capsys):
    section = DOCS.read_text().split("# paraphrase.py\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    Path("paraphrase.py").write_text(section)
    rows = [{"first": f"ann sees {one}", "second": f"{one} is there", "label": n % 2} for n, one in enumerate(NAMES)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = encoder_config("bert")
    config.vocab_size = len(tiny_tokenizer())
    BertModel(config).save_pretrained("encoder")
    tiny_tokenizer().save_pretrained("encoder")
    data = {"format": "jsonl", "path": "pairs.jsonl"}
    values = {
        "imports": ["paraphrase.py"], "task": "paraphrase", "train": data, "validation": data, "test": data,
        "encoder_name_or_path": "encoder", "max_source_length": 32, "max_steps": 2, "eval_strategy": "no",
        "save_strategy": "no", "load_best_model_at_end": False, "report_to": [], "disable_tqdm": True,
        "output_dir": "run",
    }  # fmt: skip
    Path("paraphrase.yaml").write_text(yaml.safe_dump(values))
    assert main(["train", "paraphrase.yaml"]) == 0
    trained = json.loads(Path("run/metrics.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", "run", "--recipe", "paraphrase.yaml", "--json", *CPU]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"] == trained["accuracy"]
    # Of another length: bytecode is made anew when the size or the second of the file changes.
    Path("paraphrase.py").write_text(section.replace("def class_names", "def names"))
    sys.modules.pop("paraphrase")
    assert main(["evaluate", "run", "--recipe", "paraphrase.yaml", *CPU]) == 2
    assert "task 'paraphrase' must define class_names; add them to Paraphrase" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/mine.py", "imports must be files that exist, got nowhere/mine.py; correct the path"),
        ("my-task.py", "must be files with the name of a module, got my-task.py"),
        ("random.py", "imports must have names of their own, got .*random.py, but random is"),
        ("no_such_module", "imports must be Python files, such as tasks/mine.py, or installed modules, got 'no_such"),
        ("json.no_such_module", "or installed modules, got 'json.no_such_module'; install it, or correct the name"),
        ("", "or installed modules, got ''; correct the name"),
        ("tasks/mine", "or installed modules, got 'tasks/mine'; correct the name"),
    ],
)
def test_what_cannot_be_imported(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    for file in ("my-task.py", "random.py"):
        Path(file).write_text("raise SystemExit\n")
    with pytest.raises(InputError, match=message):
        import_all([name])


def test_a_module_that_misses_another_says_which(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "misses_another.py").write_text("import no_such_library\n")
    for name in ("misses_another", str(tmp_path / "misses_another.py")):
        with pytest.raises(ModuleNotFoundError, match="no_such_library"):
            import_all([name])


def test_imports_are_a_list(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text("imports: mine.py\n")
    assert main(["train", str(tmp_path / "r.yaml")]) == 2
    assert "imports must be a list" in capsys.readouterr().err


def test_modules_are_imported_once():
    before = sys.modules["json"]
    import_all(["json", "json.decoder"])
    assert sys.modules["json"] is before
