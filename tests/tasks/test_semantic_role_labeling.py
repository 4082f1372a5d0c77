import pytest
import torch
from question_cases import tiny_tokenizer
from tiny_encoders import encoder_config
from transformers import BertForTokenClassification, BertModel, DistilBertForTokenClassification

from crossmask import CrossMaskForTokenClassification
from crossmask.heads.bio import spans_of_tags
from crossmask.tasks import Example, get_task
from crossmask.tasks.base import LengthLimits
from crossmask.tasks.metrics import load_metric
from crossmask.tasks.word_tagging import Tagged

ROLES = ["V", "ARG0", "ARG1", "ARGM-LOC"]
LIMITS = LengthLimits(24, 1)


@pytest.fixture
def task():
    return get_task("semantic-role-labeling", roles=ROLES)


def record(words: str, tags: str, predicate=1, **extra) -> dict:
    return {"words": words.split(), "tags": tags.split(), "predicate": predicate, **extra}


ANN = record("ann left bob in the kitchen", "B-ARG0 B-V B-ARG1 B-ARGM-LOC I-ARGM-LOC I-ARGM-LOC")
BOB = record("bob sits there", "B-ARG0 B-V O", "1", group="short")


def model_of(task, kind: str):
    torch.manual_seed(0)
    config = encoder_config("bert")
    config.vocab_size = len(tiny_tokenizer())
    if kind == "bert":
        config.id2label = task.class_fields["id2label"]
        return BertForTokenClassification(config).eval()
    fields = {**task.new_fields, "initializer_range": 0.3}
    return CrossMaskForTokenClassification.from_encoder_pretrained(BertModel(config), **fields)


# Each by hand: predicted tags, right tags, and how many arguments are right, predicted and wanted.
HAND_SCORED = {
    "all right, the predicate does not count": ("B-A0 B-V B-A1 I-A1", "B-A0 B-V B-A1 I-A1", 2, 2, 2),
    "another label": ("B-A1 B-V O", "B-A0 B-V O", 0, 1, 1),
    "a word too few": ("B-A0 B-V O", "B-A0 B-V O", 1, 1, 1),
    "other words": ("B-A0 O B-V", "B-A0 I-A0 B-V", 0, 1, 1),
    "nothing found": ("O B-V O", "B-A0 B-V B-A1", 0, 0, 2),
    "nothing to find": ("B-A0 B-V O", "O B-V O", 0, 1, 0),
    "the predicate elsewhere": ("B-V B-A1", "B-A1 B-V", 0, 1, 1),
    "two arguments side by side": ("B-A1 I-A1 B-V", "B-A1 B-A1 B-V", 0, 1, 2),
    "a discontinuous argument is one": ("B-A1 B-V B-C-A1 I-C-A1", "B-A1 B-V B-C-A1 I-C-A1", 1, 1, 1),
    "half of a discontinuous argument is none": ("B-A1 B-V O O", "B-A1 B-V B-C-A1 I-C-A1", 0, 1, 1),
    "its second part with other words": ("B-A1 B-V B-C-A1 O", "B-A1 B-V B-C-A1 I-C-A1", 0, 1, 1),
    "a part without a first one": ("B-C-A1 B-V O", "B-A1 B-V O", 1, 1, 1),
    "a part goes on with the nearest before it": ("B-A1 B-A1 B-V B-C-A1", "B-A1 B-A1 B-V B-C-A1", 2, 2, 2),
    "a part of the predicate does not count": ("B-V B-A1 B-C-V", "B-V B-A1 O", 1, 1, 1),
    "a pronoun has a label of its own": ("B-R-A0 B-V O", "B-A0 B-V O", 0, 1, 1),
}


@pytest.mark.parametrize("case", HAND_SCORED)
def test_scores_of_conll_2005_by_hand(case):
    predicted, wanted, right, found, there = HAND_SCORED[case]
    scores = load_metric("semantic_roles").compute(predictions=[predicted.split()], references=[wanted.split()])
    assert scores["precision"] == pytest.approx(100 * right / max(found, 1))
    assert scores["recall"] == pytest.approx(100 * right / max(there, 1))
    assert scores["f1"] == pytest.approx(200 * right / max(found + there, 1))
    assert scores["exact_match"] == 100 * (right == found == there)


