"""Training of a tiny model, alone or as one of several processes; see training/test_processes."""

import gc
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase
from transformers.distributed import DistributedConfig

from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.seq2seq.decoder_inputs import IGNORED
from crossmask.tasks import get_task
from crossmask.tasks.base import Example
from crossmask.train import main
from crossmask.training.build_model import build_model
from crossmask.training.build_trainer import build_trainer
from crossmask.training.parsing import parse_run
from crossmask.training.recipe import RecipeArguments
from crossmask.training.run import PreparedRun, prepare
from crossmask.training.run_arguments import RunArguments
from crossmask.training.streams import ExampleStream
from crossmask.training.trainer import CrossMaskTrainer

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
    "dropout": 0.0,
}
SOMEWHERE = {"format": "tsv", "path": "nowhere.tsv"}
NO_DATA = {**dict.fromkeys(("train", "validation", "test"), SOMEWHERE), "report_to": "none"}  # a recipe


def recipe_file(folder: Path, **changes) -> str:
    """A recipe of 14 steps an epoch, saved every second step; its output goes to `folder`/run."""
    lines = [f"{example.source}\t{example.target}\n" for example in corpus(53)]
    (folder / "pairs.tsv").write_text("".join(lines))
    pairs = {"format": "tsv", "path": str(folder / "pairs.tsv")}
    recipe = {
        "train": pairs, "validation": {**pairs, "limit": 3}, "test": {**pairs, "limit": 3}, "model": SIZES,
        "tokenizer": {"vocab_size": 280}, "per_device_train_batch_size": 4, "max_steps": 4, "optim": "sgd",
        "learning_rate": 0.1, "lr_scheduler_type": "constant", "eval_strategy": "no", "save_strategy": "steps",
        "save_steps": 2, "save_total_limit": None, "load_best_model_at_end": False,
        "generation": {"max_new_tokens": 4}, "disable_tqdm": True, "report_to": [],
        "output_dir": str(folder / "run"), **changes,
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def run_main(capfd, *argv: object) -> tuple[int, str, str]:
    """The exit status, the last line on standard error, and all that was printed."""
    status = main([str(word) for word in argv])
    printed = capfd.readouterr()
    return status, (printed.err.strip().splitlines() or [""])[-1], printed.out + printed.err


def job_of(recipe: str, *options: str) -> PreparedRun:
    return prepare(parse_run([recipe, *options], command="c"))


def trained(job: PreparedRun) -> tuple[int, dict[str, torch.Tensor]]:
    """How many steps were taken in all, and the weights after them."""
    steps = job.trainer.train(resume_from_checkpoint=str(job.checkpoint) if job.checkpoint else None).global_step
    return steps, job.trainer.model.state_dict()


def assert_goes_on(recipe: str, checkpoint: int, *options: str) -> int:
    """A run that goes on from that checkpoint of the whole run takes the same steps, to the same weights."""
    job = job_of(recipe, *options)
    steps, weights = trained(job)
    again = job_of(recipe, *options, "--resume_from_checkpoint", str(job.folder / f"checkpoint-{checkpoint}"))
    steps_again, weights_again = trained(again)
    assert steps_again == steps
    torch.testing.assert_close(weights_again, weights, rtol=0, atol=0)
    return steps


def corpus(count: int = 53) -> list[Example]:
    """Examples of one to nine words, and targets of another length than their sources."""
    draw = random.Random(0)
    words = ["ha", "ho", "hi", "hu"]
    sources = [" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(count)]
    return [Example(text, f"{text} {text}"[: 4 + 2 * len(text) // 3], (text,)) for text in sources]


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer([example.source for example in corpus()], 266)


class RecordingTrainer(CrossMaskTrainer):
    """Keeps how many target tokens every process was fed."""

    fed = 0

    def training_step(self, model, inputs, *args, **kwargs):
        self.fed += int((inputs["labels"] != IGNORED).sum())
        return super().training_step(model, inputs, *args, **kwargs)


def tiny_trainer(
    folder: Path,
    batching: str,
    size: int = 2,
    accumulation: int = 1,
    start: str | None = None,
    r_drop: float | None = None,
    teacher: str | None = None,
    **options,
) -> CrossMaskTrainer:
    """Batches as the recipe has them, or those of a stream.

    Args:
        size: rows or examples in a batch, or thirtieths of a bucket's tokens.
        start: a saved model to train, its weights spread over two processes by FSDP2.
    """
    recipe = RecipeArguments.of(
        train=SOMEWHERE, validation=SOMEWHERE, test=SOMEWHERE, model=SIZES, batching=batching, stream_buffer=20,
        max_source_length=64, max_target_length=64, source_row_length=24, target_row_length=24, batch_tokens=30 * size,
        eval_tokens=90, r_drop=r_drop, teacher=teacher,
    )  # fmt: skip
    settings = {
        **({"max_steps": 10} if batching == "stream" else {"num_train_epochs": 2}),
        "optim": "sgd",  # whose steps are as large as gradients differ; Adam's are not
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "label_smoothing_factor": 0.1,
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        **options,
    }
    arguments = RunArguments(
        output_dir=str(folder),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        seed=3,
        **settings,
    )
    torch.manual_seed(0)
    tokenizer, task = tiny_tokenizer(), get_task("translation")
    model = build_model(recipe.model, recipe.data.limits, task, tokenizer)
    if start is not None:
        model = AutoModelForSeq2SeqLM.from_pretrained(start, distributed_config=DistributedConfig(fsdp_size=2))
    train = stream_of(corpus(), folder.with_suffix(".tsv")) if batching == "stream" else corpus()
    trainer = build_trainer(recipe, arguments, task, tokenizer, model, train, corpus(7))
    trainer.__class__ = RecordingTrainer
    return trainer


def stream_of(examples: list[Example], path: Path) -> ExampleStream:
    """The examples, written to a file and read from it."""
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text("".join(f"{example.source}\t{example.target}\n" for example in examples))
    beside.replace(path)  # several processes may write it at a time
    return ExampleStream.of({"format": "tsv", "path": str(path)}, get_task("translation"), "train")


def part_of(parameter: torch.Tensor) -> torch.Tensor:
    """What this process holds of it."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def run_job(folder: str, resume: str | None = None, evaluate: bool = False, **settings) -> dict:
    """Trains, saves the model in `folder`, and tells what there was to see on the way."""
    trainer = tiny_trainer(Path(folder), **settings)
    trainer.train(resume_from_checkpoint=resume)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    result = {"losses": [entry["loss"] for entry in history], "norms": [entry["grad_norm"] for entry in history]}
    result["fed"] = trainer.fed
    result["held"] = sum(part_of(p).numel() for p in trainer.model.parameters())
    if evaluate:
        metrics = trainer.evaluate()
        result["metrics"] = {key: metrics[key] for key in ("eval_loss", "eval_chrf")}
        result["predictions"] = trainer.predictions
    whole = trainer.whole_model()
    if trainer.is_world_process_zero():
        whole.save_pretrained(Path(folder, "final"))
    return result


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def run_jobs(jobs: dict[str, dict], folder: Path, processes: int) -> list[dict[str, dict]]:
    """What `run_job` returns for every job, in each of several new processes."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(processes)}
    started = []
    for rank in range(processes):
        place = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
        environment = {
            **os.environ,
            **place,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, __file__, json.dumps(jobs), str(folder / f"results-{rank}.json")]
        with (folder / f"log-{rank}").open("w") as log:
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        codes = [process.wait(timeout=1500) for process in started]
    finally:
        for process in started:
            process.kill()
    assert not any(codes), "\n".join((folder / f"log-{rank}").read_text()[-3000:] for rank in range(processes))
    return [json.loads((folder / f"results-{rank}.json").read_text()) for rank in range(processes)]


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForSeq2SeqLM.from_pretrained(folder / "final").state_dict()


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.freeze()  # Trainer collects garbage, of which what was imported has none
    jobs, target = sys.argv[1:]
    results = {name: run_job(**settings) for name, settings in json.loads(jobs).items()}
    Path(target).write_text(json.dumps(results))
    # Left to the end of the process, its threads abort it at times.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
