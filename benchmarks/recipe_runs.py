"""Recipes with some fields changed, trained in processes of their own, for benchmarks of whole runs."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmask.utils.atomic_write import write_text

RESULTS = "results.json"
BY_ADAMW = (
    *("--optim", "adamw_torch_fused", "--optim_args", "null", "--learning_rate", "2e-3"),
    *("--lr_scheduler_type", "cosine", "--warmup_steps", "400", "--num_train_epochs", "13"),
    *("--per_device_train_batch_size", "12", "--model.dropout", "0.3"),
)
"""Fields that make `recipes/multi30k-en-de.yaml` what it was before Muon, which bridges are still compared with.

It also had `average_checkpoints` of 4, which is for a benchmark to say.
"""


@dataclass(frozen=True)
class Finished:
    """What a run left in its folder."""

    log: Sequence[Mapping[str, float]]
    metrics: Mapping[str, Any]
    cpu_minutes: float  # of the whole process that ended it, evaluations included

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
    """
    results = folder / RESULTS
    if not results.exists():
        command = [sys.executable, "train.py", recipe, "--output_dir", str(folder), *changed]
        if any(folder.glob("checkpoint-*")):
            command += ["--resume_from_checkpoint", "last"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        write_text(results, json.dumps({"cpu_minutes": spent / 60}))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return Finished(log, json.loads((folder / "metrics.json").read_text()), **json.loads(results.read_text()))
