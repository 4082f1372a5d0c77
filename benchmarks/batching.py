"""Batches of about the same number of real tokens, of the same shuffled examples: random, by length, packed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import DataCollatorForSeq2Seq

from benchmarks.corpus import Corpus
from crossmask.data.collator import Seq2SeqCollator
from crossmask.data.length_buckets import bucket_batches
from crossmask.data.packing import Feature, PackedCollator, PackedDataset, PackedSampler

BATCHINGS = ("random batches", "length-grouped", "packed rows")
ROW = 256  # tokens of a packed row, on either side


@dataclass(frozen=True)
class Batch:
    """The inputs of a step, with what counts in them."""

    inputs: dict[str, torch.Tensor]
    lengths: list[tuple[int, int]]  # source and target tokens of every example

    @property
    def real(self) -> int:
        """Tokens of sources and targets, padding left out."""
        return sum(map(sum, self.lengths))

    @property
    def padding(self) -> float:
        """The share of padding in what the encoder and the decoder read."""
        return 1 - self.real / (self.inputs["input_ids"].numel() + self.inputs["labels"].numel())

    def to(self, device: str) -> "Batch":
        return Batch({name: tensor.to(device) for name, tensor in self.inputs.items()}, self.lengths)


def sizes(features: Sequence[Feature]) -> list[tuple[int, int]]:
    return [(len(feature["input_ids"]), len(feature["labels"])) for feature in features]


def groups(corpus: Corpus, batching: str, tokens: int, row: int = ROW, seed: int = 0) -> Iterator[list]:
    """The content of each step's batch: examples or, in packed rows, lists of examples.

    A batch has about this many real tokens. Random batches all have one number of examples, in corpus order;
    length-grouped ones have a budget of tokens instead, which leaves less padding.
    """
    features, lengths = corpus.features, sizes(corpus.features)
    total = sum(map(sum, lengths))
    if batching == "random batches":
        count = max(round(tokens / total * len(features)), 1)
        yield from (features[start : start + count] for start in range(0, len(features) - count + 1, count))
    elif batching == "length-grouped":
        sources, targets = zip(*lengths, strict=True)
        # A budget counts padding too. It is raised by as much, so that the mean of real tokens is as wanted.
        mean = total / len(bucket_batches(sources, targets, max_tokens=tokens))
        batches = bucket_batches(sources, targets, max_tokens=round(tokens * tokens / mean), seed=seed)
        yield from ([features[index] for index in batch] for batch in batches)
    else:
        data = PackedDataset(features, source_length=row, target_length=row, seed=seed)
        count = max(round(tokens / total * len(data)), 1)
        order = list(PackedSampler(data))
        starts = range(0, len(order) - count + 1, count)
        yield from ([data[row] for row in order[start : start + count]] for start in starts)


def collate(group: list, corpus: Corpus, family: str, batching: str, row: int = ROW) -> Batch:
    """A batch as users of that family make it: Transformers' default collator for its models, ours for ours."""
    pad, start = corpus.tokenizer.pad_token_id, corpus.tokenizer.bos_token_id
    if batching == "packed rows":
        examples = [feature for packed in group for feature in packed]
        return Batch(PackedCollator(pad, start, source_length=row, target_length=row)(group), sizes(examples))
    if family == "crossmask":
        return Batch(Seq2SeqCollator(pad, start)(group), sizes(group))
    return Batch(dict(DataCollatorForSeq2Seq(corpus.tokenizer)(group)), sizes(group))
