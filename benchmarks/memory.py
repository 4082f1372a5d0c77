"""Peak memory of output layer and loss, forward and backward: in chunks, against logits of the whole batch.

    python -m benchmarks.memory --vocabulary 32000 --tokens 8192

Transformers' way is `lm_head`, then cross-entropy over all logits, as its BART has it. Every measurement has a process
of its own. What counts is how far the peak rises above what the process had before (hidden states and weight are
there by then, and kernels are loaded), gradients included. On a GPU that is torch's own count. On CPU it is the
resident set, where crossmask's share of it varies from run to run.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from benchmarks.harness import (
    add_run_options,
    in_own_processes,
    machine,
    parse_options,
    peak,
    publish,
    start_peak,
    table,
)
from crossmask.seq2seq.loss import linear_cross_entropy

VARIANTS = ("Transformers", "crossmask")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Sizes:
    vocabulary: int
    tokens: int
    hidden: int


def step(variant: str, hidden: torch.Tensor, head: nn.Linear, labels: torch.Tensor, precision: str) -> torch.Tensor:
    """Loss and gradients for hidden states (1, T, hidden)."""
    with torch.autocast(hidden.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        if variant == "crossmask":
            loss = linear_cross_entropy(hidden, head.weight, labels)
        else:
            logits = head(hidden)
            loss = nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1))
    loss.backward()
    return loss.detach()


def measure(variant: str, precision: str, sizes: Sizes, device: str, threads: int) -> tuple[int, float, float]:
    """Peak bytes, the loss, and CPU seconds of one step."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    head = nn.Linear(sizes.hidden, sizes.vocabulary, bias=False, device=device)
    hidden = torch.randn(1, sizes.tokens, sizes.hidden, device=device)
    labels = torch.randint(sizes.vocabulary, (1, sizes.tokens), device=device)
    small = nn.Linear(sizes.hidden, 16, bias=False, device=device)
    step(variant, hidden[:, :8].clone().requires_grad_(), small, labels[:, :8] % 16, precision)  # loads kernels
    before, start = start_peak(device), time.process_time()
    loss = step(variant, hidden.requires_grad_(), head, labels, precision)
    return peak(device) - before, loss.item(), time.process_time() - start


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--tokens", type=int, default=8192, help="target tokens in a batch")
    parser.add_argument("--hidden-size", type=int, default=256)
    add_run_options(parser, "memory", threads=torch.get_num_threads())
    options = parse_options(parser, argv, quick=("vocabulary", "tokens", "hidden_size"))
    torch.set_num_threads(options.threads)
    sizes = Sizes(options.vocabulary, options.tokens, options.hidden_size)
    if options.quick:
        sizes = Sizes(vocabulary=1000, tokens=4096, hidden=16)
    subjects = list(product(PRECISIONS, VARIANTS))
    calls = [(variant, precision, sizes, options.device, options.threads) for precision, variant in subjects]
    measured = dict(zip(subjects, in_own_processes(measure, calls), strict=True))
    rows = []
    for (precision, variant), (amount, loss, seconds) in measured.items():
        ratio = amount / measured[precision, "Transformers"][0]
        rows.append([precision, variant, f"{loss:.4f}", f"{amount / 2**20:,.0f}", f"{ratio:.2f}", f"{seconds:.1f}"])
    header = ["precision", "variant", "loss", "peak, MiB", "of Transformers'", "CPU seconds"]
    page = (
        f"# Output layer and loss\n\n{machine(options.device)}\n\n{sizes.tokens} target tokens, vocabulary "
        f"{sizes.vocabulary}, hidden size {sizes.hidden}\n\n{table(header, rows, words=2)}"
    )
    publish(page, options.output)


if __name__ == "__main__":
    main()
