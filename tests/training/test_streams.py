"""Training on data that is read as a stream: the same examples and features, resumed to the bit, faults named."""

import importlib.util
import json
import random
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.data import DataLoader
from training_jobs import SIZES, corpus, final_weights, run_job, stream_of, tiny_tokenizer

from crossmask.data.packed_stream import StreamFault
from crossmask.tasks import get_task
from crossmask.tasks.base import LengthLimits
from crossmask.tasks.examples import read_examples, to_features
from crossmask.training.parsing import parse_run
from crossmask.training.recipe import RecipeArguments
from crossmask.training.run import execute, prepare
from crossmask.training.run_arguments import RunArguments
from crossmask.training.streams import ExampleStream, check_stream, packed_stream

pytestmark = pytest.mark.usefixtures("without_drawing")
TASK = get_task("translation")


@pytest.fixture
def sources(tmp_path) -> list[dict]:
    """Sources of two and of three records."""
    (tmp_path / "a.tsv").write_text("one\teins\ntwo\tzwei\n")
    (tmp_path / "b.jsonl").write_text("".join(f'{{"source": "{n}", "target": "{n}"}}\n' for n in "345"))
    return [
        {"format": "tsv", "path": str(tmp_path / "a.tsv"), "repeat": 2},
        {"format": "jsonl", "path": str(tmp_path / "b.jsonl"), "tag": "<BT>"},
    ]


def test_sources_come_in_turn_and_are_all_that_a_list_has(sources):
    stream = ExampleStream.of(sources, TASK, "train")
    named = [(name, example.source) for name, example in stream]
    assert [source for _, source in named] == ["one", "two", "<BT>3", "one", "two", "<BT>4", "<BT>5"]
    assert named[2][0] == "train[1], record 1"
    assert [name for name, _ in named] == [name for name, _ in stream]
    assert sorted(example.source for _, example in stream) == sorted(
        example.source for example in read_examples(sources, TASK, "train")
    )
    assert [example.target for example in stream.first(2)] == ["eins", "zwei"]


def recipe_of(**fields) -> RecipeArguments:
    somewhere = {"format": "tsv", "path": "nowhere.tsv"}
    lengths = {"source_row_length": 24, "target_row_length": 24, "max_source_length": 24, "max_target_length": 24}
    return RecipeArguments.of(
        train=somewhere, validation=somewhere, test=somewhere, **{**lengths, "stream_buffer": 20, **fields}
    )


def stream(folder: Path, **fields):
    arguments = RunArguments(output_dir=str(folder), max_steps=1, report_to=[], use_cpu=True)
    recipe, examples = recipe_of(**fields), stream_of(corpus(), folder / "pairs.tsv")
    return packed_stream(recipe.data, recipe.batching, arguments, examples, tiny_tokenizer())


@pytest.mark.parametrize(("overlong", "longest"), [("error", 24), ("truncate", 6), ("drop", 6)])
def test_a_pass_has_the_features_of_training_in_memory(tmp_path, overlong, longest):
    limits = {"max_source_length": longest, "max_target_length": 24, "overlong": overlong}
    expected = to_features(corpus(), TASK, tiny_tokenizer(), LengthLimits(**limits))
    assert overlong == "error" or len(expected) < 53 or max(map(len, expected["input_ids"])) == 6
    made = stream(tmp_path, **limits)
    made.epochs = 1
    found = [feature for batch in made for row in batch for feature in row]
    key = [(tuple(row["input_ids"]), tuple(row["labels"])) for row in expected]
    assert sorted((tuple(f["input_ids"].tolist()), tuple(f["labels"].tolist())) for f in found) == sorted(key)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_to_the_bit(tmp_path, workers):
    options = {"batching": "stream", "dataloader_num_workers": workers}
    saving = {"save_strategy": "steps", "save_steps": 6, "save_total_limit": None}
    whole = run_job(str(tmp_path / "whole"), **options, **saving)
    assert len(whole["losses"]) == 10
    run_job(str(tmp_path / "resumed"), **options, resume=str(tmp_path / "whole" / "checkpoint-6"))
    after = final_weights(tmp_path / "resumed")
    for name, weights in final_weights(tmp_path / "whole").items():
        torch.testing.assert_close(after[name], weights, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("states", "workers", "refused"),
    [(["_0", "_1"], 2, True), (["_0", "_1"], 1, False), ([""], 2, False), ([], 2, False)],
)
def test_workers_of_another_number_of_processes_do_not_go_on(tmp_path, states, workers, refused):
    checkpoint = tmp_path / "checkpoint-6"
    checkpoint.mkdir()
    for state in states:
        (checkpoint / f"rng_state{state}.pth").touch()
    arguments = RunArguments(
        str(tmp_path), max_steps=9, eval_strategy="no", save_strategy="no", load_best_model_at_end=False, use_cpu=True,
        report_to=[], dataloader_num_workers=workers,
    )  # fmt: skip
    if refused:
        with pytest.raises(ValueError, match=r"checkpoint-6 is of 2 processes, this run has 1: .* go on with 2$"):
            check_stream(recipe_of(), TASK, arguments, checkpoint)
    else:
        check_stream(recipe_of(), TASK, arguments, checkpoint)


