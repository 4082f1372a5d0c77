import pytest

from crossmask.tasks import Example, PrimaryMetric, Task, TextToText, base, get_task, register_task, task_names
from crossmask.tasks.records import text_column


@register_task
class Reversal(TextToText):
    """A third task, complete: what a newcomer writes."""

    name = "reversal"
    primary_metric = PrimaryMetric("exact_match", greater_is_better=True)

    def example(self, record):
        text = text_column(record, "text", fix="rename the column that holds the text")
        return Example(source=text, target=text[::-1], references=(text[::-1],), group=record.get("kind"))

    def metrics(self, predictions, examples):
        return self.by_group(predictions, examples, self.score)

    def score(self, predictions, examples, group):
        hits = sum(p in e.references for p, e in zip(predictions, examples, strict=True))
        return {"exact_match": 100 * hits / len(predictions)}


def examples(*pairs):
    return [Example("s", target, (target,), group) for target, group in pairs]


def test_a_third_task_is_found_and_scores():
    task = get_task("reversal")
    assert isinstance(task, Reversal)
    assert task.special_tokens == ()
    made = [task.example({"text": "abc", "kind": "x"}), task.example({"text": "de", "kind": "y"})]
    assert made[0] == Example("abc", "cba", ("cba",), "x")
    assert task.metrics([" cba\n", "de"], made) == {"exact_match": 50.0, "exact_match_x": 100.0, "exact_match_y": 0.0}


def test_groups_are_optional_and_partial():
    task = get_task("reversal")
    assert task.metrics(["a"], examples(("a", None))) == {"exact_match": 100.0}
    scores = task.metrics(["a", "b", "c", "d"], examples(("a", None), ("b", "g"), ("x", None), ("x", "g")))
    assert scores == {"exact_match": 50.0, "exact_match_g": 50.0}


def test_two_scores_of_one_name_are_refused():
    class Clash(Reversal):
        def score(self, predictions, examples, group):
            return {"f1": 0.0, "f1_x": 1.0}

    with pytest.raises(ValueError, match="both named f1_x: rename the group 'x'"):
        Clash().metrics(["a"], examples(("a", "x")))


def test_unknown_name_and_option_list_the_known_ones():
    with pytest.raises(
        ValueError, match=r"^unknown task 'translate'; known tasks: .*question-answering.*, translation$"
    ):
        get_task("translate")
    with pytest.raises(ValueError, match=r"^task 'translation' has no option 'tokeniser'; its options: .*tokenize"):
        get_task("translation", tokeniser="intl")
    with pytest.raises(ValueError, match="its options: none"):
        get_task("reversal", speed=1)
    assert {"question-answering", "reversal", "translation"} <= set(task_names())


def test_a_name_is_taken_once_unless_the_same_class_comes_again():
    assert register_task(Reversal) is Reversal

    class Other(Reversal):
        name = "translation"

    with pytest.raises(ValueError, match=r"'translation' is taken by crossmask\.tasks\.translation\.Translation"):
        register_task(Other)
    assert type(get_task("translation")).__name__ == "Translation"


def test_registration_asks_for_name_and_primary_metric():
    class Nameless(Task):
        pass

    with pytest.raises(TypeError, match=r"Nameless has no name; give the class an attribute name"):
        register_task(Nameless)

    class Aimless(Task):
        name = "aimless"
        primary_metric = "f1"

    with pytest.raises(TypeError, match=r"'aimless' has no primary_metric; set it to PrimaryMetric"):
        register_task(Aimless)
    assert "aimless" not in task_names()


@pytest.mark.parametrize("name", ["reversal", "translation", "question-answering"])
@pytest.mark.parametrize(
    ("predictions", "count", "error", "message"),
    [
        (["a"], 2, ValueError, "predictions must be one for each of 2 examples, got 1"),
        ([], 0, ValueError, "examples to score must be one or more, got none; give predictions and examples"),
        (["a", None], 2, TypeError, "prediction 1 must be text, got NoneType; decode token ids before scoring"),
        ([[3, 4]], 1, TypeError, "prediction 0 must be text, got list; decode token ids before scoring"),
        ("ab", 2, TypeError, "predictions must be a list, one for each example, got one string; write [text]"),
    ],
)
def test_bad_predictions(name, predictions, count, error, message):
    with pytest.raises(error) as caught:
        get_task(name).metrics(predictions, examples(*[("a", None)] * count))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"a": "x", "b": "y"},
            "the record must have a column 'text', got 'a', 'b'; rename the column that holds the text",
        ),
        ({}, "the record must have a column 'text', got none; rename the column that holds the text"),
        ({"text": 3}, "column 'text' must hold text, got int in the record {'text': 3}"),
        (
            {"text": " \n"},
            "column 'text' must not be empty in the record {'text': ' \\n'}; drop or fill such rows",
        ),
    ],
)
def test_bad_records(record, message):
    with pytest.raises(ValueError) as caught:
        get_task("reversal").example(record)
    assert str(caught.value) == message


def test_the_docstring_of_base_is_a_working_task():
    code = "\n".join(line[4:] for line in base.__doc__.split("\n") if line.startswith("    "))
    exec(code.replace('"reversal"', '"reversal-of-the-docstring"'), {"__name__": "crossmask.tasks.reversal"})
    task = get_task("reversal-of-the-docstring")
    assert task.metrics(["ba", "x"], [task.example({"text": "ab"}), task.example({"text": "cd"})]) == {
        "exact_match": 50.0
    }
