"""Train, test and save a model: `python train.py recipes/NAME.yaml [--field value ...] [--mapping.key value ...]`.

The output folder, `runs/NAME` unless `--output_dir` says otherwise, gets the model with tokenizer, generation config
and code files, `metrics.json`, `samples.md`, pictures and a model card. `--help` lists the fields.
"""

import shlex
import sys

from crossmask.training.parsing import parse_run
from crossmask.training.run import execute, prepare
from crossmask.utils.cli import run_command


def main(argv: list[str]) -> int:
    """Run, and return the exit status: 2 with one line on standard error where the input is at fault."""

    def train() -> None:
        execute(prepare(parse_run(argv, command=shlex.join(["python", "train.py", *argv]))))

    return run_command("train.py", train, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
