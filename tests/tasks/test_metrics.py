import json
import os
import subprocess
import sys

import evaluate
import pytest

from crossmask.tasks.metrics import FOLDER, load_metric

NAMES = ("seq2seq_qa", "seq2seq_translation")


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
def test_folders_load_with_evaluate_itself(name):
    metric = evaluate.load(str(FOLDER / name))
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
        ([], [], ValueError, "nothing to score: predictions and references are empty; give at least one of each"),
        (["a"], ["a", "b"], ValueError, "1 predictions for 2 references; give one for each"),
        ("a", ["a"], TypeError, "predictions and references must be lists, not one string each"),
        (["a", 2], ["a", "b"], TypeError, "prediction 1 is of type int, not str; give decoded text"),
        (["a", "b"], [["a"], ["b", None]], TypeError, "reference 1 is of type NoneType, not str; give decoded text"),
        (["a"], [[]], ValueError, "reference 0 is an empty list; give at least one text"),
    ],
)
def test_bad_input_is_one_line_and_leaves_the_metric_usable(name, predictions, references, error, message):
    metric = load_metric(name)
    with pytest.raises(error) as caught:
        metric.compute(predictions=predictions, references=references)
    assert str(caught.value) == message
    assert metric.compute(predictions=["a"], references=["a"])["exact_match"] == 100.0


def test_bleu_refuses_what_it_cannot_compare():
    metric = load_metric("seq2seq_translation")
    with pytest.raises(ValueError, match=r"^reference 1 is empty; BLEU needs a text to compare with: drop such rows$"):
        metric.compute(predictions=["a", "b"], references=["a", ""])
    with pytest.raises(ValueError, match=r"^tokenize='14a' is not a tokenizer of sacreBLEU; choose one of: 13a, "):
        metric.compute(predictions=["a"], references=["a"], tokenize="14a")
    assert metric.compute(predictions=["a"], references=["a"])["exact_match"] == 100.0


def test_unknown_metric():
    with pytest.raises(ValueError, match=r"^unknown metric 'bleu'; known metrics: seq2seq_qa, seq2seq_translation$"):
        load_metric("bleu")


def test_loads_offline_from_anywhere_with_a_fresh_home(tmp_path):
    code = (
        "import json, socket\n"
        "def refuse(*args, **kwargs): raise OSError('no network here')\n"
        "socket.create_connection = socket.socket.connect = refuse\n"
        "from crossmask.tasks.metrics import load_metric\n"
        f"print(json.dumps({{name: load_metric(name).compute(predictions=['a b'], references=['a b'])['exact_match']"
        f" for name in {NAMES!r}}}))\n"
    )
    env = os.environ | {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    for name in ("HF_MODULES_CACHE", "HF_EVALUATE_CACHE", "HF_METRICS_CACHE"):
        env.pop(name, None)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys(NAMES, 100.0)
    assert (tmp_path / "hub" / "modules" / "evaluate_modules").is_dir()
