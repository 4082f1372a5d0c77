"""Examples to features to batches, as a recipe's `batching` says."""

from functools import partial

from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..bridge import CrossMaskBridgeConfig
from ..data.bpe_dropout import BPEDropout
from ..data.length_buckets import BucketSampler
from ..data.packed_stream import PackedStream
from ..data.packing import PackedDataset, PackedSampler
from ..data.samplers import Batches, EpochBatches, ShuffledSampler
from ..tasks.base import Collator, Example, LengthLimits, Task
from ..tasks.examples import EvaluationSplit, to_features
from ..utils.errors import InputError
from .arguments import BatchingArguments, TokenizerArguments
from .run_arguments import RunArguments


def check_bpe_dropout(dropout: float, config: PreTrainedConfig) -> None:
    """Refuse BPE-dropout for a model whose sides have a tokenizer each. Raises InputError."""
    if config.model_type == CrossMaskBridgeConfig.model_type:
        raise InputError(f"bpe_dropout must be left out for a bridge, which has two tokenizers, got {dropout}")


def training_features(
    arguments: TokenizerArguments,
    limits: LengthLimits,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    seed: int,
) -> Dataset:
    """The features of the training examples; under BPE-dropout of several copies of them, one after another.

    Raises:
        InputError: an example over a limit, a tokenizer without BPE.
    """
    if arguments.bpe_dropout is None:
        return to_features(examples, task, tokenizer, limits)
    size, dropout, copies = len(examples), arguments.bpe_dropout, arguments.bpe_dropout_copies or 8

    def name(index: int) -> str:
        copy, number = divmod(index, size)
        return f"example {number}, as bpe_dropout={dropout} cut it in copy {copy + 1} of {copies}"

    return to_features(examples * copies, task, BPEDropout(tokenizer, dropout, seed), limits, name)


def make_batching(
    arguments: BatchingArguments,
    run: RunArguments,
    task: Task,
    config: PreTrainedConfig,
    features: Dataset | PackedStream,
) -> tuple[Dataset | PackedDataset | PackedStream, Batches | None, Collator]:
    """What is trained on, its batches over all processes (None: it deals out its own), and what makes tensors of them.

    Raises:
        InputError: examples that do not fit a row, or that the task does not pack.
    """
    in_batches = partial(EpochBatches, batch_size=run.train_batch_size, drop_last=run.dataloader_drop_last)
    rows = (arguments.source_row_length, arguments.target_row_length)
    if isinstance(features, PackedStream):
        return features, None, task.packed_collator(config, *rows)
    if arguments.batching == "packed":
        collator = task.packed_collator(config, *rows)
        packed = PackedDataset(features, *rows, seed=run.seed)
        return packed, in_batches(PackedSampler(packed)), collator
    if arguments.batching == "buckets":
        batches: Batches = BucketSampler(features, arguments.batch_tokens, run.seed)
    else:
        batches = in_batches(ShuffledSampler(len(features), run.seed))
    return features, batches, task.collator(config)


def evaluation_split(
    limits: LengthLimits, task: Task, tokenizer: PreTrainedTokenizerBase, examples: list[Example]
) -> EvaluationSplit:
    """Examples to evaluate on."""
    return EvaluationSplit(examples, to_features(examples, task, tokenizer, task.evaluation_limits(limits)))
