import pytest

from crossmask.tasks import Example, get_task
from crossmask.tasks.metrics import load_metric


@pytest.fixture
def task():
    return get_task("summarization")


def rouge(prediction, *references, **options):
    return load_metric("rouge").compute(predictions=[prediction], references=[list(references)], **options)


def test_scores_by_hand():
    # Words in common 3 of 4 and 3 of 3; pairs 1 of 3 and 1 of 2; the longest common run of words, 3.
    scores = rouge("the red house stands", "the house stands", use_stemmer=False)
    assert scores["rouge1"] == pytest.approx(100 * 2 * 3 / (4 + 3))
    assert scores["rouge2"] == pytest.approx(100 * 2 * 1 / (3 + 2))
    assert scores["rougeL"] == pytest.approx(100 * 2 * 3 / (4 + 3))


def test_each_score_is_the_best_over_the_references():
    # The first reference has more words of the prediction, the second more of its pairs.
    prediction, first, second = "a b c d", "d c b a", "a b x x"
    scores = rouge(prediction, first, second)
    assert scores["rouge1"] == 100
    assert scores["rouge2"] == pytest.approx(100 / 3)
    assert scores["rougeL"] == pytest.approx(50)
    assert rouge(prediction, second)["rouge1"] == pytest.approx(50)


def test_stems_and_sentences():
    assert rouge("networks", "network")["rouge1"] == 100
    assert rouge("networks", "network", use_stemmer=False)["rouge1"] == 0
    # Sentences in another order: each is found by itself in Lsum, one alone in L.
    scores = rouge("a b\nc d", "c d\na b")
    assert (scores["rougeL"], scores["rougeLsum"]) == (50, 100)


def test_a_record_is_a_text_or_its_sentences_with_one_summary_or_several(task):
    example = task.example({"source": ["One is here.", "Two left. "], "target": ["A.", "B."], "group": "g"})
    assert (example.source, example.lead) == ("One is here. Two left.", "One is here.")
    assert (example.target, example.references, example.group) == ("A.", ("A.", "B."), "g")
    whole = get_task("summarization", lead=2, source_column="article", target_column="highlights")
    example = whole.example({"article": "One is here. Two left. Three.", "highlights": "A."})
    assert (example.lead, example.references) == ("One is here. Two left.", ("A.",))


def test_the_first_sentences_are_scored_beside_the_summaries(task):
    records = [("One is here. Two left.", ["one is here", "x"], None), ("A cat sat. It left.", "it left", "g")]
    examples = [task.example({"source": s, "target": t, "group": g}) for s, t, g in records]
    scores = task.metrics(["one is here", "it left"], examples)
    assert (scores["rouge1"], scores["rouge1_g"]) == (100, 100)
    assert scores["lead1_rouge1"] == pytest.approx(50)
    assert scores["lead1_rouge1_g"] == 0
    assert set(task.metric_names(examples)) == {*scores}
    # A tag before the source is none of the text.
    assert task.tagged(examples[0], "summarize: ").lead == "One is here."
    assert "lead1_rouge1" not in task.metrics(["a"], [Example("a", "a", ("a",))])


def test_blank_sentences_of_a_source_are_left_out(task):
    example = task.example({"source": [" ", "One is here.\n", "", "Two."], "target": "a"})
    assert (example.source, example.lead) == ("One is here. Two.", "One is here.")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"source": "a"}, "must have a column 'target', got 'source'; set the task option target_column"),
        ({"source": [], "target": "a"}, "column 'source' has no text in the record"),
        ({"source": ["", " "], "target": "a"}, "column 'source' must not be empty"),
        ({"source": "a", "target": ["a", " "]}, "column 'target' must not be empty"),
        ({"source": "a", "target": ["a", None]}, "column 'target' must hold text, got NoneType"),
        ({"source": 3, "target": "a"}, "column 'source' must hold text, got int"),
    ],
)
def test_records_that_cannot_be_used(task, record, message):
    with pytest.raises(ValueError, match=message):
        task.example(record)
    with pytest.raises(ValueError, match="lead must be at least 1 sentence, got 0"):
        get_task("summarization", lead=0)
    with pytest.raises(ValueError, match="source_column and target_column must differ, got 'source' for both"):
        get_task("summarization", target_column="source")
