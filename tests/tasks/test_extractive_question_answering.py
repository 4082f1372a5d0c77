import pytest
import torch
from question_cases import tiny_reader, tiny_tokenizer
from transformers import BertForQuestionAnswering

from crossmask import CrossMaskConfig
from crossmask.question_answering.decoding import Answer
from crossmask.tasks import get_task
from crossmask.tasks.base import LengthLimits

CONTEXT = "Ann is in the garden. Bob sits near Carl."
LIMITS = LengthLimits(64, 1, "error")


def record(*answers: str, question: str = "Where is Ann?", context: str = CONTEXT, **columns) -> dict:
    starts = [context.index(answer) for answer in answers]
    return {
        "question": question,
        "context": context,
        "answers": {"text": [*answers], "answer_start": starts},
        **columns,
    }


@pytest.fixture
def task():
    return get_task("extractive-question-answering", stride=4)


def test_the_answer_that_is_given_most_often_is_learned(task):
    example = task.example(record("the garden", "garden", "garden", group="g"))
    assert example.span == (CONTEXT.index("garden"), CONTEXT.index("garden") + 6)
    assert example.target == "garden"
    assert example.references == ("the garden", "garden")
    assert example.group == "g"
    assert task.example(record("Bob", "Carl")).target == "Bob"


def test_a_question_without_an_answer(task):
    example = task.example(record())
    assert (example.span, example.target, example.references) == (None, "", ("",))


def test_scores_by_hand(task):
    examples = [task.example(record("the garden")), task.example(record("Bob", group="g"))]
    predictions = [Answer("garden", 0.5), Answer("near Bob", 0.5)]
    # Articles do not count; precision 1/2, recall 1.
    assert task.metrics(predictions, examples) == {
        "exact_match": 50.0, "f1": pytest.approx(100 * (1 + 2 / 3) / 2), "exact_match_g": 0.0,
        "f1_g": pytest.approx(200 / 3),
    }  # fmt: skip


def test_scores_of_squad_2_by_hand(task):
    records = [record("the garden"), record("Bob"), record(), record(), record("Carl")]
    examples = [task.example(one) for one in records]
    predictions = [Answer(text, 0.5) for text in ("the garden", "", "", "Ann", "near Carl")]
    # With an answer: right, none given, half of it too much. Without: right, wrong.
    assert task.metrics(predictions, examples) == {
        "exact_match": 40.0,
        "f1": pytest.approx(100 * (1 + 0 + 1 + 0 + 2 / 3) / 5),
        "HasAns_exact": pytest.approx(100 / 3),
        "HasAns_f1": pytest.approx(100 * (1 + 0 + 2 / 3) / 3),
        "NoAns_exact": 50.0,
        "NoAns_f1": 50.0,
    }
    assert set(task.metric_names(examples[2:3])) == {"exact_match", "f1", "NoAns_exact", "NoAns_f1"}


def test_features_have_a_row_for_each_window(task):
    examples = [task.example(record("the garden")), task.example(record("Carl", context="Carl is there.")),
                task.example(record())]  # fmt: skip
    limits = LengthLimits(16, 1, "split")
    columns = task.features(["a", "b", "c"], examples, tiny_tokenizer(), limits)
    assert columns["example"] == [0, 0, 1, 2, 2]
    assert {len(column) for column in columns.values()} == {5}
    for at, (start, end) in enumerate(columns["labels"]):
        example, offsets = examples[columns["example"][at]], columns["offsets"][at]
        if start >= 0:
            assert example.context[offsets[start][0] : offsets[end][1]] == example.target
    assert [start >= 0 for start, _ in columns["labels"]] == [True, False, True, False, False]


def test_contexts_over_the_limit(task):
    example = task.example(record("the garden"))
    with pytest.raises(ValueError, match="third: question and context have more than max_source_length=16 tokens"):
        task.features(["third"], [example], tiny_tokenizer(), LengthLimits(16, 1, "error"))
    assert task.features(["a"], [example], tiny_tokenizer(), LengthLimits(16, 1, "drop"))["input_ids"] == []
    with pytest.raises(ValueError, match="overlong must be error, drop or split"):
        task.features(["a"], [example], tiny_tokenizer(), LengthLimits(16, 1, "truncate"))
    with pytest.raises(ValueError, match=r"a to a: questions\[0\] has 4 tokens"):
        task.features(["a"], [example], tiny_tokenizer(), LengthLimits(10, 1, "split"))
    assert task.evaluation_limits(LengthLimits(16, 1, "drop")).overlong == "split"


def rows_of(task, records, length=16):
    examples = [task.example(one) for one in records]
    columns = task.features([*"abcdef"[: len(examples)]], examples, tiny_tokenizer(), LengthLimits(length, 1, "split"))
    number = len(columns["input_ids"])
    return (
        examples,
        columns["example"],
        [{name: column[at] for name, column in columns.items()} for at in range(number)],
    )


