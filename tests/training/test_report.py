from types import SimpleNamespace

from crossmask.tasks import get_task
from crossmask.training.report import results, sample_page


def test_samples_are_judged_by_what_is_scored():
    task = get_task("question-answering", rationale_column="support")
    row = {"question": "Where is Ann?", "context": "Ann went home.", "support": "Ann went home.", "answer": "home"}
    outcome = SimpleNamespace(task=task, test=[task.example(row)] * 2)
    outcome.predictions = ["Ann went home. Answer: home", "Ann went home. Answer: out"]
    page = sample_page(outcome, 2)
    assert [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith("**")] == ["(exact)", "(differs)"]
    assert "- output: Ann went home. Answer: home" in page


def test_a_row_has_its_name_group_and_signature():
    scores = {"sacrebleu_lowercase": 41.0, "sacrebleu_lowercase_signature": "case:lc", "sacrebleu_de": 39.0}
    lower, german = results(scores | {"sacrebleu_signature_de": "case:mixed"}, "corpus")
    assert (lower.metric, lower.name, lower.signature) == ("sacrebleu", "sacreBLEU, lowercase", "case:lc")
    assert (german.metric, german.name, german.signature) == ("sacrebleu", "sacreBLEU (de)", "case:mixed")
