import json
import shutil
import sys
from pathlib import Path

import evaluate
import pytest
from evaluate.loading import get_imports
from new_process import run_code

from crossmask.tasks import Example, get_task, metrics, task_names
from crossmask.tasks.metrics import FOLDER, LIBRARIES, Library, check_libraries, load_metric
from crossmask.tasks.word_tagging import TaggedExample
from crossmask.utils.errors import MissingLibraryError

NAMES = tuple(name for name in LIBRARIES if name.startswith("seq2seq_"))  # of texts and their references


def qa(prediction, references):
    scores = load_metric("seq2seq_qa").compute(predictions=[prediction], references=[references])
    return scores["exact_match"], scores["f1"]


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("The  cat!", "cat", 100, 100),
        ("an apple", "Apple.", 100, 100),
        ("theatre", "atre", 0, 0),  # an article inside a word stays
        ("U.S.", "us", 100, 100),  # punctuation goes without leaving a gap
        ("the-cat", "thecat", 100, 100),  # punctuation goes before articles do
        ("red car", "red red car", 0, 80),  # P = 2/2, R = 2/3: a token counts as often as in both
        ("red red car", "red car", 0, 80),
        ("in the old house", ["house", "in an old house"], 100, 100),
        ("old house", ["house", "the old red house"], 0, 80),  # best of 2/3 and 4/5
        ("", "cat", 0, 0),
        ("the", "a", 100, 0),  # as SQuAD 1.1 has it
        ("für Käse", "Für Käse", 100, 100),
        ("«oui»", "oui", 0, 0),  # only ASCII punctuation is removed
    ],
)
def test_squad_scores_by_hand(prediction, references, exact, f1):
    assert qa(prediction, references) == (exact, pytest.approx(f1))


@pytest.mark.parametrize("name", NAMES)
def test_metrics_load_with_evaluate_itself(name):
    metric = evaluate.load(str(FOLDER / f"{name}.py"))
    scores = metric.compute(predictions=["one two three four"], references=["one two three four"])
    assert scores["exact_match"] == 100.0
    assert metric.compute(predictions=["x"], references=[["y", "x"]])["exact_match"] == 100.0
    assert metric.name == name


@pytest.mark.parametrize("name", NAMES)
def test_batches_add_up(name):
    metric = load_metric(name)
    metric.add_batch(predictions=["one", "two"], references=[["one"], ["deux"]])
    metric.add_batch(predictions=["three", "four"], references=[["three"], ["four"]])
    assert metric.compute()["exact_match"] == 75.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("predictions", "references", "error", "message"),
    [
        ([], [], ValueError, "predictions must have at least one text, got none; give what the model generated"),
        (
            ["a"],
            ["a", "b"],
            ValueError,
            "predictions must have one text for each of 2 references, got 1; give the rest",
        ),
        (
            ["a", "b"],
            ["a"],
            ValueError,
            "predictions must have one text for each of 1 references, got 2; drop the rest",
        ),
        ("a", ["a"], TypeError, "predictions must be a list of texts, got one text 'a'; write [text]"),
        (["a"], "a", TypeError, "references must be a list of texts, got one text 'a'; write [text]"),
        (["a", 2], ["a", "b"], TypeError, "predictions[1] must be text, got int; give decoded text"),
        (["a", "b"], [["a"], ["b", None]], TypeError, "references[1] must be text, got NoneType; give decoded text"),
        (["a"], [[]], ValueError, "references[0] must have at least one text, got none; add one or drop the example"),
    ],
)
def test_bad_input_is_one_line_and_leaves_the_metric_usable(name, predictions, references, error, message):
    metric = load_metric(name)
    with pytest.raises(error) as caught:
        metric.compute(predictions=predictions, references=references)
    assert str(caught.value) == message
    assert metric.compute(predictions=["a"], references=["a"])["exact_match"] == 100.0


def test_scores_of_classes_by_hand():
    metric = load_metric("text_classification")
    scores = metric.compute(predictions=["a", "a", "b", "c"], references=["a", "b", "b", "b"])
    # a: precision 1/2, recall 1. b: precision 1, recall 1/3. c: nothing right, nothing found.
    assert scores == {
        "accuracy": 50.0,
        "precision": pytest.approx(100 * (1 / 2 + 1 + 0) / 3),
        "recall": pytest.approx(100 * (1 + 1 / 3 + 0) / 3),
        "f1": pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3),
    }
    with pytest.raises(TypeError, match=r"^predictions\[1\] must be text, got int"):
        metric.compute(predictions=["a", 1], references=["a", "b"])


