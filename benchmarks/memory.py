"""Peak memory of output layer and loss, forward and backward: in chunks, against logits of the whole batch.

    python -m benchmarks.memory --vocabulary 32000 --tokens 8192

Transformers' way is `lm_head`, then cross-entropy over all logits, as its BART has it. Every measurement has a process
of its own; counted is how far the peak rises above what the process had before (hidden states and weight are there by
then, and kernels are loaded), gradients included. On a GPU that is torch's own count, else the resident set.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.harness import RESULTS, machine, peak, publish, table
from crossmask.seq2seq.loss import linear_cross_entropy

SIDES = ("Transformers", "crossmask")
PRECISIONS = ("float32", "bfloat16")


def step(side: str, hidden: torch.Tensor, head: nn.Linear, labels: torch.Tensor, precision: str) -> torch.Tensor:
    """Loss and gradients for hidden states (1, T, hidden)."""
    with torch.autocast(hidden.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        if side == "crossmask":
            loss = linear_cross_entropy(hidden, head.weight, labels)
        else:
            logits = head(hidden)
            loss = nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1))
    loss.backward()
    return loss.detach()


def measure(side: str, precision: str, options: argparse.Namespace) -> dict[str, float]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    head = nn.Linear(options.hidden_size, options.vocabulary, bias=False, device=device)
    hidden = torch.randn(1, options.tokens, options.hidden_size, device=device)
    labels = torch.randint(options.vocabulary, (1, options.tokens), device=device)
    small = nn.Linear(options.hidden_size, 16, bias=False, device=device)
    step(side, hidden[:, :8].clone().requires_grad_(), small, labels[:, :8] % 16, precision)
    before, started = peak(device), time.process_time()
    loss = step(side, hidden.requires_grad_(), head, labels, precision)
    return {"bytes": peak(device) - before, "loss": loss.item(), "seconds": time.process_time() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--tokens", type=int, default=8192, help="target tokens in a batch")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--only", nargs=2, metavar=("SIDE", "PRECISION"), help="one measurement, as JSON")
    parser.add_argument("--output", type=Path, default=RESULTS / "memory.md")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(*options.only, options)))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for precision in PRECISIONS:
        found = {}
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.memory", *sys.argv[1:], "--only", side, precision]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            found[side] = json.loads(run.stdout)
        for side, values in found.items():
            ratio = values["bytes"] / found["Transformers"]["bytes"]
            amount = [f"{values['bytes'] / 2**20:,.0f}", f"{ratio:.2f}", f"{values['seconds']:.1f}"]
            rows.append([precision, side, f"{values['loss']:.4f}", *amount])
    sizes = f"{options.tokens} target tokens, vocabulary {options.vocabulary}, hidden size {options.hidden_size}"
    header = ["precision", "side", "loss", "peak, MiB", "of Transformers'", "CPU seconds"]
    publish(
        f"# Output layer and loss\n\n{machine(device)}\n\n{sizes}\n\n{table(header, rows, words=2)}", options.output
    )


if __name__ == "__main__":
    main()
