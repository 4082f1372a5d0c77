import pytest

from crossmask import CrossMaskConfig
from crossmask.tasks import Example, get_task
from crossmask.utils.errors import InputError

ROW = {"question": "Where is Ann?", "context": "Ann went {home}. Bob left."}


def test_question_comes_first_then_a_special_token():
    task = get_task("question-answering")
    assert task.special_tokens == ("<sep>",)
    example = task.example(ROW | {"answer": "home", "group": "qa1"})
    assert example == Example("Where is Ann?<sep> Ann went {home}. Bob left.", "home", ("home",), "qa1")


def test_template_of_ones_own():
    task = get_task("question-answering", source_template="q: {question} c: {passage}", group_column="task")
    assert task.special_tokens == ()
    row = {"question": "Who?", "passage": "Ann.", "answer": "Ann", "task": 3}
    assert task.example(row) == Example("q: Who? c: Ann.", "Ann", ("Ann",), "3")


def test_rationale_is_learned_and_not_scored():
    task = get_task("question-answering", rationale_column="support")
    example = task.example(ROW | {"answer": "home", "support": "Ann went {home}."})
    assert example.target == "Ann went {home}. Answer: home"
    assert example.references == ("home",)
    assert task.example(ROW | {"answer": "home", "support": ""}).target == "Answer: home"
    said = [
        "Ann went home. Answer: home",
        "Answer: away Answer: home",
        "Answer:home",
        "ann went home. answer : home",
        "Ann went. Answer: away",
        "Bob.",
    ]
    scores = [task.metrics([text], [example])["exact_match"] for text in said]
    assert scores == [100.0, 100.0, 100.0, 100.0, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"must have a column 'support'.*rationale_column"):
        task.example(ROW | {"answer": "home"})
    with pytest.raises(ValueError, match="column 'support' must hold text, got list"):
        task.example(ROW | {"answer": "home", "support": ["a"]})


CONTEXT = "Bob left. Ann went to the garden. She sang!"
GARDEN = CONTEXT.index("the garden")


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["the garden", "garden"], "answer_start": [GARDEN, GARDEN + 4]},
        [{"text": "the garden", "answer_start": GARDEN}, {"text": "garden", "answer_start": GARDEN + 4}],
    ],
    ids=["as on the Hub", "as in files"],
)
def test_the_rationale_is_the_sentence_of_the_answer(answers):
    task = get_task("question-answering", rationale_sentence=True)
    example = task.example({"question": "Where is Ann?", "context": CONTEXT, "answers": answers})
    assert example.target == "Ann went to the garden. Answer: the garden"
    assert example.references == ("the garden", "garden")
    assert task.metrics(["Bob left. Answer: the garden"], [example])["exact_match"] == 100.0
    easier = get_task("question-answering", rationale_sentence=True, source_template="{question}<sep> {rationale}")
    example = easier.example({"question": "Where is Ann?", "context": CONTEXT, "answers": answers})
    assert example.source == "Where is Ann?<sep> Ann went to the garden."


@pytest.mark.parametrize("answers", [{"text": [], "answer_start": []}, {"text": []}, []], ids=str)
def test_what_is_written_where_there_is_no_answer(answers):
    record = ROW | {"context": CONTEXT, "answers": answers}
    task = get_task("question-answering", no_answer="Not in the text.")
    example = task.example(record)
    assert (example.target, example.references) == ("Not in the text.", ("",))
    answered = task.example({**record, "answers": {"text": ["the garden"], "answer_start": [GARDEN]}})
    scores = task.metrics(["not in the text. ", "garden"], [example, answered])
    assert (scores["NoAns_f1"], scores["HasAns_exact"], scores["exact_match"]) == (100.0, 100.0, 100.0)
    assert task.metrics(["garden", "Not in the text."], [example, answered])["f1"] == 0.0
    explained = get_task("question-answering", no_answer="unanswerable", rationale_sentence=True)
    assert explained.example(record).target == "Answer: unanswerable"
    assert explained.postprocess("She sang. answer : UNANSWERABLE") == ""
    with pytest.raises(InputError, match="no_answer must be a text"):
        get_task("question-answering", no_answer=" ")


def test_the_answer_of_a_rationale_must_be_where_it_is_said_to_be():
    task = get_task("question-answering", rationale_sentence=True)
    answers = {"text": ["garden"], "answer_start": [0]}
    with pytest.raises(InputError, match="the answer 'garden' is not in the context at answer_start=0"):
        task.example({"question": "Where?", "context": CONTEXT, "answers": answers})