def test_scores_are_over_all_predicates_and_each_group(task):
    cases = [(one.split(), other.split()) for one, other, *_ in HAND_SCORED.values()]
    right, found, there = (sum(case[at] for case in HAND_SCORED.values()) for at in (2, 3, 4))
    scores = load_metric("semantic_roles").compute(
        predictions=[case[0] for case in cases], references=[case[1] for case in cases]
    )
    assert scores["precision"] == pytest.approx(100 * right / found)
    assert scores["recall"] == pytest.approx(100 * right / there)
    examples = [task.example(ANN), task.example(BOB)]
    predictions = [Tagged(examples[0].tags), Tagged(("B-ARG1", "B-V", "O"))]
    scores = task.metrics(predictions, examples)
    assert scores["f1"] == pytest.approx(100 * 2 * 3 / 8)
    assert (scores["f1_short"], scores["exact_match"], scores["exact_match_short"]) == (0, 50, 0)
    assert set(task.metric_names(examples)) == {*scores}
    with pytest.raises(TypeError, match="prediction 0 must be Tagged, got tuple"):
        task.metrics([()], examples[:1])


@pytest.mark.parametrize(
    ("predictions", "references", "error", "message"),
    [
        ([], [], ValueError, "predictions must be one for each of 0 references, at least one, got 0"),
        ([["O"]], [["O"], ["O"]], ValueError, "predictions must be one for each of 2 references"),
        ([["O"]], [["O", "O"]], ValueError, r"predictions\[0\] must have a tag for each of 2 words, got 1"),
        ([["A0"]], [["O"]], ValueError, r"predictions\[0\] must have the tags O, B-label or I-label, got 'A0'"),
        (["O"], [["O"]], TypeError, r"predictions\[0\] must be a list of tags, got 'O'"),
        ([[None]], [["O"]], TypeError, r"predictions\[0\] must be a list of tags"),
    ],
)
def test_tags_that_cannot_be_scored(predictions, references, error, message):
    with pytest.raises(error, match=message):
        load_metric("semantic_roles").compute(predictions=predictions, references=references)


def test_a_record_is_a_sentence_with_its_predicate(task):
    example = task.example(ANN)
    assert example.source == "ann left bob in the kitchen"
    assert example.target == "[ARG0 ann ] [V left ] [ARG1 bob ] [ARGM-LOC in the kitchen ]"
    assert (example.marked, example.group) == (1, None)
    assert (task.example(BOB).marked, task.example(BOB).group) == (1, "short")
    assert len(get_task("semantic-role-labeling").class_names) == 1 + 2 * (2 + 3 * 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tags": ["O"]}, "tags must be one for each of 6 words, got 1"),
        ({"tags": ["O"] * 5 + ["B-ARG7"]}, "the tag 'B-ARG7' must be O, or B- or I- before one of the task's roles"),
        ({"words": "ann left"}, "column 'words' must be a list of texts, got 'ann left'"),
        ({"words": []}, "column 'words' must be a list of texts"),
        ({"words": ["ann", " ", "b", "c", "d", "e"]}, "column 'words' must be a list of texts"),
        ({"predicate": 6}, "column 'predicate' must be the number of a word, 0 to 5, got 6"),
        ({"predicate": "left"}, "column 'predicate' must be the number of a word, 0 to 5, got 'left'"),
    ],
)
def test_records_that_cannot_be_used(task, change, message):
    with pytest.raises(ValueError, match=message):
        task.example({**ANN, **change})
    with pytest.raises(ValueError, match="must have a column 'predicate'"):
        task.example({"words": ["a"], "tags": ["O"]})


def test_what_does_not_fit_the_task(task):
    with pytest.raises(ValueError, match="roles must be one label or more, each another"):
        get_task("semantic-role-labeling", roles=["V", "V"])
    with pytest.raises(ValueError, match="tag must be left out"):
        task.tagged(task.example(ANN), "<BT>")
    with pytest.raises(TypeError, match="an example must be a TaggedExample, got Example"):
        task.perfect_prediction(Example("", "", ("",)))
    model = DistilBertForTokenClassification(encoder_config("distilbert"))
    with pytest.raises(ValueError, match="has neither marks nor token types to mark a word by; give encoder_name"):
        task.check_model(model, packed=False)


