"""A run that goes on from a checkpoint ends as one that nothing disturbed."""

from pathlib import Path

import pytest
import torch
import yaml
from training_jobs import SIZES, corpus, tiny_tokenizer

from crossmask.training.arguments import parse_run
from crossmask.training.build import build_model, build_tokenizer
from crossmask.training.run import Job, prepare

TOKENIZER = {"vocab_size": 280}


def recipe_file(folder: Path, **changes) -> str:
    """A recipe of 14 steps an epoch, saved every second step; its output goes to `folder`/run."""
    lines = [f"{example.source}\t{example.target}\n" for example in corpus(53)]
    (folder / "pairs.tsv").write_text("".join(lines))
    pairs = {"format": "tsv", "path": str(folder / "pairs.tsv")}
    recipe = {
        "train": pairs, "validation": {**pairs, "limit": 3}, "test": {**pairs, "limit": 3}, "model": SIZES,
        "tokenizer": TOKENIZER, "per_device_train_batch_size": 4, "max_steps": 4, "optim": "sgd",
        "learning_rate": 0.1, "lr_scheduler_type": "constant", "eval_strategy": "no", "save_strategy": "steps",
        "save_steps": 2, "save_total_limit": None, "load_best_model_at_end": False,
        "generation": {"max_new_tokens": 4}, "disable_tqdm": True, "report_to": [],
        "output_dir": str(folder / "run"), **changes,
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def job_of(recipe: str, *options: str) -> Job:
    return prepare(parse_run([recipe, *options], command="c"))


def trained(job: Job) -> tuple[int, dict[str, torch.Tensor]]:
    """How many steps were taken in all, and the weights after them."""
    steps = job.trainer.train(resume_from_checkpoint=str(job.checkpoint) if job.checkpoint else None).global_step
    return steps, job.trainer.model.state_dict()


def assert_goes_on(recipe: str, checkpoint: int, *options: str) -> None:
    """A run that goes on from that checkpoint of the whole run takes as many steps, to the same weights."""
    job = job_of(recipe, *options)
    steps, weights = trained(job)
    again = job_of(recipe, *options, "--resume_from_checkpoint", str(job.folder / f"checkpoint-{checkpoint}"))
    steps_again, weights_again = trained(again)
    assert steps_again == steps
    torch.testing.assert_close(weights_again, weights, rtol=0, atol=0)


@pytest.fixture
def start(tmp_path) -> Path:
    """A folder with a model to fine-tune and its tokenizer."""
    tokenizer = tiny_tokenizer()
    run = parse_run([recipe_file(tmp_path)], command="c")
    build_model(run.recipe, tokenizer).save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    return tmp_path / "start"


@pytest.mark.parametrize("given", ["tokenizer", "model_name_or_path", None])
def test_a_run_goes_on_with_its_tokenizer_wherever_that_is_from(start, tmp_path, given):
    recipe = recipe_file(tmp_path, **({"model": None} if given == "model_name_or_path" else {}))
    options = [f"--{given}", str(start)] if given else []
    assert_goes_on(recipe, 2, *options)


def test_a_run_that_begins_leaves_the_folder_alone(tmp_path):
    """A finished model there keeps its own tokenizer until the new run is finished as well."""
    job_of(recipe_file(tmp_path))
    assert not list((tmp_path / "run").iterdir())


def test_a_checkpoint_without_a_tokenizer_is_named(tmp_path):
    recipe = parse_run([recipe_file(tmp_path)], command="c").recipe
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(OSError, match=r"resume_from_checkpoint: no tokenizer in '.*checkpoint-2'") as error:
        build_tokenizer(recipe, None, [], tmp_path / "checkpoint-2")
    assert "\n" not in str(error.value)
