import json
import os
import subprocess
import sys

from datasets import Dataset

from crossmask.data.cldr import cldr_corpus
from crossmask.data.length_buckets import bucket_batches
from crossmask.data.packing import PackedDataset
from crossmask.data.sources import split_held_out
from crossmask.data.tokenizer_training import train_tokenizer


def everything() -> str:
    """One of each thing that has to be the same wherever and whenever it is made."""
    corpus = {name: part[:] for name, part in cldr_corpus(300, held_out=30).items()}
    lengths = [(1 + at % 7, 1 + at % 5) for at in range(90)]
    packed = PackedDataset([{"input_ids": [5] * a, "labels": [5] * b} for a, b in lengths], 16, 16, seed=3)
    packed.set_epoch(2)
    tokenizers = [train_tokenizer(corpus["train"]["target"], 700, algorithm=name) for name in ("bpe", "unigram")]
    split = split_held_out(Dataset.from_dict({"source": corpus["train"]["source"]}), 0.1, seed=2)
    buckets = bucket_batches(*zip(*lengths, strict=True), max_tokens=40, seed=1)
    return json.dumps(
        [corpus, packed.rows, *(each.backend_tokenizer.to_str() for each in tokenizers), split["test"][:], buckets]
    )


def test_the_same_in_every_process():
    code = f"import runpy; print(runpy.run_path({__file__!r})['everything']())"
    environment = os.environ | {"PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    assert other.stdout.strip() == everything()
