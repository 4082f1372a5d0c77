"""Packing of a stream larger than memory: what the process holds while millions of pairs go through it.

    python -m benchmarks.streams --pairs 5000000

Pairs are generated on the fly, about as long as those of Multi30k, in shards of a `datasets.IterableDataset`; with
`--text` they are words in a gzipped file, which is read, tokenised and packed as `batching: stream` does. The table
has the resident set, how well rows are filled, and pairs per second of CPU time.
"""

import argparse
import gzip
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
from datasets import IterableDataset

from benchmarks.harness import add_page_options, machine, parse_options, publish, table
from crossmask.data.packed_stream import PackedStream
from crossmask.data.packing import PackedCollator
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.tasks import get_task
from crossmask.training.arguments import BatchingArguments, DataArguments
from crossmask.training.run_arguments import RunArguments
from crossmask.training.streams import ExampleStream, packed_stream


def random_pairs(shards: list[int], count: int) -> Iterator[dict[str, np.ndarray]]:
    """`count` pairs of token ids for each shard, which is the seed of its pairs."""
    for shard in shards:
        rng = np.random.default_rng(shard)
        for _ in range(count):
            source = 5 + int(rng.gamma(4.0, 2.5))
            target = max(3, source + int(rng.normal(1, 3)))
            yield {"input_ids": rng.integers(4, 8000, source), "labels": rng.integers(4, 8000, target)}


def stream_of_ids(count: int, length: int) -> PackedStream:
    shards = list(range(10))
    source = IterableDataset.from_generator(random_pairs, gen_kwargs={"shards": shards, "count": count // len(shards)})
    return PackedStream(source, length, length, batch_size=16)


def stream_of_text(count: int, length: int, path: Path) -> PackedStream:
    """The same number of pairs, each id a word of one to six letters, as a recipe's source."""
    letters = np.random.default_rng(0)
    words = ["".join(map(chr, letters.integers(97, 123, letters.integers(1, 7)))) for _ in range(8000)]
    with gzip.open(path, "wt", compresslevel=1) as file:
        for pair in random_pairs([0], count):
            texts = (" ".join(words[index] for index in pair[name]) for name in ("input_ids", "labels"))
            file.write("\t".join(texts) + "\n")
    declared = {"format": "tsv", "path": str(path)}
    data = DataArguments(train=declared, validation=declared, test=declared, overlong="drop")
    batching = BatchingArguments(batching="stream", source_row_length=length, target_row_length=length)
    arguments = RunArguments(
        output_dir=str(path.parent / "run"), per_device_train_batch_size=16, report_to=[], use_cpu=True
    )
    examples = ExampleStream.of(declared, get_task("translation"), "train")
    texts = (example.source for example in examples.first(20_000))
    stream = packed_stream(data, batching, arguments, examples, train_tokenizer(texts, vocab_size=8000))
    stream.epochs = 1
    return stream


def measure(stream: PackedStream, pairs: int, lines: int, length: int) -> list[list[str]]:
    """The rows of the table, each as soon as its share of the pairs is packed."""
    collate = PackedCollator(0, 1, length, length)
    process, start = psutil.Process(), time.process_time()
    rows: list[list[str]] = []
    for batch in stream:
        collate(batch)
        statistics = stream.statistics
        if statistics.examples >= (len(rows) + 1) * pairs // lines * 0.99:
            speed = statistics.examples / (time.process_time() - start)
            filled = f"{statistics.source_efficiency:.3f}", f"{statistics.target_efficiency:.3f}"
            resident = f"{process.memory_info().rss / 2**20:,.0f}"
            rows.append([f"{statistics.examples:,}", resident, *filled, f"{speed:,.0f}"])
            print(f"{rows[-1][0]} pairs, {resident} MiB", file=sys.stderr, flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--lines", type=int, default=10, help="lines of the table")
    parser.add_argument("--row-length", type=int, default=256)
    parser.add_argument("--text", action="store_true", help="read a file, as train.py does")
    add_page_options(parser, "streams")
    options = parse_options(parser, argv, quick=("pairs", "lines", "row_length"))
    if options.quick:
        options.pairs, options.lines, options.row_length = 5000, 1, 128
    with tempfile.TemporaryDirectory() as folder:
        if options.text:
            stream = stream_of_text(options.pairs, options.row_length, Path(folder, "pairs.tsv.gz"))
        else:
            stream = stream_of_ids(options.pairs, options.row_length)
        rows = measure(stream, options.pairs, options.lines, options.row_length)
    header = ["pairs", "resident, MiB", "source filled", "target filled", "pairs/s of CPU"]
    source = "a gzipped file of text" if options.text else "generated token ids"
    page = (
        f"# Memory of a stream\n\n{machine()}\n\n{options.pairs:,} pairs from {source}, in rows of "
        f"{options.row_length}\n\n{table(header, rows)}"
    )
    publish(page, options.output)


if __name__ == "__main__":
    main()
