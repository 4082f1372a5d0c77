"""All benchmarks, one after the other, each in a process of its own: `python -m benchmarks`.

Every page is printed as it comes, and all of them are in runs/benchmarks/all.md, what is there so far at any time.
"""

import argparse
import subprocess
import sys

from benchmarks.harness import RESULTS
from crossmask.utils.atomic_write import write_text

SCALABLE = ("training", "long_sources", "packed_rows")  # these have a quick form and take a device
OTHERS = ("generation", "memory", "masks")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="training and scaling alone, in seconds, to see they run")
    options = parser.parse_args()
    shared = ["--device", options.device, *(["--quick"] if options.quick else [])]
    commands = dict.fromkeys(SCALABLE, shared) | ({} if options.quick else {name: [] for name in OTHERS})
    pages: list[str] = []
    for name, arguments in commands.items():
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        page = done.stdout.strip()
        pages.append(page if page.startswith("#") else f"# {name.capitalize()}\n\n{page}")
        print(f"{pages[-1]}\n", flush=True)
        write_text(RESULTS / "all.md", "\n\n".join(pages) + "\n")
