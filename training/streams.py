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
from .arguments import RecipeArguments, RunArguments


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
    recipe: RecipeArguments, arguments: RunArguments, examples: ExampleStream, tokenizer: PreTrainedTokenizerBase
) -> PackedStream:
    """This process's share of the packed rows, which never end."""
    return PackedStream(
        examples,
        recipe.source_row_length,
        recipe.target_row_length,
        arguments.train_batch_size,
        processes=arguments.world_size,
        process=arguments.process_index,
        accumulation=arguments.gradient_accumulation_steps,
        seed=arguments.seed,
        buffer=recipe.stream_buffer,
        epochs=None,
        prepare=NamedFeatures(examples.task, tokenizer, recipe.limits),
    )


def check_stream(recipe: RecipeArguments, arguments: RunArguments, checkpoint: Path | None = None) -> None:
    """Refuse what a stream, which has no end, cannot do; and to go on from a checkpoint to other steps.

    Raises:
        ValueError: with the field and how to fix it.
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
        raise InputError("batching is stream, which has no end: set max_steps, the number of optimizer steps")
    if recipe.bpe_dropout is not None:
        raise InputError("bpe_dropout makes copies of the data in memory: leave it out with batching: stream")
    for name in ("eval_strategy", "save_strategy"):
        if getattr(arguments, name) == "epoch":
            raise InputError(
                f"{name} is epoch, and with batching: stream no epoch ends: set {name} to steps and "
                f"{name.replace('strategy', 'steps')} to a number, or {name} to no"
            )
    for side in ("source", "target"):
        row, limit = getattr(recipe, f"{side}_row_length"), getattr(recipe, f"max_{side}_length")
        if row < limit:
            raise InputError(
                f"{side}_row_length={row} is less than max_{side}_length={limit}, and an example of a stream has to "
                "fit: raise the one or lower the other"
            )
