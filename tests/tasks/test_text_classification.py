import pytest
import torch
from question_cases import tiny_tokenizer
from tiny_encoders import encoder_config
from transformers import BertForSequenceClassification, BertModel

from crossmask import CrossMaskConfig, CrossMaskForSequenceClassification
from crossmask.tasks import Example, get_task
from crossmask.tasks.base import LengthLimits
from crossmask.tasks.sequence_classification import Classified

LIMITS = LengthLimits(16, 1)


@pytest.fixture
def task():
    return get_task("text-classification", labels=["low", "mid", "high"])


def model_of(kind: str):
    torch.manual_seed(0)
    config = encoder_config("bert")
    config.vocab_size, config.num_labels = len(tiny_tokenizer()), 3
    if kind == "bert":
        return BertForSequenceClassification(config).eval()
    fields = {"pooling": kind, "num_labels": 3, "initializer_range": 0.3}
    return CrossMaskForSequenceClassification.from_encoder_pretrained(BertModel(config), **fields)


def examples_of(task):
    records = [("ann is here", "low"), ("bob sits in the garden near carl", 2), ("who left ?", "1")]
    return [task.example({"text": text, "label": label}) for text, label in records]


def test_a_record_has_the_name_or_the_number_of_its_class(task):
    assert [example.target for example in examples_of(task)] == ["low", "high", "mid"]
    assert task.example({"text": "x", "label": "mid", "group": "g"}) == Example("x", "mid", ("mid",), "g")
    other = get_task("text-classification", labels=["a", "b"], text_column="t", label_column="l")
    assert other.example({"t": "x", "l": 1}).target == "b"
    assert get_task("text-classification").class_names == ("negative", "positive")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "x", "label": "top"}, "column 'label' must be one of low, mid, high, or a number from 0 to 2, got"),
        ({"text": "x", "label": 3}, "from 0 to 2, got 3 in the record .*; add it to the task option labels"),
        ({"text": "x", "label": -1}, "got -1"),
        ({"text": "x", "label": True}, "got True"),
        ({"text": "x", "label": None}, "got None"),
        ({"text": "x"}, "must have a column 'label', got 'text'; set the task option label_column"),
        ({"label": 1}, "must have a column 'text', got 'label'; set the task option text_column"),
        ({"text": " ", "label": 1}, "column 'text' must not be empty"),
        ({"text": b"x", "label": 1}, "column 'text' must hold text, got bytes"),
    ],
)
def test_records_that_cannot_be_used(task, record, message):
    with pytest.raises(ValueError, match=message):
        task.example(record)


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "a"], ["a", ""]])
def test_labels_are_two_or_more_and_differ(labels):
    with pytest.raises(ValueError, match="labels must be two names or more, each another"):
        get_task("text-classification", labels=labels)


def test_scores_by_hand_with_groups(task):
    examples = [Example("", label, (label,), group) for label, group in (("low", "x"), ("mid", "x"), ("high", None))]
    predictions = [Classified(label, 0.5) for label in ("low", "low", "high")]
    scores = task.metrics(predictions, examples)
    # low: precision 1/2, recall 1; mid: 0, 0; high: 1, 1.
    assert scores["accuracy"] == pytest.approx(200 / 3)
    assert scores["precision"] == pytest.approx(50)
    assert scores["recall"] == pytest.approx(200 / 3)
    assert scores["f1"] == pytest.approx(100 * (2 / 3 + 0 + 1) / 3)
    assert scores["accuracy_x"] == 50
    assert set(task.metric_names(examples)) == {*scores}
    with pytest.raises(TypeError, match="prediction 0 must be Classified, got str"):
        task.metrics(["low"], examples[:1])


