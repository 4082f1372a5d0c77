"""What a recipe's `search` may say."""

import pytest

from crossmask.training.parsing import parse_run
from crossmask.training.search_space import parse_space, with_values
from crossmask.utils.errors import InputError


def test_ranges_and_choices():
    space = {
        "learning_rate": {"low": "1e-4", "high": 1.0e-2, "log": True},  # PyYAML takes 1e-4 for text
        "warmup_steps": {"low": 0, "high": 300, "step": 100},
        "model.dropout": {"low": 0, "high": 1},
        "model.cross_mask": ["full()", "wait_k(3)"],
        "freeze": {"choices": [None, ["encoder"]]},
    }
    current = {"warmup_steps": 0, "model.dropout": 0.3}
    rate, steps, dropout, mask, freeze = parse_space(space, current.get)
    assert (rate.low, rate.high, rate.log, rate.is_whole) == (1e-4, 1e-2, True, False)
    assert (steps.extremes, steps.step, steps.is_whole) == ((0, 300), 100, True)
    assert not dropout.is_whole  # the recipe has a number that is not whole
    assert mask.extremes == ("full()", "wait_k(3)")
    assert freeze.extremes == (None, ["encoder"])


def test_drawn_values_are_of_the_space():
    optuna = pytest.importorskip("optuna")
    space = {
        "a": {"low": 1.0e-4, "high": 1.0e-2, "log": True},
        "b": {"low": 0, "high": 300, "step": 100},
        "c": {"low": 0.0, "high": 0.4, "step": 0.1},
        "d": [None, ["encoder"], True, 3, "x"],
        "e": {"low": 1, "high": 64, "log": True},
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = []
    for _ in range(60):
        trial = study.ask()
        drawn.append({one.name: one.suggest(trial) for one in parse_space(space)})
        study.tell(trial, 0.0)
    assert all(1e-4 <= one["a"] <= 1e-2 for one in drawn)
    assert {one["b"] for one in drawn} == {0, 100, 200, 300}
    assert sorted({round(one["c"], 6) for one in drawn}) == [0, 0.1, 0.2, 0.3, 0.4]
    assert [one for one in space["d"] if one not in [each["d"] for each in drawn]] == []
    assert {type(one["e"]) for one in drawn} == {int}
    assert sum(one["e"] < 8 for one in drawn) > 20


def test_a_trial_is_the_recipe_with_other_values():
    recipe = {"model": {"dropout": 0.1}, "train": [{"repeat": 1}], "search": {"x": [1, 2]}}
    values = {"model.dropout": 0.3, "train.0.repeat": 2, "learning_rates.classifier": 1e-3}
    assert with_values(recipe, values) == {
        "model": {"dropout": 0.3},
        "train": [{"repeat": 2}],
        "learning_rates": {"classifier": 1e-3},
    }
    assert recipe["model"] == {"dropout": 0.1}
    with pytest.raises(InputError, match=r"search\.train\.1\.repeat: '1' where the recipe has a list of 1"):
        with_values(recipe, {"train.1.repeat": 2})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "search must have at least one field, got none; add"),
        ({3: [1, 2]}, "search must have names of fields, got 3"),
        ({"learning_rate": 3}, r"search.learning_rate must be a range {low: ..., high: ...} or a list"),
        ({"learning_rate": {"low": 1}}, "must have low and high, or choices, got high left out; add it"),
        ({"learning_rate": {"low": 2, "high": 1}}, "a low that is less than high, got low 2 and high 1"),
        ({"learning_rate": {"low": 1, "high": 1}}, "a low that is less than high"),
        ({"learning_rate": {"low": "a", "high": 1}}, "search.learning_rate.low must be a finite number, got 'a'"),
        ({"learning_rate": {"low": True, "high": 1}}, "must be a finite number, got True"),
        ({"learning_rate": {"low": 0, "high": 1, "log": True}}, "low must be more than 0 with log: true, got 0"),
        ({"learning_rate": {"low": 0, "high": 1, "log": 1}}, "log must be true or false, got 1"),
        ({"learning_rate": {"low": 1, "high": 2, "log": True, "step": 1}}, "step must be left out with log"),
        ({"learning_rate": {"low": 0, "high": 1, "step": 0}}, "step must be more than 0, got 0"),
        ({"learning_rate": {"low": 0, "high": 1, "step": 0.3}}, "step must divide the range from 0 to 1, got 0.3"),
        ({"learning_rate": {"low": 0, "high": 1, "steps": 3}}, "search.learning_rate has no setting 'steps': did you"),
        ({"learning_rate": []}, "choices must be a list of two values or more"),
        ({"learning_rate": [1]}, "choices must be a list of two values or more"),
        ({"learning_rate": {"choices": "abc"}}, "choices must be a list of two values or more, got 'abc'"),
        ({"learning_rate": [0.1, 0.1]}, "choices must be different values"),
        ({"learning_rate": {"choices": [1, 2], "low": 1}}, "must have choices or a range, got choices and low"),
        ({"test.limit": [1, 2]}, "search.test.limit must be left out: trials would not be scored alike"),
        ({"output_dir": ["a", "b"]}, "search.output_dir must be left out: crossmask tune gives every trial a folder"),
        ({"search.x": [1, 2]}, "search.search.x must be left out"),
        ({"model": [{}, None], "model.dropout": [0, 1]}, "search.model.dropout must be left out beside search.model"),
    ],
)
def test_spaces_that_cannot_be_searched(space, message):
    with pytest.raises(InputError, match=message):
        parse_space(space)


def test_train_refuses_a_bad_space_too(tmp_path):
    recipe = tmp_path / "r.yaml"
    source = "{format: cldr}"
    recipe.write_text(f"train: {source}\nvalidation: {source}\ntest: {source}\nsearch: {{seed: [1]}}\n")
    with pytest.raises(InputError, match=r"search\.seed\.choices must be a list of two values"):
        parse_run([str(recipe)], command="c")
