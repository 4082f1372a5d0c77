"""Training data read as a stream: nothing but a buffer of it is ever in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..data.collator import Feature
from ..data.packed_stream import PackedStream, StreamFault
from ..data.sources import SourceSpec, name_sources, stream_split
from ..tasks.base import Example, LengthLimits, Task
from ..tasks.examples import make_examples
from ..utils.errors import InputError
from .arguments import BatchingArguments, DataArguments
from .recipe import RecipeArguments
from .run_arguments import RunArguments


@dataclass(frozen=True)
class ExampleStream:
    """The examples of a recipe's sources, each after its name in errors, anew every time that it is iterated over.

    Of several sources one example of each comes in turn, of one with `repeat: n` n of them, until all have ended; all
    in all they are the examples that `read_examples` gives.

    Raises:
        StreamFault: while it is iterated over, a record that cannot be read.
    """

    sources: Mapping[str, SourceSpec]
    task: Task

    @classmethod
    def of(
        cls,
        given: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        task: Task,
        name: str,
        data_dir: str | None = None,
    ) -> "ExampleStream":
        """What a recipe's field `name` declares; its first records are read, to see that they can be.

        Raises:
            ValueError, OSError: a source that cannot be read as a stream; the message starts with its name.
        """
        stream = cls(name_sources(name, given, data_dir), task)
        for place, spec in stream.sources.items():
            next(make_examples(place, spec, task, stream_split), None)
        return stream

    def __iter__(self) -> Iterator[tuple[str, Example]]:
        open_sources = [
            (enumerate(make_examples(place, spec, self.task, stream_split), start=1), place, spec.repeat)
            for place, spec in self.sources.items()
        ]
        while open_sources:
            still_open = []
            for examples, place, turns in open_sources:
                count = 0
                try:
                    for number, example in islice(examples, turns):
                        count += 1
                        yield f"{place}, record {number}", example
                except (ValueError, OSError) as error:
                    raise StreamFault(str(error)) from error
                if count == turns:
                    still_open.append((examples, place, turns))
            open_sources = still_open

    def first(self, count: int) -> Iterator[Example]:
        """The first `count` examples, without their names."""
        return (example for _, example in islice(self, count))


@dataclass(frozen=True)
class NamedFeatures:
    """Makes features of examples with their names, as `to_features` does."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    limits: LengthLimits

    def __call__(self, named: Sequence[tuple[str, Example]]) -> list[Feature]:
        """The features of every example that is kept.

        Raises:
            StreamFault: one that is too long, where `overlong` is `"error"`.
        """
        names, examples = [name for name, _ in named], [example for _, example in named]
        try:
            columns = self.task.features(names, examples, self.tokenizer, self.limits)
        except ValueError as error:
            raise StreamFault(str(error)) from error
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def packed_stream(
    data: DataArguments,
    batching: BatchingArguments,
    arguments: RunArguments,
    examples: ExampleStream,
    tokenizer: PreTrainedTokenizerBase,
) -> PackedStream:
    """This process's share of the packed rows, which never end."""
    return PackedStream(
        examples,
        batching.source_row_length,
        batching.target_row_length,
        arguments.train_batch_size,
        processes=arguments.world_size,
        process=arguments.process_index,
        accumulation=arguments.gradient_accumulation_steps,
        seed=arguments.seed,
        buffer=batching.stream_buffer,
        epochs=None,
        prepare=NamedFeatures(examples.task, tokenizer, data.limits),
    )


def check_stream(recipe: RecipeArguments, task: Task, arguments: RunArguments, checkpoint: Path | None = None) -> None:
    """Refuse what a stream, which has no end, cannot do; and to go on from a checkpoint to other steps.

    Raises:
        InputError: with the field and how to fix it.
    """
    workers, processes = arguments.dataloader_num_workers, arguments.world_size
    if checkpoint is not None and workers > 1:
        # Each process has saved the state of its random numbers.
        before = len(list(checkpoint.glob("rng_state*.pth")))
        if before not in (0, processes):
            raise InputError(
                f"{checkpoint} is of {before} processes, this run has {processes}: with batching: stream and "
                f"dataloader_num_workers={workers} that would repeat and lose data, go on with {before}"
            )
    if arguments.max_steps < 1:
        raise InputError(
            "max_steps must be given with batching: stream, which has no end; set it to a number of steps"
        )
    if recipe.tokenizer.bpe_dropout is not None:
        raise InputError("bpe_dropout must be left out with batching: stream; it makes copies of the data in memory")
    for name in ("eval_strategy", "save_strategy"):
        if getattr(arguments, name) == "epoch":
            raise InputError(
                f"{name} must be steps or no with batching: stream, in which no epoch ends, got epoch; with steps set "
                f"{name.replace('strategy', 'steps')} to a number"
            )
    for name in task.length_fields:
        row_name = name.replace("max_", "").replace("_length", "_row_length")
        row, limit = getattr(recipe.batching, row_name), getattr(recipe.data, name)
        if row < limit:
            raise InputError(
                f"{row_name} must be at least {name}={limit} with batching: stream, since every example has to fit, "
                f"got {row}; raise the one or lower the other"
            )