def test_bleu_refuses_what_it_cannot_compare():
    metric = load_metric("seq2seq_translation")
    with pytest.raises(
        ValueError, match=r"^references\[1\] must have a text that is not empty for BLEU, got \[''\]; drop"
    ):
        metric.compute(predictions=["a", "b"], references=["a", ""])
    with pytest.raises(
        ValueError, match=r"^tokenize must be one of sacreBLEU's tokenizers, 13a, .*, got '14a'; give "
    ):
        metric.compute(predictions=["a"], references=["a"], tokenize="14a")
    assert metric.compute(predictions=["a"], references=["a"])["exact_match"] == 100.0


def test_every_metric_is_registered_with_the_libraries_that_it_imports():
    core = {"datasets", "evaluate", *sys.stdlib_module_names}
    files = {path.stem: path for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "text_pairs")}
    assert sorted(files) == sorted(LIBRARIES)
    for name, path in files.items():
        imported = {library for kind, library, *_ in get_imports(str(path)) if kind == "library"}
        assert imported - core == {library.name for library in LIBRARIES[name]}


def test_unknown_metric():
    with pytest.raises(ValueError, match=r"^metric must be one of .*seq2seq_qa, .*, got 'bleu'$"):
        load_metric("bleu")


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_is_not_installed_is_named_with_the_command_that_installs_it(name, monkeypatch):
    check_libraries(name)
    monkeypatch.setitem(LIBRARIES, name, (Library("no_such_library", "pip install no-such-library"),))
    message = rf"^the metric {name} needs no_such_library, which is not installed; pip install no-such-library$"
    for needs in (check_libraries, load_metric):
        with pytest.raises(MissingLibraryError, match=message):
            needs(name)


@pytest.mark.parametrize("name", [n for n in task_names() if get_task(n).__module__.startswith("crossmask.")])
def test_a_task_names_the_metrics_that_it_loads(name, monkeypatch):
    loaded = set()
    monkeypatch.setattr(metrics, "check_libraries", loaded.add)
    task = get_task(name)
    examples = [Example("a b", "c d", ("c d",))]
    if "semantic_roles" in task.metric_modules:
        examples = [TaggedExample.of(["a", "b"], ["B-V", "O"], 0)]
    task.metrics([task.perfect_prediction(examples[0])], examples)
    assert loaded == set(task.metric_modules)


REPORT = """
import json, sys
import evaluate
scores = {}
for path in sys.argv[1:]:
    metric = evaluate.load(path)
    scores[metric.name] = metric.compute(predictions=["a b"], references=["a b"])["exact_match"]
print(json.dumps(scores))
"""


def run_with_empty_caches(code: str, home: Path, *arguments: str, has_crossmask: bool) -> str:
    """The last line that the code prints, run in `home` without a network and with nothing in the caches."""
    refuse = "import socket\ndef refuse(*args, **kwargs): raise OSError('no network here')\n"
    refuse += "socket.create_connection = socket.socket.connect = refuse\n"
    environment = {"HF_HOME": str(home / "hub"), "HOME": str(home)}
    printed = run_code(refuse + code, *arguments, cwd=home, has_crossmask=has_crossmask, **environment)
    assert (home / "hub" / "modules" / "evaluate_modules").is_dir()
    return printed.splitlines()[-1]


def test_a_copy_of_the_files_loads_where_crossmask_is_not(tmp_path):
    copy = shutil.copytree(FOLDER, tmp_path / "metrics", ignore=shutil.ignore_patterns("__*"))
    paths = [str(copy / f"{name}.py") for name in NAMES]
    scores = json.loads(run_with_empty_caches(REPORT, tmp_path, *paths, has_crossmask=False))
    assert scores == dict.fromkeys(NAMES, 100.0)
    copied = {path.name for path in (tmp_path / "hub" / "modules").rglob("*.py")}
    assert copied == {"__init__.py", "text_pairs.py", *(f"{name}.py" for name in NAMES)}


def test_metrics_load_offline_from_anywhere_with_a_fresh_home(tmp_path):
    code = (
        "import json\n"
        "from crossmask.tasks.metrics import load_metric\n"
        "print(json.dumps({name: load_metric(name).compute(predictions=['a b'], references=['a b'])['exact_match']"
        f" for name in {NAMES!r}}}))\n"
    )
    assert json.loads(run_with_empty_caches(code, tmp_path, has_crossmask=True)) == dict.fromkeys(NAMES, 100.0)
