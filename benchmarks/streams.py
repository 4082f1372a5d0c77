"""Packing of a stream larger than memory: what the process holds while millions of pairs go through it.

    python -m benchmarks.streams --pairs 5000000

Pairs are generated on the fly, about as long as those of Multi30k, in shards of a `datasets.IterableDataset`. Prints a
Markdown table of the resident set, how well rows are filled, and pairs per second of CPU time.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import psutil
from datasets import IterableDataset

from crossmask.data.packing import PackedCollator
from crossmask.data.streams import PackedStream


def pairs(shards: list[int], count: int) -> Iterator[dict[str, np.ndarray]]:
    for shard in shards:
        rng = np.random.default_rng(shard)
        for _ in range(count):
            source = 5 + int(rng.gamma(4.0, 2.5))
            target = max(3, source + int(rng.normal(1, 3)))
            yield {"input_ids": rng.integers(4, 8000, source), "labels": rng.integers(4, 8000, target)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--lines", type=int, default=10, help="lines of the table")
    parser.add_argument("--row-length", type=int, default=256)
    options = parser.parse_args()
    shards = 10
    source = IterableDataset.from_generator(
        pairs, gen_kwargs={"shards": list(range(shards)), "count": options.pairs // shards}
    )
    stream = PackedStream(source, options.row_length, options.row_length, batch_size=16)
    collate = PackedCollator(0, 1, options.row_length, options.row_length)
    process, started, line = psutil.Process(), time.process_time(), 1
    print("| pairs | resident, MiB | source filled | target filled | pairs/s of CPU |\n|---:|---:|---:|---:|---:|")
    for batch in stream:
        collate(batch)
        found = stream.statistics
        if found.examples >= line * options.pairs // options.lines * 0.99:
            speed = found.examples / (time.process_time() - started)
            resident = process.memory_info().rss / 2**20
            filled = f"{found.source_efficiency:.3f} | {found.target_efficiency:.3f}"
            print(f"| {found.examples:,} | {resident:,.0f} | {filled} | {speed:,.0f} |", flush=True)
            line += 1


if __name__ == "__main__":
    main()
