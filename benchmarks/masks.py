"""What each mask costs over a long source: attention in blocks against SDPA under a mask of all pairs.

    python -m benchmarks.masks --length 4096 --repeats 5

The mask is compiled anew each time, as it is once a forward pass, and attention runs forward and backward: one row, 4
heads of width 32, float32, equal numbers of queries and keys, without projections and feed-forward. Medians over
interleaved repeats, after one that is not counted; of CPU time on one thread, which is the default.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

import torch

from benchmarks.harness import add_run_options, clock, interleave, machine, medians, parse_options, publish, table
from crossmask import masks
from crossmask.attention.backends import attend, compile_masks
from crossmask.attention.base import MaskRequest
from crossmask.attention.blockwise import BlockwiseMask

HEADS, WIDTH = 4, 32
MODULE = SimpleNamespace(num_key_value_groups=1, training=True, is_causal=False)
BACKENDS = ("blockwise", "sdpa")


def subjects(length: int, device: torch.device) -> dict[str, tuple[masks.Mask, masks.Layout]]:
    """Masks by their names in the table, each with the layout of its source."""
    eighth = torch.arange(length, device=device)[None] // (length // 8)
    passages = masks.lay_out(length, device, passage_ids=eighth, rows=1)
    packed = masks.lay_out(length, device, segment_ids=eighth + 1, rows=1)
    texts = [
        *("full()", "causal()", "wait_k(3)", "window(64)", "window(64) | prefix(4)", "dilated(8)"),
        *("dilated(8) & window(64)", "blocks(64)", "chunked(64)", "chunked(size=64, lookback=1)"),
        *("monotonic(slope=1.0, width=64)", "random(p=0.1, seed=0)", "passages()", "keep(passages=(2,))"),
        *(f"{name}((0, {length // 8}))" for name in ("keep", "drop", "blind")),
        *("heads({0: window(64), 'rest': window(16)})", "heads({0: window(64), 'rest': full()})"),
    ]
    named = {f"`{text}`".replace("|", "\\|"): (masks.parse(text), passages) for text in texts}
    named["`alignment(points, width=16)`"] = masks.alignment(tuple(range(length)), width=16), passages
    named["`segments()`: a packed row"] = masks.full(), packed
    return named


def compiled(backend: str, mask: masks.Mask, layout: masks.Layout) -> object:
    return compile_masks(backend, [MaskRequest(mask, layout, layout, heads=HEADS)])[0]


def step(backend: str, mask: masks.Mask, layout: masks.Layout, states: list[torch.Tensor], turn: int) -> None:
    """Compile, forward, backward."""
    compiled_mask = compiled(backend, mask, layout)
    output, _ = attend(backend, MODULE, *states, compiled_mask, scaling=WIDTH**-0.5, dropout=0.0)
    output.square().mean().backward()


def shares(mask: masks.Mask, layout: masks.Layout) -> tuple[float, float]:
    """Of all pairs, the share that is allowed in some head, and the share that blockwise attention looks at."""
    dense = compiled("sdpa", mask, layout)
    allowed = 1.0 if dense is None else float(dense.any(1).float().mean())
    blockwise = compiled("blockwise", mask, layout)
    if not isinstance(blockwise, BlockwiseMask):
        return allowed, 1.0
    queries = (last - first for first, last in (block.queries for block in blockwise.blocks))
    keys = (sum(last - first for first, last in block.keys) for block in blockwise.blocks)
    return allowed, sum(a * b for a, b in zip(queries, keys, strict=True)) / layout.length**2


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=4096, help="source tokens, a multiple of 8")
    parser.add_argument("--repeats", type=int, default=5)
    add_run_options(parser, "masks", threads=1)
    options = parse_options(parser, argv, quick=("length", "repeats"))
    if options.quick:
        options.length, options.repeats = 256, 1
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    states = [torch.randn(1, HEADS, options.length, WIDTH, device=device).requires_grad_() for _ in range(3)]
    measured = subjects(options.length, device)
    runs = {
        (name, backend): partial(step, backend, mask, layout, states)
        for name, (mask, layout) in measured.items()
        for backend in BACKENDS
    }
    times = medians(interleave(runs, options.repeats, device=options.device))
    rows = []
    for name, (mask, layout) in measured.items():
        blockwise, sdpa = (times[name, backend] for backend in BACKENDS)
        cells = f"{blockwise * 1e3:.0f} ms", f"{sdpa * 1e3:.0f} ms", f"{sdpa / blockwise:.1f}"
        rows.append([name, *(f"{share:.1%}" for share in shares(mask, layout)), *cells])
    header = ["mask", "pairs allowed", "pairs looked at", "blockwise", "sdpa", "sdpa / blockwise"]
    page = (
        f"# What a mask costs\n\n{machine(options.device)}\n\n{options.length:,} source tokens. Medians of "
        f"{options.repeats} interleaved repeats, {clock(options.device)[1]}.\n\n{table(header, rows)}"
    )
    publish(page, options.output)


if __name__ == "__main__":
    main()
