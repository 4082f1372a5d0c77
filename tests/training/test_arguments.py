"""Recipes and the command line."""

from pathlib import Path

import pytest
import yaml

from crossmask.training.arguments import BatchingArguments
from crossmask.training.parsing import parse_run
from crossmask.training.run_arguments import RunArguments
from crossmask.utils.errors import InputError

RECIPE = {
    "train": {"format": "cldr", "split": "train"},
    "validation": {"format": "cldr", "split": "validation"},
    "test": {"format": "cldr", "split": "test"},
    "model": {"hidden_size": 32},
    "learning_rate": 1.0e-3,
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return str(path)


def test_a_recipe_gives_fields_and_defaults(recipe):
    run = parse_run([recipe], command="c")
    assert (run.name, run.recipe.data.task, run.recipe.model.model) == ("mini", "translation", {"hidden_size": 32})
    assert (run.arguments.learning_rate, run.arguments.output_dir) == (1e-3, "runs/mini")
    assert run.recipe_text == yaml.safe_dump(RECIPE)
    assert not run.push


def test_the_command_line_goes_over_the_recipe(recipe):
    argv = [
        recipe,
        "--learning_rate",
        "0.5",
        "--model.hidden_size",
        "64",
        "--model.cross_mask=wait_k(3)",
        "--seed",
        "7",
    ]
    run = parse_run(argv, command="c")
    assert run.arguments.learning_rate == 0.5
    assert run.arguments.seed == 7
    assert run.recipe.model.model == {"hidden_size": 64, "cross_mask": "wait_k(3)"}


def test_what_an_alias_repeats_is_changed_where_it_is_named(tmp_path):
    path = tmp_path / "alias.yaml"
    path.write_text("train: {format: cldr}\nvalidation: &dev {format: tsv, path: a.tsv}\ntest: *dev\n")
    data = parse_run([str(path), "--validation.path", "b.tsv"], command="c").recipe.data
    assert (data.validation["path"], data.test["path"]) == ("b.tsv", "a.tsv")


def test_a_mapping_may_be_json(recipe):
    assert parse_run([recipe, "--model", '{"dropout": 0.3}'], command="c").recipe.model.model == {"dropout": 0.3}


@pytest.fixture
def recipe_with_a_list(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "train": [{"format": "cldr"}, {"format": "tsv", "path": "b.tsv"}]}))
    return str(path)


def test_the_command_line_takes_back_what_a_recipe_has(recipe):
    assert parse_run([recipe], command="c").recipe.model.model is not None
    assert parse_run([recipe, "--model", "null"], command="c").recipe.model.model is None


@pytest.mark.parametrize("words", [["--{}", "null"], ["--{}=null"]], ids=" ".join)
def test_null_takes_any_field_back_whatever_its_kind(tmp_path, words):
    fields = {"batch_tokens": 4096, "average_checkpoints": 4, "learning_rate": 0.5, "model": {"dropout": 0.3}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **fields, "batching": "buckets"}))
    taken = [word.format(name) for name in [*fields, "lora"] for word in words]
    run = parse_run([str(path), "--overwrite", *taken], command="c")
    assert run.recipe.batching.batch_tokens == BatchingArguments().batch_tokens
    assert run.recipe.optimization.average_checkpoints is None
    assert run.arguments.learning_rate == RunArguments("x").learning_rate
    assert run.recipe.model.model is None
    with pytest.raises(ValueError, match="no field is named '--lore"):
        parse_run([str(path), *(word.format("lore") for word in words)], command="c")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--num_train_epochs", "4", "--num_train_epochs", "null"], RunArguments("x").num_train_epochs),
        (["--num_train_epochs=4", "--num_train_epochs", "null"], RunArguments("x").num_train_epochs),
        (["--num-train-epochs", "4", "--num-train-epochs=null"], RunArguments("x").num_train_epochs),
        (["--num_train_epochs", "null", "--num_train_epochs", "4"], 4),
        (["--num_train_epochs", "4", "--overwrite", "--num_train_epochs", "null", "--seed", "7"], 3),
    ],
)
def test_the_last_word_on_a_field_counts(recipe, words, expected):
    assert parse_run([recipe, *words], command="c").arguments.num_train_epochs == expected


def test_null_takes_back_all_values_of_a_field_with_several(recipe):
    run = parse_run([recipe, "--freeze", "encoder", "decoder", "--seed", "3", "--freeze", "null"], command="c")
    assert (run.recipe.optimization.freeze, run.arguments.seed) == (None, 3)


def test_sources_may_be_a_list(recipe, recipe_with_a_list):
    argv = [recipe_with_a_list, "--train.1.repeat", "2", "--train.0.limit=9"]
    assert parse_run(argv, command="c").recipe.data.train == [
        {"format": "cldr", "limit": 9},
        {"format": "tsv", "path": "b.tsv", "repeat": 2},
    ]
    given = '[{"format": "tsv", "path": "c.tsv", "tag": "<BT>"}]'
    assert parse_run([recipe, "--train", given], command="c").recipe.data.train == [
        {"format": "tsv", "path": "c.tsv", "tag": "<BT>"}
    ]
    given = '{"format": "tsv", "path": "c.tsv"}'
    assert parse_run([recipe_with_a_list, "--train", given], command="c").recipe.data.train["path"] == "c.tsv"