@pytest.mark.parametrize("no_answer", [False, True])
def test_batches_for_a_pointer(task, no_answer):
    model, _ = tiny_reader(no_answer)
    _, _, rows = rows_of(task, [record("the garden"), record()])
    training, evaluation = task.collator(model.config)(rows), task.evaluation_collator(model.config)(rows)
    assert len(rows) > 2
    assert training["start_positions"].tolist()[1:] == ([-1] * (len(rows) - 1) if no_answer else [])
    assert evaluation["start_positions"].tolist()[1:] == [-1 if no_answer else -100] * (len(rows) - 1)
    assert evaluation.keys() - training.keys() == {"offsets"}
    assert torch.equal(task.targets(training), training["start_positions"])
    assert model(**training).loss.isfinite()
    nothing = task.collator(model.config)([])
    assert nothing["start_positions"].tolist() == [-100]
    assert model(**nothing).loss == 0


def test_batches_for_a_model_of_transformers(task):
    model = BertForQuestionAnswering(tiny_reader(False)[0].config.encoder).eval()
    _, _, rows = rows_of(task, [record("the garden"), record()])
    training = task.collator(model.config)(rows)
    assert training.keys() == {"input_ids", "attention_mask", "token_type_ids", "start_positions", "end_positions"}
    assert len(training["input_ids"]) == 1
    assert task.targets(training) is None
    assert model(**training).loss.isfinite()
    lost = task.evaluation_collator(model.config)(rows[1:])
    assert task.evaluate_batch(model, tiny_tokenizer(), lost, None).loss.tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["pointer", "no answer", "bert"])
def test_evaluation_of_a_batch(task, kind):
    model = tiny_reader(kind == "no answer")[0]
    if kind == "bert":
        model = BertForQuestionAnswering(model.config.encoder).eval()
    examples, owners, rows = rows_of(
        task, [record("the garden"), record(context="Carl left. Dora is there."), record()]
    )
    batch = task.evaluation_collator(model.config)(rows)
    with torch.no_grad():
        result = task.evaluate_batch(model, tiny_tokenizer(), batch, {})
        assert task.evaluate_batch(model, tiny_tokenizer(), batch, None).predictions is None
    count = len(rows) if kind == "no answer" else sum(row["labels"][0] >= 0 for row in rows)
    assert result.loss[1] == count
    assert result.loss[0] > 0
    assert len(result.predictions) == len(rows)
    for number, example in enumerate(examples):
        outputs = [spans for spans, owner in zip(result.predictions, owners, strict=True) if owner == number]
        prediction = task.combine(outputs, example)
        assert isinstance(prediction, Answer)
        assert prediction.text == "" or prediction.text in example.context
        sample = task.sample(model, tiny_tokenizer(), example, prediction)
        assert sample.output.startswith(prediction.text or "(no answer)")
        assert sample.reference == (example.target or "(no answer)")
    assert task.output(model, tiny_tokenizer(), examples[0]) == task.output(model, tiny_tokenizer(), examples[0])


def test_pictures_of_where_answers_are(task, tmp_path):
    model, tokenizer = tiny_reader(False)
    examples = [task.example(record("the garden")), task.example(record("Bob"))]
    images = task.plots(tmp_path, model, tokenizer, examples, [Answer("", 0.5)] * 2)
    assert sorted(images) == ["pointer_1.png", "pointer_2.png"]
    assert all((tmp_path / file).stat().st_size > 1000 for file in images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": ["the garden"]}, "column 'answers' must be {'text': .*, 'answer_start': .*}, got"),
        ({"answers": {"text": ["a"], "answer_start": []}}, "column 'answers' has 1 texts and 0 starts"),
        (
            {"answers": {"text": ["Ann"], "answer_start": [1]}},
            "the answer 'Ann' is not in the context at answer_start=1",
        ),
        ({"answers": {"text": [""], "answer_start": [0]}}, "the answer '' is not in the context"),
        ({"question": " "}, "column 'question' must not be empty"),
        ({"context": None}, "column 'context' must hold text, got NoneType"),
    ],
)
def test_records_that_cannot_be_used(task, change, message):
    with pytest.raises(ValueError, match=message):
        task.example({**record("Ann"), **change})


def test_what_does_not_fit_the_task(task):
    with pytest.raises(ValueError, match="stride must be at least 0 and max_answer_length at least 1, got 4 and 0"):
        get_task("extractive-question-answering", stride=4, max_answer_length=0)
    with pytest.raises(ValueError, match="tag must be left out"):
        task.tagged(task.example(record("Ann")), "<BT>")
    with pytest.raises(ValueError, match=r"model.model_type must be crossmask-question-answering, got 'bert'"):
        task.config_class({"model_type": "bert"})
    with pytest.raises(ValueError, match="it is a crossmask model; give one that AutoModelForQuestionAnswering loads"):
        task.check_config(CrossMaskConfig())
    with pytest.raises(TypeError, match="prediction 0 must be an Answer, got str"):
        task.metrics(["Ann"], [task.example(record("Ann"))])
