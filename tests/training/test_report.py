"""What a run leaves behind, also where it has settings that few runs have."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from training_jobs import SIZES, SOMEWHERE, corpus, tiny_tokenizer
from transformers import AutoModelForSeq2SeqLM

from crossmask.tasks import get_task
from crossmask.tasks.base import Example
from crossmask.training.build_model import build_model
from crossmask.training.parsing import RunSpec
from crossmask.training.recipe import RecipeArguments
from crossmask.training.report import RunResult, card_facts, results, sample_page, samples_of, write_report
from crossmask.training.run import _same, check_reload
from crossmask.training.run_arguments import RunArguments

pytestmark = pytest.mark.usefixtures("without_drawing")
LOGGED = [{"loss": 2.0, "step": 1}, {"train_runtime": 1.0, "step": 1}]


def run_and_outcome(log_history: list[dict] = LOGGED, **fields) -> tuple[RunSpec, RunResult]:
    """Of a model that was not trained, and predictions that nothing made."""
    recipe = RecipeArguments.of(
        **{
            "train": SOMEWHERE, "validation": SOMEWHERE, "test": SOMEWHERE, "model": SIZES,
            "generation": {"max_new_tokens": 6}, "max_source_length": 16, "max_target_length": 16, **fields,
        }
    )  # fmt: skip
    arguments = RunArguments(output_dir="unused", report_to=[], use_cpu=True)
    tokenizer = tiny_tokenizer()
    outcome = RunResult(
        model=build_model(recipe.model, recipe.data.limits, get_task("translation"), tokenizer).eval(),
        trained_parameters=10**9,
        tokenizer=tokenizer,
        task=get_task("translation"),
        train_size=9,
        test=corpus(3),
        predictions=["ha"] * 3,
        scores={"chrf": 1.0},
        seconds=1.0,
        log_history=log_history,
    )
    return RunSpec("tiny", "model: tiny", "python train.py", recipe, arguments), outcome


def written(folder: Path, run: RunSpec, outcome: RunResult) -> tuple[set[str], str]:
    """The names of the pictures, and the card, which may show no others."""
    write_report(folder, run, outcome, name="tiny")
    card = (folder / "README.md").read_text()
    pictures = {path.name for path in folder.glob("*.png")}
    assert {line.partition("](")[2].rstrip(")") for line in card.splitlines() if line.startswith("![")} == pictures
    return pictures, card


ALIGNMENTS = {"alignment_1.png", "alignment_2.png", "alignment_3.png"}


def test_a_model_with_a_memory_has_no_alignments_to_show(tmp_path):
    pictures, _ = written(tmp_path, *run_and_outcome(model={**SIZES, "memory_length": 4}))
    assert pictures == {"learning_curve.png", "masks.png"}
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path)


def test_a_run_that_logged_nothing_has_no_curve(tmp_path):
    pictures, _ = written(tmp_path, *run_and_outcome(log_history=LOGGED[1:]))
    assert pictures == {"masks.png"} | ALIGNMENTS


@pytest.mark.parametrize("generation", [{"do_sample": True}, {"do_sample": True, "num_beams": 2}])
def test_a_model_that_draws_is_reloaded_and_compared(tmp_path, generation):
    run, outcome = run_and_outcome(generation={**generation, "max_new_tokens": 12})
    write_report(tmp_path, run, outcome, name="tiny")
    check_reload(tmp_path, outcome)
    assert outcome.model.generation_config.do_sample


def test_a_test_text_that_is_longer_than_the_model_takes_is_cut(tmp_path):
    run, outcome = run_and_outcome()
    long = replace(outcome.test[0], source="ha ho " * 30)
    outcome = replace(outcome, test=[long] * 3)
    outcome.tokenizer.model_max_length = 10**30
    assert written(tmp_path, run, outcome)[0] >= ALIGNMENTS
    check_reload(tmp_path, outcome)


@pytest.mark.parametrize(("generation", "shown"), [({"max_new_tokens": 5}, 5), ({"max_length": 9}, 8)])
def test_the_card_generates_as_long_as_the_run(generation, shown):
    run, outcome = run_and_outcome(generation=generation)
    assert card_facts(run, outcome, list(samples_of(outcome, 1).values()), {}, "tiny").max_new_tokens == shown


def test_another_model_than_was_saved_is_noticed(tmp_path):
    run, outcome = run_and_outcome(generation={"max_new_tokens": 6, "min_new_tokens": 6})
    write_report(tmp_path, run, outcome, name="tiny")
    outcome.model.generation_config.update(max_new_tokens=5, min_new_tokens=5)
    with pytest.raises(RuntimeError, match="before saving it was"):
        check_reload(tmp_path, outcome)


@pytest.mark.parametrize(
    ("output", "same"),
    [
        ([[1.0, -3.4e38]], True),
        ([[1.0 + 1e-5, -3.4e38]], True),
        ([[1.01, -3.4e38]], False),
        ([[1.0]], False),
        ([[float("nan"), -3.4e38]], False),
    ],
    ids=str,
)
def test_a_reloaded_model_may_differ_by_rounding_alone(output, same):
    assert _same(output, [[1.0, -3.4e38]]) is same
    assert _same([3, 4], [3, 4])
    assert not _same([3, 4], [3, 5])


def test_samples_are_judged_by_what_is_scored():
    task = get_task("question-answering", rationale_column="support")
    row = {"question": "Where is Ann?", "context": "Ann went home.", "support": "Ann went home.", "answer": "home"}
    outcome = SimpleNamespace(model=None, tokenizer=None, task=task, test=[task.example(row)] * 2)
    outcome.predictions = ["Ann went home. Answer: home", "Ann went home. Answer: out"]
    page = sample_page(outcome, samples_of(outcome, 2))
    assert [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith("**")] == ["(exact)", "(differs)"]
    assert "- output: Ann went home. Answer: home" in page


def test_a_row_has_its_name_group_and_signature():
    scores = {"sacrebleu_lowercase": 41.0, "sacrebleu_lowercase_signature": "case:lc", "sacrebleu_de": 39.0}
    lower, german = results(scores | {"sacrebleu_signature_de": "case:mixed"}, "corpus")
    assert (lower.metric, lower.name, lower.signature) == ("sacrebleu", "sacreBLEU, lowercase", "case:lc")
    assert (german.metric, german.name, german.signature) == ("sacrebleu", "sacreBLEU (de)", "case:mixed")


def test_a_development_set_is_not_called_test(tmp_path):
    run, outcome = run_and_outcome()
    for split, shown in ((None, "test"), ("validation", "validation")):
        run.recipe.data.test = {"format": "hub", "name": "a/b", **({"split": split} if split else {})}
        facts = card_facts(run, outcome, list(samples_of(outcome, 1).values()), {}, "tiny")
        assert {row.split for row in facts.results} == {shown}


def test_a_mean_over_groups_is_called_one():
    task = get_task("translation")
    texts = {
        "de": "Ein Hund bellt laut heute.",
        "zh": "一只狗今天在大声地叫。",
        "ja": "犬が今日大きな声で吠えている。",
    }
    examples = [Example("s", text, (text,), group) for group, text in texts.items()]
    rows = {row.name: row for row in results(task.metrics([*texts.values()], examples), "corpus")}
    assert rows["sacreBLEU, mean over groups"].value == pytest.approx(100)
    assert "aggregate:mean-of-3-groups" in rows["sacreBLEU, mean over groups"].signature
    assert "sacreBLEU (zh)" in rows
    one = results(task.metrics([texts["de"]], examples[:1]), "corpus")
    assert not any("mean over groups" in row.name for row in one)


def test_the_config_says_how_a_pipeline_makes_sources(tmp_path):
    run, outcome = run_and_outcome(source_prefix="reverse: ")
    written(tmp_path, run, outcome)
    saved = json.loads((tmp_path / "config.json").read_text())["task_specific_params"]
    assert saved == {"translation": {"prefix": "reverse: "}}
    template = "{context}<sep> {question}"
    turned = get_task("question-answering", source_template=template)
    assert turned.pipeline_options() == {"source_template": template}
    unsure = get_task("question-answering", source_template=template, no_answer="unanswerable")
    assert unsure.pipeline_options() == {"source_template": template, "no_answer": "unanswerable"}
    assert get_task("question-answering", source_template="{title} {question}").pipeline_options() == {}


def test_options_of_the_model_that_training_began_with_are_not_those_of_the_trained(tmp_path):
    run, outcome = run_and_outcome()
    outcome.model.config.task_specific_params = {"translation": {"prefix": "translate English to German: "}}
    written(tmp_path, run, outcome)
    assert json.loads((tmp_path / "config.json").read_text()).get("task_specific_params") is None
