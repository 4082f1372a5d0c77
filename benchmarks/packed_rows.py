"""How time grows with the number of packed rows: twice the tokens should cost twice as much.

    python -m benchmarks.packed_rows --rows 1 2 4 8 16 32

A training step, forward and backward, of the 8M model of benchmarks/baselines.py on rows of whole examples, as packed
training has them, bf16. The optimizer, whose time does not depend on tokens, is left out. Medians of interleaved
repeats, with the growth per doubling.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from benchmarks import corpus as corpora
from benchmarks.baselines import SIZES, build
from benchmarks.batching import ROW, Batch, collate, groups
from benchmarks.harness import (
    add_run_options,
    clock,
    growth_table,
    interleave,
    machine,
    medians,
    parse_options,
    publish,
)
from benchmarks.variants import ATTENTION

PACKED = "packed rows"


def packed_batches(corpus: corpora.Corpus, counts: Sequence[int], row: int, device: str) -> dict[int, Batch]:
    """A batch of each number of rows; the smaller ones are the first rows of the larger."""
    rows = [group[0] for group in islice(groups(corpus, PACKED, tokens=1, row=row), max(counts))]
    if len(rows) < max(counts):
        raise ValueError(f"{corpus.name} must fill {max(counts)} rows of {row}, got {len(rows)}; take fewer --rows")
    return {count: collate(rows[:count], corpus, "crossmask", PACKED, row).to(device) for count in counts}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"Multi30k's folder; {corpora.MULTI30K} if it is there, else none")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--row", type=int, default=ROW, help="tokens of a packed row, on either side")
    parser.add_argument("--repeats", type=int, default=9)
    add_run_options(parser, "packed_rows", threads=1)
    options = parse_options(parser, argv, quick=("data", "rows", "row", "repeats"))
    if options.quick:
        options.rows, options.row, options.repeats = [1, 2], 64, 1
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    corpus = corpora.draw(200, vocab_size=300) if options.quick else corpora.load(options.data)
    attention = ATTENTION[options.device][PACKED]
    model = build("crossmask", SIZES["tiny" if options.quick else "8M"], corpus.vocab_size, attention)
    model.to(options.device).train()

    def step(batch: Batch, turn: int) -> None:
        with torch.autocast(options.device, torch.bfloat16):
            loss = model(**batch.inputs, skip_logits=True).loss
        loss.backward()
        model.zero_grad(set_to_none=True)

    batches = packed_batches(corpus, options.rows, options.row, options.device)
    runs = {(attention, count): partial(step, batch) for count, batch in batches.items()}
    times = medians(interleave(runs, options.repeats, device=options.device))
    filled = 1 - batches[max(options.rows)].padding
    page = (
        f"# Packed rows\n\n{machine(options.device)}\n\n{corpus.name}, in rows of {options.row} + {options.row} "
        f"tokens, filled to {filled:.3f}; bf16. Medians of {options.repeats} interleaved repeats, "
        f"{clock(options.device)[1]}.\n\n"
        f"{growth_table('rows', options.rows, {attention: f'{attention}, forward and backward'}, times)}"
    )
    publish(page, options.output)


if __name__ == "__main__":
    main()