@pytest.mark.parametrize("field", ["--train.format", "--train.2.limit", "--train.1x.limit", "--train.2"])
def test_a_list_is_counted(recipe_with_a_list, field):
    with pytest.raises(ValueError, match=rf"{field}: '[\w]+' where the recipe has a list of 2: count from 0"):
        parse_run([recipe_with_a_list, field, "3"], command="c")


def test_push_happens_once_at_the_end(recipe):
    run = parse_run([recipe, "--push_to_hub", "--hub_model_id", "me/mini"], command="c")
    assert (run.push, run.repository, run.arguments.push_to_hub) == (True, "me/mini", False)


def test_the_metric_of_the_best_checkpoint_is_left_to_the_task(recipe):
    assert parse_run([recipe], command="c").arguments.metric_for_best_model is None
    arguments = parse_run([recipe, "--metric_for_best_model", "loss"], command="c").arguments
    assert (arguments.metric_for_best_model, arguments.greater_is_better) == ("loss", False)


def test_text_in_quotes_of_its_own_is_text(recipe):
    run = parse_run([recipe, "--task_options.source_template", '"{context}<sep> {question}"'], command="c")
    assert run.recipe.data.task_options == {"source_template": "{context}<sep> {question}"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "name a recipe first"),
        (["--seed", "1"], "name a recipe first"),
        (["RECIPE", "--no_such_field", "1"], "no field is named '--no_such_field'"),
        (["RECIPE", "--learning_rate.x", "1"], "'learning_rate' is not a mapping"),
        (["RECIPE", "--model.dropout"], "--model.dropout needs a value"),
        (["RECIPE", "--model.dropout=", "--overwrite"], "--model.dropout needs a value"),
        (
            ["RECIPE", "--model", '{"hidden_size": 64}', "--model.dropout", "0.3"],
            "--model is given whole and --model.dropout beside it: put the one into the other",
        ),
        (
            ["RECIPE", "--task_options.x=1", '--task-options={"y": 2}'],
            "--task_options is given whole and --task_options.x=1 beside it",
        ),
        (["RECIPE", "--train", "x"], "train must be a mapping or a list of mappings, got 'x'"),
        (["RECIPE", "--task_options", "{1"], "task_options: '{1' is not valid JSON"),
        (
            ["RECIPE", "--task_options.source_template", "{context}<sep> {question}"],
            r"--task_options.source_template: '{context}<sep> {question}' is not valid YAML \(expected .*\); put text "
            r"that looks like YAML in quotes of its own: '\"{context}<sep> {question}\"'",
        ),
        (["RECIPE", "--model.cross_mask=[1"], r"--model.cross_mask: '\[1' is not valid YAML"),
        (["RECIPE", "--seed", "one"], "seed must be a whole number, got 'one'"),
    ],
)
def test_what_does_not_fit_is_named(recipe, argv, message):
    with pytest.raises(ValueError, match=message):
        parse_run([recipe if word == "RECIPE" else word for word in argv], command="c")


