"""Train, test and save a model: `python train.py recipes/NAME.yaml [--field value ...] [--mapping.key value ...]`.

The output folder, `runs/NAME` unless `--output_dir` says otherwise, gets the model with tokenizer, generation config
and code files, `metrics.json`, `samples.md`, pictures and a model card. `--help` lists the fields.
"""

import shlex
import sys

from huggingface_hub.errors import StrictDataclassError

from crossmask.data.streams import StreamFault
from crossmask.training.arguments import parse_run
from crossmask.training.run import execute, prepare
from crossmask.utils.errors import InputError


def main(argv: list[str]) -> int:
    """Run, and return the exit status: 2 with one line on standard error where the input is at fault."""
    try:
        job = prepare(parse_run(argv, command=shlex.join(["python", "train.py", *argv])))
    except (ValueError, OSError, StrictDataclassError) as error:
        return complain(error)
    try:
        execute(job)
    except (OSError, StreamFault, InputError) as error:
        return complain(error)
    return 0


def complain(error: Exception) -> int:
    reason = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
    print(f"train.py: {' '.join(str(reason).split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
