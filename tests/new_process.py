"""Python code in a new process, such as that of someone who does not have crossmask."""

import functools
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import torch

# Imports torch, which is most of what a new process does, and forks for each line, so that every process has imported
# torch and no more. Without garbage collection torch and Transformers are imported in three quarters of the time.
SERVER = """
import gc, json, os, sys, types

gc.disable()
import torch, torch._dynamo

for line in sys.stdin:
    if os.fork() == 0:
        break
    _, status = os.wait()
    print(os.waitstatus_to_exitcode(status), flush=True)
else:
    sys.exit()

request = json.loads(line)
for descriptor, path in enumerate((os.devnull, *request["outputs"])):
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
os.environ.clear()
os.environ.update(request["environment"])
os.chdir(request["cwd"])
sys.argv[1:] = request["arguments"]
sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
sys.modules["__main__"] = types.ModuleType("__main__")
exec(request["code"], sys.modules["__main__"].__dict__)
"""
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

    The code has `sys`; torch and what it needs are imported.

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
    request = {
        "code": "import sys\n" + ("" if has_crossmask else WITHOUT_CROSSMASK) + textwrap.dedent(code),
        "arguments": [str(argument) for argument in arguments],
        "cwd": str(cwd),
        "environment": {**kept, **environment},
    }
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        server = _server()
        print(json.dumps({**request, "outputs": [str(path) for path in outputs]}), file=server.stdin, flush=True)
        status = server.stdout.readline()
        stdout, stderr = (path.read_text() for path in outputs)
    assert status == "0\n", stderr
    return stdout


@functools.cache
def _server() -> subprocess.Popen:
    """It ends with this process, which closes its standard input."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", SERVER]
    return subprocess.Popen(command, env=kept, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_cases(setup: str, cases: dict[str, str], *arguments: object, cwd: Path, **options) -> dict[str, str]:
    """The tracebacks of the cases that fail, by name; one process runs all, each with what `setup` defines.

    Args:
        cases: code, by name.
        options: of `run_code`.
    """
    cases = {name: textwrap.dedent(case) for name, case in cases.items()}
    run_code(textwrap.dedent(setup) + RUN_CASES, *arguments, json.dumps(cases), cwd=cwd, **options)
    return json.loads((cwd / "failed.json").read_text())
