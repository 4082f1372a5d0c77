"""Recipes with some fields changed, trained in processes of their own, for benchmarks of whole runs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from crossmask.training.parsing import parse_run
from crossmask.training.run import prepare
from crossmask.utils.atomic_write import write_text

COMMAND = "command.json"
WARM_UP_STEPS, TIMED_STEPS, PROFILED_STEPS = 3, 20, 5
BY_ADAMW = (
    *("--optim", "adamw_torch_fused", "--optim_args", "null", "--learning_rate", "2e-3"),
    *("--lr_scheduler_type", "cosine", "--lr_scheduler_kwargs", "null", "--warmup_steps", "400"),
    *("--num_train_epochs", "13", "--weight_decay", "0"),
    *("--per_device_train_batch_size", "12", "--model.dropout", "0.3", "--model.residual_initializer_range", "null"),
)
"""Fields that make `recipes/multi30k-en-de.yaml` what it was before Muon, which bridges are still compared with.

It also had `average_checkpoints` of 4, which is for a benchmark to say.
"""


@dataclass(frozen=True)
class Finished:
    """What a run left in its folder."""

    log: Sequence[Mapping[str, float]]
    metrics: Mapping[str, Any]

    def evaluations(self, metric: str) -> list[Mapping[str, float]]:
        """The entries of the log that have this metric, one a step.

        The mean of checkpoints, which is evaluated at the end once more, is left out.
        """
        by_step: dict[float, Mapping[str, float]] = {}
        for entry in self.log:
            if metric in entry:
                by_step.setdefault(entry["step"], entry)
        return list(by_step.values())


def train(folder: Path, recipe: str, changed: Sequence[str]) -> Finished:
    """Train on one thread, unless that is done; a run that was interrupted goes on from its last checkpoint.

    Args:
        folder: of the run. recipe: a file. changed: options of `train.py`.

    Raises:
        SystemExit: the folder has a run with other options, of the recipe as it was, or by another command.
    """
    results, started = folder / "metrics.json", folder / COMMAND  # the last file of a run, and the first
    given = {"recipe": yaml.safe_load(Path(recipe).read_text()), "options": [*changed]}
    is_other = json.loads(started.read_text()) != given if started.exists() else results.exists()
    if is_other:
        raise SystemExit(
            f"{folder} must be of a run with the same recipe and options; delete it, or choose another folder of runs"
        )
    if not results.exists():
        write_text(started, json.dumps(given))
        command = [sys.executable, "train.py", recipe, "--output_dir", str(folder), *changed]
        if any(folder.glob("checkpoint-*")):
            command += ["--resume_from_checkpoint", "last"]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return Finished(log, json.loads(results.read_text()))


@dataclass(frozen=True)
class Step:
    """A training step of a recipe on the CPU."""

    seconds: float  # of the processor, without a profiler
    operations: Mapping[str, float]  # seconds of each, without those that it calls, the longest first


class _MeasuredSteps(TrainerCallback):
    """Times the steps after the first ones, and records the operations of those after them."""

    def __init__(self) -> None:
        self.profile = profile(activities=[ProfilerActivity.CPU])
        self.seconds = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == WARM_UP_STEPS:
            self.seconds = -time.process_time()
        elif state.global_step == WARM_UP_STEPS + TIMED_STEPS:
            self.seconds += time.process_time()
            self.profile.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.profile.stop()


def measure_step(recipe: str, changed: Sequence[str]) -> Step:
    """Train for a few steps, in this process.

    Args:
        recipe: a file. changed: options of `train.py`.
    """
    short = (
        *("--max_steps", str(WARM_UP_STEPS + TIMED_STEPS + PROFILED_STEPS), "--warmup_steps", "0"),
        *("--lr_scheduler_type", "linear", "--lr_scheduler_kwargs", "null"),
        *("--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"),
        *("--average_checkpoints", "null", "--report_to", "none"),
    )
    steps = _MeasuredSteps()
    with TemporaryDirectory() as folder:
        job = prepare(parse_run([recipe, *changed, *short, "--output_dir", folder], command="profile"))
        job.trainer.add_callback(steps)
        job.trainer.train()
    spent = {entry.key: entry.self_cpu_time_total / 1e6 / PROFILED_STEPS for entry in steps.profile.key_averages()}
    return Step(steps.seconds / TIMED_STEPS, dict(sorted(spent.items(), key=lambda item: -item[1])))
