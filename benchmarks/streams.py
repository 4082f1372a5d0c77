"""Packing of a stream larger than memory: what the process holds while millions of pairs go through it.

    python -m benchmarks.streams --pairs 5000000

Pairs are generated on the fly, about as long as those of Multi30k, in shards of a `datasets.IterableDataset`; with
`--text` they are words in a gzipped file, which is read, tokenised and packed as `batching: stream` does. Prints a
Markdown table of the resident set, how well rows are filled, and pairs per second of CPU time.
"""

import argparse
import gzip
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from datasets import IterableDataset

from crossmask.data.packed_stream import PackedStream
from crossmask.data.packing import PackedCollator
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.tasks import get_task
from crossmask.training.arguments import BatchingArguments, DataArguments
from crossmask.training.run_arguments import RunArguments
from crossmask.training.streams import ExampleStream, packed_stream


def pairs(shards: list[int], count: int) -> Iterator[dict[str, np.ndarray]]:
    for shard in shards:
        rng = np.random.default_rng(shard)
        for _ in range(count):
            source = 5 + int(rng.gamma(4.0, 2.5))
            target = max(3, source + int(rng.normal(1, 3)))
            yield {"input_ids": rng.integers(4, 8000, source), "labels": rng.integers(4, 8000, target)}


def generated(count: int, length: int) -> PackedStream:
    shards = list(range(10))
    source = IterableDataset.from_generator(pairs, gen_kwargs={"shards": shards, "count": count // len(shards)})
    return PackedStream(source, length, length, batch_size=16)


def text(count: int, length: int, path: Path) -> PackedStream:
    """The same number of pairs, each id a word of one to six letters, as a recipe's source."""
    letters = np.random.default_rng(0)
    words = ["".join(map(chr, letters.integers(97, 123, letters.integers(1, 7)))) for _ in range(8000)]
    with gzip.open(path, "wt", compresslevel=1) as file:
        for pair in pairs([0], count):
            file.write("\t".join(" ".join(words[at] for at in pair[side]) for side in ("input_ids", "labels")) + "\n")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--lines", type=int, default=10, help="lines of the table")
    parser.add_argument("--row-length", type=int, default=256)
    parser.add_argument("--text", action="store_true", help="read a file, as train.py does")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.text:
            stream = text(options.pairs, options.row_length, Path(folder, "pairs.tsv.gz"))
        else:
            stream = generated(options.pairs, options.row_length)
        measure(stream, options)


def measure(stream: PackedStream, options: argparse.Namespace) -> None:
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