def test_labels_are_at_the_first_tokens_of_words_and_marks_at_all_of_the_predicate(task):
    odd = record("ann zzz bob", "B-ARG0 B-V B-ARG1")  # zzz has three tokens
    columns = task.features(["a"], [task.example(odd)], tiny_tokenizer(), LIMITS)
    names = task.class_names
    assert [label if label < 0 else names[label] for label in columns["labels"][0]] == [
        -100, "B-ARG0", "B-V", -100, -100, "B-ARG1", -100,
    ]  # fmt: skip
    assert columns["marker_ids"] == [[0, 0, 1, 1, 1, 0, 0]]
    assert columns["first_tokens"] == [[1, 2, 5]]


def test_sentences_over_the_limit(task):
    long = task.example(record("ann left " + "bob " * 30, "B-ARG0 B-V B-ARG1 " + "I-ARG1 " * 29))
    cut = task.features(["a"], [long], tiny_tokenizer(), LengthLimits(10, 1, "truncate"))
    assert len(cut["input_ids"][0]) == 10
    assert cut["first_tokens"][0] == [1, 2, 3, 4, 5, 6, 7, 8, *[-1] * 24]
    assert task.features(["a"], [long], tiny_tokenizer(), LengthLimits(10, 1, "drop"))["labels"] == []
    with pytest.raises(ValueError, match="third: its sentence has 34 tokens and max_source_length is 10: raise it"):
        task.features(["third"], [long], tiny_tokenizer(), LengthLimits(10, 1))
    model = model_of(task, "marks")
    batch = task.evaluation_collator(model.config)([{name: values[0] for name, values in cut.items()}])
    with torch.no_grad():
        (prediction,) = task.evaluate_batch(model, tiny_tokenizer(), batch, {}).predictions
    assert len(prediction.tags) == 32
    assert set(prediction.tags[9:]) == {"O"}  # where nothing was read, nothing begins, and an argument ends


@pytest.mark.parametrize("kind", ["marks", "bert"])
def test_a_batch_is_trained_on_and_evaluated(task, kind, tmp_path):
    model, tokenizer, examples = model_of(task, kind), tiny_tokenizer(), [task.example(ANN), task.example(BOB)]
    task.check_model(model, packed=False)
    columns = task.features(["a", "b"], examples, tokenizer, LIMITS)
    rows = [{name: values[at] for name, values in columns.items()} for at in range(2)]
    training, evaluation = task.collator(model.config)(rows), task.evaluation_collator(model.config)(rows)
    assert evaluation.keys() - training.keys() == {"first_tokens"}
    assert ("marker_ids" in training) == (kind == "marks")
    loss = model(**training).loss
    with torch.no_grad():
        result = task.evaluate_batch(model, tokenizer, evaluation, {})
        alone = task.evaluate_batch(model, tokenizer, task.evaluation_collator(model.config)(rows[1:]), {})
        assert task.evaluate_batch(model, tokenizer, evaluation, None).predictions is None
    assert result.loss[1] == 9
    torch.testing.assert_close(result.loss[0] / 9, loss.double(), rtol=1e-5, atol=1e-5)
    assert [len(prediction.tags) for prediction in result.predictions] == [6, 3]
    assert alone.predictions[0] == result.predictions[1]
    assert len(task.output(model, tokenizer, examples[0])) == 8
    sample = task.sample(model, tokenizer, examples[1], Tagged(("B-ARG1", "B-V", "O")))
    assert (sample.output, sample.verdict) == ("[ARG1 bob ] [V sits ] there", "differs")
    assert set(task.plots(tmp_path, model, tokenizer, examples, [Tagged(one.tags) for one in examples])) == {
        "confusion.png"
    }
    nothing = task.collator(model.config)([])
    assert nothing["labels"].tolist() == [[-100]]


def test_the_code_of_the_card_runs(task, capsys):
    model, example = model_of(task, "marks"), task.example(ANN)
    exec(task.usage(example), {"model": model, "tokenizer": tiny_tokenizer()})
    tags = eval(capsys.readouterr().out)
    assert len(tags) == 6
    assert spans_of_tags(tags) is not None