def test_fields_that_do_not_exist_are_named(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "learning_rat": 1}))
    with pytest.raises(ValueError, match=r"bad.yaml: no field is named 'learning_rat'"):
        parse_run([str(path)], command="c")
    path.write_text("train: {format: tsv\ntest: 3")
    with pytest.raises(ValueError, match=r"bad.yaml, line 2, column 5: must be valid YAML: ") as error:
        parse_run([str(path)], command="c")
    assert "\n" not in str(error.value)
    path.write_text("- a list")
    with pytest.raises(ValueError, match="a recipe is a mapping"):
        parse_run([str(path)], command="c")
    with pytest.raises(FileNotFoundError):
        parse_run([str(tmp_path / "none.yaml")], command="c")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"batching": "pakced"},
            "batching must be one of examples, packed, buckets, stream, got 'pakced'; did you mean 'packed'?",
        ),
        ({"overlong": "drp"}, "overlong must be one of error, truncate, drop, split, got 'drp'; did you mean 'drop'?"),
        ({"bpe_dropout": True}, "bpe_dropout must be a number, got True"),
        ({"bpe_dropout": [0.1]}, "bpe_dropout must be a number, got [0.1]"),
        ({"bpe_dropout": 1.5}, "bpe_dropout must be at most 1, got 1.5"),
        ({"bpe_dropout": float("nan")}, "bpe_dropout must be more than 0, got nan"),
        ({"bpe_dropout": float("inf")}, "bpe_dropout must be a finite number, got inf"),
        ({"bpe_dropout": 0.0}, "bpe_dropout must be more than 0, got 0.0"),
        ({"neftune_noise_alpha": 0.0}, "neftune_noise_alpha must be more than 0, got 0.0"),
        ({"warmup_steps": 1.5}, "warmup_steps must be a whole number, or a share of the steps below 1, got 1.5"),
        (
            {"learning_rates": {"encoder": 1e39}},
            "learning_rates.encoder must be at most 3.40282e+38, got 1e+39; lower it",
        ),
        ({"bpe_dropout": 0.1, "bpe_dropout_copies": 2.5}, "bpe_dropout_copies must be a whole number, got 2.5"),
        ({"bpe_dropout": 0.1, "bpe_dropout_copies": 0}, "bpe_dropout_copies must be at least 1, got 0"),
        (
            {"bpe_dropout_copies": 3},
            "bpe_dropout_copies must be left out without bpe_dropout, got 3; set bpe_dropout, for instance to 0.1, or "
            "leave the copies out",
        ),
        ({"average_checkpoints": 2.5}, "average_checkpoints must be a whole number, got 2.5"),
        ({"average_checkpoints": 1}, "average_checkpoints must be at least 2, got 1"),
        ({"eval_tokens": 0}, "eval_tokens must be at least 1, got 0"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1, got 0"),
        ({"source_row_length": 0}, "source_row_length must be at least 1, got 0"),
        ({"target_row_length": True}, "target_row_length must be a whole number, got True"),
        ({"stream_buffer": -1}, "stream_buffer must be at least 1, got -1"),
        ({"tokenizer_examples": 0}, "tokenizer_examples must be at least 1, got 0"),
        ({"max_source_length": -3}, "max_source_length must be at least 1, got -3"),
        ({"max_target_length": None}, "max_target_length must be a whole number, got None"),
        ({"max_source_length": "many"}, "max_source_length must be a whole number, got 'many'"),
        ({"samples": -1}, "samples must be at least 0, got -1"),
        ({"early_stopping_patience": 0}, "early_stopping_patience must be at least 1, got 0"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be at least 1, got 0"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be at least 1, got 0"),
        ({"per_device_train_batch_size": 2.5}, "per_device_train_batch_size must be a whole number, got 2.5"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"seed": [1]}, "seed must be a whole number, got [1]"),
        ({"bf16": 1}, "bf16 must be true, false or auto, got 1"),
        ({"language": "en"}, "language must be a list, each item text, got 'en'"),
        ({"multipath_k": [1, 2.5]}, "multipath_k must be a list, each item a whole number, got [1, 2.5]"),
        ({"summary": 3}, "summary must be text, got 3; put it in quotes"),
        (
            {"prediction_loss_only": True},
            "prediction_loss_only must be left out, got true; a run is judged by what its task predicts",
        ),
        ({"model": "big"}, "model must be a mapping from names to values, got 'big'"),
        (
            {"attn_implementation": "blokwise"},
            "attn_implementation must be one of blockwise, eager, flash_attention_2, "
            "flash_attention_3, flash_attention_4, flex_attention, sdpa, got 'blokwise'; did you mean 'blockwise'?",
        ),
    ],
    ids=str,
)
def test_values_of_a_recipe_are_held_against_their_fields(tmp_path, values, message):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **values}))
    with pytest.raises(ValueError) as error:
        parse_run([str(path)], command="c")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bf16", "maybe"], "bf16 must be true, false or auto, got 'maybe'"),
        (["--bf16", "AUTO"], "bf16 must be true, false or auto, got 'AUTO'"),
        (
            ["--lr_scheduler_kwargs", '{"a": 8'],
            """lr_scheduler_kwargs must be JSON, got '{"a": 8': Expecting ',' delimiter: line 1 column 8 (char 7)""",
        ),
    ],
    ids=str,
)
def test_flags_are_held_against_their_fields(tmp_path, flags, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(InputError) as error:
        parse_run([str(path), *flags], command="c")
    assert str(error.value) == message


def test_what_a_default_refuses_says_that_it_is_the_default(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "eval_strategy": "no"}))
    with pytest.raises(InputError, match="; load_best_model_at_end is true here unless it is set to false"):
        parse_run([str(path)], command="c")


def test_numbers_that_fit_are_taken(tmp_path):
    path = tmp_path / "good.yaml"
    values = {"bpe_dropout": 1, "learning_rate": "1e-3", "warmup_steps": 5, "attn_implementation": "some/kernel"}
    path.write_text(yaml.safe_dump({**RECIPE, **values}))
    run = parse_run([str(path)], command="c")
    assert (run.recipe.tokenizer.bpe_dropout, run.arguments.learning_rate, run.arguments.warmup_steps) == (1, 1e-3, 5)
    assert run.recipe.model.attn_implementation == "some/kernel"


def test_a_bare_no_of_yaml_is_no(tmp_path):
    path = tmp_path / "no.yaml"
    strategies = ("eval_strategy", "save_strategy", "logging_strategy")
    path.write_text(yaml.safe_dump({**RECIPE, "load_best_model_at_end": False} | dict.fromkeys(strategies, False)))
    arguments = parse_run([str(path)], command="c").arguments
    assert [getattr(arguments, name) for name in strategies] == ["no"] * 3


@pytest.mark.parametrize(
    "recipe", sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_recipes_of_this_repository_fit(recipe):
    assert parse_run([str(recipe)], command="c").name == recipe.stem