@pytest.mark.parametrize("answers", [{"text": ["home"]}, [{"text": "home"}], ["home"]], ids=str)
def test_the_sentence_of_an_answer_needs_its_place(answers):
    task = get_task("question-answering", rationale_sentence=True)
    with pytest.raises(
        InputError, match=r"'answer_start': \[...\]}, got .*; leave the task option rationale_sentence"
    ):
        task.example({"question": "Where?", "context": "Ann went home.", "answers": answers})
    with pytest.raises(InputError, match="rationale_sentence must be left out beside rationale_column"):
        get_task("question-answering", rationale_sentence=True, rationale_column="support")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quote": "sentences"}, "quote 'sentences' must come with rationale_column or rationale_sentence"),
        ({"quote": "answer", "rationale_column": "support"}, "quote 'answer' must come with rationale_sentence"),
        ({"quote": "all", "rationale_sentence": True}, "quote must be one of answer, sentences, got 'all'"),
        ({"quote": True, "rationale_sentence": True}, "quote must be"),
    ],
)
def test_what_is_quoted_must_be_taught(options, message):
    with pytest.raises(InputError, match=message):
        get_task("question-answering", **options)


@pytest.mark.parametrize(
    ("quote", "taught"),
    [
        ("answer", {"rationale_sentence": True}),
        ("sentences", {"rationale_sentence": True}),
        ("sentences", {"rationale_column": "support"}),
    ],
)
def test_what_a_quoting_model_was_taught_is_saved(quote, taught):
    saved = get_task("question-answering", quote=quote, **taught).pipeline_options()
    config = CrossMaskConfig(task_specific_params={"question-answering": saved})
    found = type(get_task("question-answering")).options_of_saved(config)
    assert found == {"source_template": "{question}<sep> {context}", "quote": quote, **taught}


@pytest.mark.parametrize(
    "answers",
    [
        ["home", "at home", "home"],
        {"text": ["home", "at home", "home"], "answer_start": [9, 2, 9]},
        ("home", "at home"),
        [{"text": "home", "answer_start": 9}, {"text": "at home", "answer_start": 2}],
    ],
)
def test_answers_in_every_form(answers):
    example = get_task("question-answering").example(ROW | {"answers": answers})
    assert example.target == "home"
    assert example.references == ("home", "at home")


def test_scores_by_hand_overall_and_per_group():
    task = get_task("question-answering")
    examples = [
        Example("s", "the Eiffel Tower", ("the Eiffel Tower", "a tower in Paris"), "qa1"),
        Example("s", "in Paris", ("in Paris",), "qa1"),
        Example("s", "kitchen", ("kitchen",), "qa2"),
    ]
    # 1: equal after normalisation. 2: tokens {paris, france} against {in, paris}: P = R = 1/2. 3: no common token.
    scores = task.metrics(["eiffel tower!", "Paris, France", "garden"], examples)
    assert scores == {
        "exact_match": pytest.approx(100 / 3),
        "f1": pytest.approx(50.0),
        "exact_match_qa1": 50.0,
        "f1_qa1": 75.0,
        "exact_match_qa2": 0.0,
        "f1_qa2": 0.0,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"question": "q", "text": "c", "answer": "a"},
            "the record must have a column 'context', got 'question', 'text', 'answer'; rename the column, or "
            "set the task option source_template",
        ),
        (
            {"question": "q", "context": "c"},
            "the record must have a column 'answer', got 'question', 'context'; add 'answer' (a text) or "
            "'answers' (a list of texts, or SQuAD's {'text': [...]})",
        ),
        (
            {"question": "q", "context": "c", "answers": {"text": []}},
            "column 'answers' is empty in the record {'question': 'q', 'context': 'c', 'answers': {'text': []}}; set "
            "the task option no_answer to what is written then, or drop such rows",
        ),
        (
            {"question": "q", "context": "c", "answers": "a"},
            "column 'answers' must hold a list of texts or SQuAD's {'text': [...]}, got str in "
            "{'question': 'q', 'context': 'c', 'answers': 'a'}",
        ),
        (
            {"question": "q", "context": "c", "answers": {"texts": ["a"]}},
            "column 'answers' must hold a list of texts or SQuAD's {'text': [...]}, got a mapping without 'text' in "
            "{'question': 'q', 'context': 'c', 'answers': {'texts': ['a']}}",
        ),
        (
            {"question": "q", "context": "c", "answers": [1]},
            "column 'answers' must hold text, got int in the record {'question': 'q', 'context': 'c', 'answers': [1]}",
        ),
        (
            {"question": "q", "context": "\n" * 200, "answer": "a"},
            "column 'context' must not be empty in the record {'question': 'q', 'context': '"
            + "\\n" * 63
            + "\\...; drop or fill such rows",
        ),
    ],
)
def test_bad_records(row, message):
    with pytest.raises(ValueError) as caught:
        get_task("question-answering").example(row)
    assert str(caught.value) == message


@pytest.mark.parametrize("template", ["question context", "{question.__class__}", "{question[0]}", "{}", "{0}"])
def test_bad_templates(template):
    with pytest.raises(ValueError, match=r"^source_template=.*column"):
        get_task("question-answering", source_template=template)


@pytest.mark.parametrize("template", ["{question", "question}"])
def test_unbalanced_templates(template):
    with pytest.raises(ValueError, match=r"^source_template=.*write \{\{ and \}\} for braces"):
        get_task("question-answering", source_template=template)


def test_a_template_that_yaml_took_for_a_mapping():
    with pytest.raises(
        ValueError, match=r"^task option source_template must be text, got {'question': None}; put it in quotes"
    ):
        get_task("question-answering", source_template={"question": None})
