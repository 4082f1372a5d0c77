"""All benchmarks, each in a process of its own: `python -m benchmarks`."""

import subprocess
import sys

SCRIPTS = ("training", "generation", "memory", "long_sources", "masks")

if __name__ == "__main__":
    for script in SCRIPTS:
        subprocess.run([sys.executable, "-m", f"benchmarks.{script}"], check=True)
