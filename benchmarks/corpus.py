"""Examples to train on: Multi30k, English to German, or random token ids of the same lengths where it is absent."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import disable_progress_bars
from transformers import PreTrainedTokenizerBase

from crossmask.data.packing import Feature
from crossmask.data.sources import load_split
from crossmask.data.tokenization import tokenize
from crossmask.data.tokenizer_training import train_tokenizer

MULTI30K = Path(os.environ.get("CROSSMASK_DATA", "../shared/data"), "multi30k")
VOCABULARY = 8000
LONGEST = 128

# Lengths of Multi30k's training pairs under a joint vocabulary of 8,000, end of text included: quantiles of sources,
# and of how many more tokens the target has, which does not depend on the source's length (correlation -0.01).
QUANTILES = (0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1)
SOURCE_LENGTHS = (5, 7, 8, 9, 10, 12, 15, 18, 22, 24, 30, 40, 50)
TARGET_EXCESS = (-14, -9, -6, -3, -3, -1, 0, 2, 4, 5, 8, 13, 18)


@dataclass(frozen=True)
class Corpus:
    """Shuffled examples, and what is needed to batch them."""

    name: str
    features: list[Feature]
    vocab_size: int
    tokenizer: PreTrainedTokenizerBase  # needed for padding, also where ids are random


def load(folder: Path | None, seed: int = 0) -> Corpus:
    """Multi30k's 29,000 training pairs from `folder`; by default from `MULTI30K`, or random ids if that is absent.

    Raises:
        OSError: a file of the folder cannot be read.
    """
    if folder is None and not MULTI30K.is_dir():
        return draw(29000, VOCABULARY, seed)
    folder = folder or MULTI30K
    sides = {side: str(folder / f"train.{language}.gz") for side, language in (("source", "en"), ("target", "de"))}
    records = load_split({"format": "lines", **sides})
    tokenizer = train_tokenizer([*records["source"], *records["target"]], vocab_size=VOCABULARY)
    disable_progress_bars()
    limits = {"max_source_length": LONGEST, "max_target_length": LONGEST, "overlong": "drop"}
    features = tokenize(records, tokenizer, **limits).shuffle(seed=seed)
    return Corpus(f"Multi30k, English to German, {len(features):,} pairs", list(features), len(tokenizer), tokenizer)


def draw(count: int, vocab_size: int, seed: int = 0) -> Corpus:
    """Random token ids; the lengths are distributed like Multi30k's."""
    rng = np.random.default_rng(seed)
    sources = np.interp(rng.random(count), QUANTILES, SOURCE_LENGTHS).round().astype(int)
    targets = sources + np.interp(rng.random(count), QUANTILES, TARGET_EXCESS).round().astype(int)
    features = [
        {
            "input_ids": [*rng.integers(4, vocab_size, source - 1).tolist(), 2],
            "labels": [*rng.integers(4, vocab_size, max(target, 3) - 1).tolist(), 2],
        }
        for source, target in zip(sources, targets, strict=True)
    ]
    name = f"random ids, {count:,} pairs of the lengths of Multi30k's"
    return Corpus(name, features, vocab_size, train_tokenizer(["a"], vocab_size=300))
