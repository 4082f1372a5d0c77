"""Benchmarks that need no engine, server or whole training, one after the other: `python -m benchmarks`.

Each runs in a process of its own. Each page is printed as soon as it is there, and runs/benchmarks/all.md has those
that are there so far (with `--quick` runs/benchmarks/quick/all.md).
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.harness import add_page_options
from crossmask.utils.atomic_write import write_text

NAMES = ("training", "long_sources", "packed_rows", "generation", "bridge", "attached", "memory", "masks")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    add_page_options(parser, "all")
    options = parser.parse_args(argv)
    arguments = ["--device", options.device, *(["--quick"] if options.quick else [])]
    pages: list[str] = []
    for name in NAMES:
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        pages.append(done.stdout.strip())
        print(f"{pages[-1]}\n", flush=True)
        write_text(options.output, "\n\n".join(pages) + "\n")


if __name__ == "__main__":
    main()
