"""From text to token ids: `source` and `target` columns become `input_ids` and `labels`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..utils.errors import InputError
from ..utils.text import check_unicode
from .cache import naming_cache

Overlong = Literal["error", "truncate", "drop"]


def tokenize(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_source_length: int,
    max_target_length: int,
    overlong: Overlong = "error",
    source_column: str = "source",
    target_column: str = "target",
    prefix_column: str | None = None,
    batch_size: int = 1000,
    name: Callable[[int], str] = "example {}".format,
) -> Dataset:
    """Token ids of every example, in the order given; all other columns are dropped.

    Args:
        dataset: string columns, named by `source_column`, `target_column` and `prefix_column`.
        tokenizer: ends every text with its eos token by itself, as those of `train_tokenizer` do.
        max_source_length: the most tokens in `input_ids`, eos included.
        max_target_length: the most tokens that the decoder reads: context prefix and target, eos included.
        overlong: what becomes of an example over a limit: `error` raises, `truncate` cuts the end off (eos stays; of
            a source the beginning, if the tokenizer's `truncation_side` is left), `drop` leaves the example out.
        prefix_column: text that the decoder reads before it predicts; becomes `decoder_prefix_ids`, without eos.
        name: of the example at an index, for errors.

    Returns:
        Columns `input_ids` and `labels` (lists of int), and `decoder_prefix_ids` where there is a prefix column.
    """
    columns = [name for name in (source_column, target_column, prefix_column) if name is not None]
    missing = [name for name in columns if name not in dataset.column_names]
    if missing:
        raise InputError(f"no column {missing[0]!r} to tokenize: the dataset has {', '.join(dataset.column_names)}")
    encode = Encoder(tokenizer, max_source_length, max_target_length, overlong)

    def tokenize_batch(batch: dict[str, list[str]], indices: list[int]) -> dict[str, list[list[int]]]:
        return encode(
            [name(index) for index in indices],
            batch[source_column],
            batch[target_column],
            prefix_column and batch[prefix_column],
        )

    with naming_cache(dataset):
        features = dataset.map(
            tokenize_batch,
            batched=True,
            batch_size=batch_size,
            with_indices=True,
            remove_columns=dataset.column_names,
            load_from_cache_file=False,
            desc="Tokenizing",
        )
    if len(features) == 0:
        raise InputError(
            f"none of {len(dataset)} examples is left within max_source_length={max_source_length} and "
            f"max_target_length={max_target_length}: raise the limits, or give data that is not empty"
        )
    return features


@dataclass(frozen=True)
class Encoder:
    """Texts to token ids; `tokenize` explains the fields."""

    tokenizer: PreTrainedTokenizerBase
    max_source_length: int
    max_target_length: int
    overlong: Overlong = "error"

    def __post_init__(self) -> None:
        if self.overlong not in get_args(Overlong):
            raise InputError(f"overlong is {self.overlong!r}: expected one of {', '.join(get_args(Overlong))}")

    def __call__(
        self,
        names: Sequence[str],
        sources: Sequence[str],
        targets: Sequence[str],
        prefixes: Sequence[str] | None = None,
    ) -> dict[str, list[list[int]]]:
        """The columns of `tokenize`, of the examples that are kept.

        Raises:
            ValueError: an example over a limit; the message starts with its name.
        """
        limit = self.max_target_length
        rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
        if prefixes is not None:
            rows["decoder_prefix_ids"] = []
        encoded = (
            self._ids(sources),
            self._ids(targets),
            self._ids(prefixes, eos=False) if prefixes else [[]] * len(names),
        )
        for name, source, target, prefix in zip(names, *encoded, strict=True):
            room = limit - len(prefix)
            if len(source) > self.max_source_length or len(target) > room:
                if self.overlong == "error" or (self.overlong == "truncate" and room < 1):
                    raise InputError(
                        _too_long("source", name, len(source), self.max_source_length, self.overlong)
                        if len(source) > self.max_source_length and self.overlong == "error"
                        else _too_long("target", name, len(prefix) + len(target), limit, self.overlong)
                    )
                if self.overlong == "drop":
                    continue
            rows["input_ids"].append(cut(source, self.max_source_length, self.tokenizer.truncation_side))
            rows["labels"].append(cut(target, room))
            if prefixes is not None:
                rows["decoder_prefix_ids"].append(prefix)
        return rows

    def _ids(self, texts: Sequence[str], eos: bool = True) -> list[list[int]]:
        for number, text in enumerate(texts):
            check_unicode(text, f"text {number} of a batch to tokenize")
        # verbose=False: lengths are checked here, against the limits given.
        return self.tokenizer(list(texts), add_special_tokens=eos, verbose=False)["input_ids"]


def cut(ids: list[int], limit: int, side: str = "right") -> list[int]:
    """No more than `limit` of the token ids, without what is over on that side; the last, eos, always stays."""
    if len(ids) <= limit:
        return ids
    return ids[-limit:] if side == "left" else ids[: limit - 1] + ids[-1:]


def _too_long(side: str, name: str, length: int, limit: int, overlong: Overlong) -> str:
    if overlong == "truncate":
        return (
            f"{name}: its decoder prefix fills all of max_target_length={limit} and leaves nothing to "
            f"predict: raise max_target_length to at least {length} or shorten the prefix"
        )
    return (
        f"{name}: its {side} has {length} tokens and max_{side}_length is {limit}: raise max_{side}_length "
        f"(and the model's max_position_embeddings), or set overlong to truncate or drop"
    )
