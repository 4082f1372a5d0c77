"""What each mask costs over a long source: attention in blocks against SDPA under a mask of all pairs.

    python -m benchmarks.masks --length 4096 --repeats 5

Prints a Markdown table, and writes it. The mask is compiled anew each time, as it is once a forward pass, and
attention runs forward and backward: one row, 4 heads of width 32, float32, equal numbers of queries and keys, without
projections and feed-forward. Medians of process CPU time over interleaved repeats, after one that is not counted.
"""

import argparse
import os
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.harness import RESULTS, interleave, machine, medians, publish, table
from crossmask import masks
from crossmask.attention.backends import attend, compile_masks
from crossmask.attention.base import MaskRequest
from crossmask.attention.blockwise import BlockwiseMask

HEADS, WIDTH = 4, 32
MODULE = SimpleNamespace(num_key_value_groups=1, training=True, is_causal=False)
BACKENDS = ("blockwise", "sdpa")


def subjects(length: int) -> dict[str, tuple[masks.Mask, masks.Layout]]:
    """Masks by the name that they have in the table, with the source that they are for."""
    cpu, eighth = torch.device("cpu"), torch.arange(length)[None] // (length // 8)
    whole = masks.lay_out(length, cpu, passage_ids=eighth, rows=1)
    packed = masks.lay_out(length, cpu, segment_ids=eighth + 1, rows=1)
    texts = [
        *("full()", "causal()", "wait_k(3)", "window(64)", "window(64) | prefix(4)", "dilated(8)"),
        *("dilated(8) & window(64)", "blocks(64)", "chunked(64)", "chunked(size=64, lookback=1)"),
        *("monotonic(slope=1.0, width=64)", "random(p=0.1, seed=0)", "passages()", "keep(passages=(2,))"),
        *(f"{name}((0, {length // 8}))" for name in ("keep", "drop", "blind")),
        *("heads({0: window(64), 'rest': window(16)})", "heads({0: window(64), 'rest': full()})"),
    ]
    found = {f"`{text}`".replace("|", "\\|"): (masks.parse(text), whole) for text in texts}
    found["`alignment(points, width=16)`"] = masks.alignment(tuple(range(length)), width=16), whole
    found["`segments()`: a packed row"] = masks.full(), packed
    return found


def compiled(name: str, mask: masks.Mask, side: masks.Layout) -> object:
    return compile_masks(name, [MaskRequest(mask, side, side, heads=HEADS)])[0]


def step(name: str, mask: masks.Mask, side: masks.Layout, states: list[torch.Tensor]) -> None:
    """Compile, forward, backward."""
    output, _ = attend(name, MODULE, *states, compiled(name, mask, side), scaling=WIDTH**-0.5, dropout=0.0)
    output.square().mean().backward()


def shares(mask: masks.Mask, side: masks.Layout) -> tuple[float, float]:
    """Of all pairs, how many are allowed in some head, and how many blockwise attention looks at."""
    dense = compiled("sdpa", mask, side)
    allowed = 1.0 if dense is None else float(dense.any(1).float().mean())
    blockwise = compiled("blockwise", mask, side)
    if not isinstance(blockwise, BlockwiseMask):
        return allowed, 1.0
    rows = (last - first for first, last in (block.queries for block in blockwise.blocks))
    keys = (sum(last - first for first, last in block.keys) for block in blockwise.blocks)
    return allowed, sum(a * b for a, b in zip(rows, keys, strict=True)) / side.length**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=4096, help="source tokens, a multiple of 8")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "masks.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    states = [torch.randn(1, HEADS, options.length, WIDTH).requires_grad_() for _ in range(3)]
    measured = subjects(options.length)
    runs = {
        (name, backend): lambda turn, backend=backend, subject=subject: step(backend, *subject, states)
        for name, subject in measured.items()
        for backend in BACKENDS
    }
    middle = medians(interleave(runs, options.repeats))
    rows = []
    for name, subject in measured.items():
        blocks, dense = (middle[name, backend] for backend in BACKENDS)
        allowed, looked_at = shares(*subject)
        timed = f"{blocks * 1e3:.0f} ms", f"{dense * 1e3:.0f} ms", f"{dense / blocks:.1f}"
        rows.append([name, f"{allowed:.1%}", f"{looked_at:.1%}", *timed])
    header = ["mask", "pairs allowed", "pairs looked at", "blockwise", "sdpa", "sdpa / blockwise"]
    page = f"# What a mask costs\n\n{machine()}\n\n{options.length:,} source tokens\n\n{table(header, rows)}"
    publish(page, options.output)


if __name__ == "__main__":
    main()