def test_texts_over_the_limit(task):
    long = task.example({"text": "ann " * 30, "label": 0})
    features = task.features(["a"], [long], tiny_tokenizer(), LengthLimits(16, 1, "truncate"))
    assert len(features["input_ids"][0]) == 16
    assert features["input_ids"][0][-1] == tiny_tokenizer().sep_token_id
    assert task.features(["a"], [long], tiny_tokenizer(), LengthLimits(16, 1, "drop"))["labels"] == []
    with pytest.raises(ValueError, match="third: its text has 32 tokens and max_source_length is 16: raise it"):
        task.features(["third"], [long], tiny_tokenizer(), LIMITS)
    with pytest.raises(ValueError, match="overlong must be error, drop or truncate for task text-classification"):
        task.features(["a"], [long], tiny_tokenizer(), LengthLimits(16, 1, "split"))
    assert task.evaluation_limits(LengthLimits(16, 1, "drop")).overlong == "truncate"


@pytest.mark.parametrize("kind", ["attention", "mean", "bert"])
def test_a_batch_is_trained_on_and_evaluated(task, kind, tmp_path):
    model, tokenizer, examples = model_of(kind), tiny_tokenizer(), examples_of(task)
    columns = task.features(["a", "b", "c"], examples, tokenizer, LIMITS)
    assert columns["labels"] == [0, 2, 1]
    rows = [{name: values[at] for name, values in columns.items()} for at in range(3)]
    batch = task.collator(model.config)(rows)
    loss = model(**batch).loss
    with torch.no_grad():
        result = task.evaluate_batch(model, tokenizer, batch, {})
        assert task.evaluate_batch(model, tokenizer, batch, None).predictions is None
    assert result.loss[1] == 3
    torch.testing.assert_close(result.loss[0] / 3, loss.double(), rtol=1e-5, atol=1e-5)
    assert [prediction.label for prediction in result.predictions] == [
        task.class_names[at] for at in model(**{k: v for k, v in batch.items() if k != "labels"}).logits.argmax(-1)
    ]
    assert all(1 / 3 <= prediction.score <= 1 for prediction in result.predictions)
    alone = task.evaluate_batch(model, tokenizer, task.collator(model.config)(rows[:1]), {}).predictions
    assert alone[0].label == result.predictions[0].label
    assert len(task.output(model, tokenizer, examples[0])) == 3
    images = task.plots(tmp_path, model, tokenizer, examples, result.predictions)
    assert ("confusion.png" in images, "pooling_1.png" in images) == (True, kind == "attention")
    sample = task.sample(model, tokenizer, examples[0], Classified("mid", 0.25))
    assert (sample.reference, sample.output, sample.verdict) == ("low", "mid (0.25)", "wrong")
    nothing = task.collator(model.config)([])
    assert nothing["labels"].tolist() == [-100]


def test_the_code_of_the_card_runs(task, capsys):
    example = task.example({"text": 'ann said "no"', "label": 0})
    model = model_of("mean")
    model.config.id2label = dict(enumerate(task.class_names))
    exec(task.usage(example), {"model": model, "tokenizer": tiny_tokenizer()})
    assert capsys.readouterr().out.split()[0] in task.class_names


def test_models_that_do_not_fit_the_task(task):
    with pytest.raises(ValueError, match="it is a crossmask model; give one that AutoModelForSequenceClassification"):
        task.check_config(CrossMaskConfig())
    with pytest.raises(ValueError, match=r"model.model_type must be crossmask-sequence-classification, got 'bert'"):
        task.config_class({"model_type": "bert"})
    config = encoder_config("bert")
    assert task.changes_of_saved(config)["id2label"] == {0: "low", 1: "mid", 2: "high"}
    config.architectures = ["BertForSequenceClassification"]
    with pytest.raises(ValueError, match=r"it has a head of 2 classes \(LABEL_0, LABEL_1\), which must be the 3"):
        task.changes_of_saved(config)
    config.id2label = dict(enumerate(task.class_names))
    assert task.changes_of_saved(config) == {}


def test_numbers_that_are_names_are_names():
    stars = get_task("text-classification", labels=["1", "2", "3"])
    assert stars.example({"text": "a", "label": "1"}).target == "1"
    assert stars.example({"text": "a", "label": 0}).target == "1"  # a number, not text
    with pytest.raises(ValueError, match=r"column 'label' must be one of 1, 2, 3, .*got '0'"):
        stars.example({"text": "a", "label": "0"})
