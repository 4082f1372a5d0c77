"""Check types with mypy; in folders that still have errors, their number may only fall (`make types`).

`[tool.crossmask.type-errors]` of pyproject.toml has the number of each folder. Any other number fails: new errors must
be fixed, and a smaller number must be written there, so that errors do not come back.
"""

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".mypy_cache"
_ERROR = re.compile(r"^(?:.*/)?crossmask/(?P<path>[^:]+\.py):\d+: error: ")


def find_errors() -> list[tuple[str, str]]:
    """Folder and line of every error.

    Raises:
        SystemExit: mypy itself fails.
    """
    # The root is the package, and mypy finds packages by their folders' names.
    source = CACHE / "source"
    source.mkdir(parents=True, exist_ok=True)
    link = source / "crossmask"
    if not link.is_symlink():
        link.symlink_to(ROOT, target_is_directory=True)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", str(CACHE)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "MYPYPATH": str(source)}, capture_output=True, text=True
    )
    if done.returncode not in (0, 1):
        sys.exit(f"mypy failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    matches = ((_ERROR.match(line), line) for line in done.stdout.splitlines())
    return [(folder_of(match["path"]), line) for match, line in matches if match]


def folder_of(path: str) -> str:
    """`"modeling"` for `seq2seq/simultaneous/session.py`, `"."` for `train.py`."""
    return path.split("/")[0] if "/" in path else "."


def compare(counts: dict[str, int], limits: dict[str, int]) -> list[str]:
    """One line for each folder whose number of errors differs from its limit."""
    problems = []
    for folder in sorted({*counts, *limits}):
        count, limit = counts.get(folder, 0), limits.get(folder, 0)
        if count > limit:
            problems.append(f"{folder} must have at most {limit} type errors, got {count}; fix the new ones")
        elif count < limit:
            fix = f"write {folder} = {count}" if count else f"delete the line of {folder}"
            problems.append(
                f"{folder} must have {limit} type errors as written down, got {count}; {fix} in pyproject.toml"
            )
    return problems


def main() -> int:
    """Print the problems; returns the exit status."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    limits = settings["tool"]["crossmask"]["type-errors"]
    errors = find_errors()
    counts = Counter(folder for folder, _ in errors)
    problems = compare(counts, limits)
    for folder, line in errors:
        if counts[folder] > limits.get(folder, 0):
            print(line)
    print("\n".join(problems) or f"types: {len(errors)} errors, as allowed; none in folders that are not listed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