def test_workers_read_every_example(tmp_path):
    loader = DataLoader(stream(tmp_path), batch_size=None, num_workers=2, collate_fn=list)
    found = set()
    for batch in islice(loader, 40):
        found |= {tuple(feature["input_ids"].tolist()) for row in batch for feature in row}
    assert found == {tuple(ids) for ids in tiny_tokenizer()([example.source for example in corpus()]).input_ids}


def recipe_file(folder: Path, **changes) -> str:
    draw = random.Random(0)
    lines = [" ".join(draw.choices(["ha", "ho", "hi"], k=draw.randint(1, 6))) for _ in range(120)]
    (folder / "a.tsv").write_text("".join(f"{line}\t{line.upper()}\n" for line in lines[:70]))
    (folder / "b.tsv").write_text("".join(f"{line}\t{line.upper()}\n" for line in lines[70:]))
    a, b = ({"format": "tsv", "path": str(folder / name)} for name in ("a.tsv", "b.tsv"))
    recipe = {
        "train": [a, {**b, "tag": "<b>"}], "validation": {**a, "limit": 4}, "test": {**a, "limit": 4}, "model": SIZES,
        "tokenizer": {"vocab_size": 280}, "tokenizer_examples": 30, "batching": "stream", "stream_buffer": 32,
        "source_row_length": 32, "target_row_length": 32, "max_source_length": 32, "max_target_length": 32,
        "per_device_train_batch_size": 4, "max_steps": 4, "eval_strategy": "steps", "save_strategy": "steps",
        "eval_steps": 2, "save_steps": 2, "generation": {"max_new_tokens": 4}, "disable_tqdm": True, "report_to": [],
        "output_dir": str(folder / "run"), **changes,
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def test_the_main_job(tmp_path):
    execute(prepare(parse_run([recipe_file(tmp_path)], command="c")))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "sacrebleu" in metrics
    assert "train_examples" not in metrics
    assert "A stream of examples, declared in the recipe as `[{" in (tmp_path / "run" / "README.md").read_text()


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("train", Path(__file__).parents[2] / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": -1}, "max_steps must be given with batching: stream, which has no end"),
        (
            {"eval_strategy": "epoch", "eval_steps": None, "load_best_model_at_end": False},
            "eval_strategy must be steps or no with batching: stream",
        ),
        (
            {"save_strategy": "epoch", "save_steps": 500, "load_best_model_at_end": False},
            "save_strategy must be steps or no with batching: stream",
        ),
        ({"source_row_length": 31}, "source_row_length must be at least max_source_length=32"),
        ({"train": [{"format": "tsv", "path": "no.tsv"}]}, "train[0]: no.tsv must be a text file"),
        ({"overlong": "ignore"}, "got 'ignore'"),
        ({"bpe_dropout": 0.1}, "bpe_dropout must be left out with batching: stream"),
        ({"stream_buffer": 0}, "stream_buffer must be at least 1, got 0"),
    ],
)
def test_what_a_stream_cannot_do_is_named(main, tmp_path, capsys, changes, message):
    assert main([recipe_file(tmp_path, **changes)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("train.py: ")
    assert message in line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no tab", "b.tsv, line 45: must have column 1"),
        ("ha " * 40 + "\tHA", "train[1], record 45: its"),
    ],
)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_fault_that_is_found_on_the_way_is_one_line(main, tmp_path, capsys, line, message, workers):
    recipe = recipe_file(tmp_path)
    lines = (tmp_path / "b.tsv").read_text().splitlines()
    (tmp_path / "b.tsv").write_text("\n".join([*lines[:44], line, *lines[45:]]))
    options = ["--max_steps", "30", "--save_steps", "1", "--eval_steps", "1", "--dataloader_num_workers", workers]
    assert main([recipe, *options]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("train.py: train[1]")
    assert message in last
    assert "Traceback" not in last
    assert list((tmp_path / "run").glob("checkpoint-*"))


def test_a_stream_of_which_nothing_is_left_is_one_line(main, tmp_path, capsys):
    recipe = recipe_file(
        tmp_path, max_source_length=1, model={**SIZES, "max_position_embeddings": 32}, overlong="drop"
    )
    assert main([recipe]) == 2
    assert (
        "train.py: the stream must give an example in every epoch" in capsys.readouterr().err.strip().splitlines()[-1]
    )


def test_a_fault_in_the_stream_is_a_stream_fault(sources, tmp_path):
    (tmp_path / "b.jsonl").write_text('{"source": "3", "target": "3"}\n{"source": "", "target": "4"}\n')
    with pytest.raises(StreamFault, match=r"train\[1\]: .*b.jsonl, record 2: column 'source' must not be empty"):
        list(ExampleStream.of(sources, TASK, "train"))
