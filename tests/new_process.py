"""Python code in a new process, such as that of someone who does not have crossmask."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import torch

# Without garbage collection torch and Transformers are imported in three quarters of the time.
START = "import gc, sys\n\ngc.disable()\n"
WITHOUT_CROSSMASK = """
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "crossmask":
            raise ModuleNotFoundError(f"no module named {name}: blocked")

sys.meta_path.insert(0, Block())
"""
RUN_CASES = """
import json, traceback

failed = {}
for name, case in json.loads(sys.argv.pop()).items():
    try:
        exec(case, dict(globals()))
    except Exception:
        failed[name] = traceback.format_exc()
with open("failed.json", "w") as file:
    json.dump(failed, file)
"""


def run_code(code: str, *arguments: object, cwd: Path, has_crossmask: bool = False, **environment: str) -> str:
    """What the code prints on standard output, run in `cwd` without a network; it must end without an error.

    Args:
        arguments: `sys.argv[1:]`.
        has_crossmask: whether crossmask can be imported.
        environment: variables beside or instead of this process's. Caches are in `cwd`/home by default.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    if not has_crossmask:
        kept.pop("PYTHONPATH", None)
    # To the bit only with the same number of threads.
    kept |= {"OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_HOME": str(cwd / "home"), "HF_HUB_OFFLINE": "1"}
    whole = START + ("" if has_crossmask else WITHOUT_CROSSMASK) + textwrap.dedent(code)
    command = [sys.executable, "-c", whole, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_cases(setup: str, cases: dict[str, str], *arguments: object, cwd: Path, **options) -> dict[str, str]:
    """The tracebacks of the cases that fail, by name; one process runs all, each with what `setup` defines.

    Args:
        cases: code, by name.
        options: of `run_code`.
    """
    cases = {name: textwrap.dedent(case) for name, case in cases.items()}
    run_code(textwrap.dedent(setup) + RUN_CASES, *arguments, json.dumps(cases), cwd=cwd, **options)
    return json.loads((cwd / "failed.json").read_text())
