"""From text to token ids: `source` and `target` columns become `input_ids` and `labels`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from transformers import PreTrainedTokenizerBase

from ..utils.errors import InputError
from ..utils.text import check_unicode
from .cache import naming_cache

if TYPE_CHECKING:
    from datasets import Dataset  # takes a second to import, and `import crossmask` does not need it

Overlong = Literal["error", "truncate", "drop", "split"]


def tokenize(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_source_length: int,
    max_target_length: int,
    overlong: Overlong = "error",
    source_column: str = "source",
    target_column: str = "target",
    batch_size: int = 1000,
    name: Callable[[int], str] = "example {}".format,
) -> Dataset:
    """Token ids of every example, in the order given; all other columns are dropped.

    Args:
        dataset: string columns, named by `source_column` and `target_column`.
        tokenizer: ends every text with its eos token by itself, as those of `train_tokenizer` do.
        max_source_length: the most tokens in `input_ids`, eos included.
        max_target_length: the most tokens in `labels`, eos included.
        overlong: what becomes of an example over a limit: `error` raises, `truncate` cuts the end off (eos stays; of
            a source the beginning, if the tokenizer's `truncation_side` is left), `drop` leaves the example out.
        name: of the example at an index, for errors.

    Returns:
        Columns `input_ids` and `labels` (lists of int).
    """
    missing = [name for name in (source_column, target_column) if name not in dataset.column_names]
    if missing:
        raise InputError(f"no column {missing[0]!r} to tokenize: the dataset has {', '.join(dataset.column_names)}")
    encode = Encoder(tokenizer, max_source_length, max_target_length, overlong)

    def tokenize_batch(batch: dict[str, list[str]], indices: list[int]) -> dict[str, list[list[int]]]:
        return encode([name(index) for index in indices], batch[source_column], batch[target_column])

    limits = f"max_source_length={max_source_length} and max_target_length={max_target_length}"
    return map_to_features(dataset, tokenize_batch, limits, batch_size)


def map_to_features(
    dataset: Dataset,
    make_features: Callable[[dict[str, list[Any]], list[int]], dict[str, list[Any]]],
    limits: str,
    batch_size: int = 1000,
) -> Dataset:
    """Features of all rows of a dataset, as `make_features` gives them of `batch_size` rows and their indices.

    Raises:
        ValueError: none is left within the limits, which the message repeats.
    """
    from datasets.fingerprint import generate_random_fingerprint

    with naming_cache(dataset):
        features = dataset.map(
            make_features,
            batched=True,
            batch_size=batch_size,
            with_indices=True,
            remove_columns=dataset.column_names,
            load_from_cache_file=False,
            new_fingerprint=generate_random_fingerprint(),  # or all that the function refers to would be hashed
            desc="Tokenizing",
        )
    if len(features) == 0:
        raise InputError(
            f"none of {len(dataset)} examples is left within {limits}: raise the limits, or give data that is not "
            "empty"
        )
    return features


@dataclass(frozen=True)
class Encoder:
    """Texts to token ids; `tokenize` explains the fields.

    With a `target_tokenizer` targets have its tokens, none of which it adds by itself, and its eos token at their end.
    """

    tokenizer: PreTrainedTokenizerBase
    max_source_length: int
    max_target_length: int
    overlong: Overlong = "error"
    target_tokenizer: PreTrainedTokenizerBase | None = None

    def __post_init__(self) -> None:
        kinds = [kind for kind in get_args(Overlong) if kind != "split"]  # a text does not lose its translation
        if self.overlong not in kinds:
            raise InputError(
                f"overlong must be one of {', '.join(kinds)} for a source with its target, got {self.overlong}"
            )

    def __call__(
        self, names: Sequence[str], sources: Sequence[str], targets: Sequence[str]
    ) -> dict[str, list[list[int]]]:
        """The columns of `tokenize`, of the examples that are kept.

        Raises:
            ValueError: an example over a limit; the message starts with its name.
        """
        rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
        for name, source, target in zip(names, self._ids(sources), self._target_ids(targets), strict=True):
            sides = {
                "source": (len(source), self.max_source_length),
                "target": (len(target), self.max_target_length),
            }
            over = [(side, *sizes) for side, sizes in sides.items() if sizes[0] > sizes[1]]
            if over and self.overlong == "error":
                raise InputError(_too_long(name, *over[0]))
            if over and self.overlong == "drop":
                continue
            if over:
                source = cut(source, self.max_source_length, self.tokenizer.truncation_side, *self._ends(False))
                target = cut(target, self.max_target_length, "right", *self._ends(True))
            rows["input_ids"].append(source)
            rows["labels"].append(target)
        return rows

    def _ends(self, of_target: bool) -> tuple[int, int]:
        """How many tokens stand before and after a text of that side."""
        if of_target and self.target_tokenizer is not None:
            return 0, 1
        before, after = special_ends(self.tokenizer, of_target)
        return len(before), len(after)

    def _target_ids(self, texts: Sequence[str]) -> list[list[int]]:
        check_texts(texts)
        if self.target_tokenizer is None:  # `text_target`: some put another language's code to targets
            return self.tokenizer(text_target=list(texts), verbose=False)["input_ids"]
        encoded = self.target_tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [[*ids, self.target_tokenizer.eos_token_id] for ids in encoded]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        check_texts(texts)
        # verbose=False: lengths are checked here, against the limits given.
        return self.tokenizer(list(texts), verbose=False)["input_ids"]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse texts of a batch that are not Unicode. Raises InputError."""
    for number, text in enumerate(texts):
        check_unicode(text, f"text {number} of a batch to tokenize")


def special_ends(tokenizer: PreTrainedTokenizerBase, of_target: bool = False) -> tuple[list[int], list[int]]:
    """The token ids that a tokenizer puts before and after every source, or every target."""
    side = "text_target" if of_target else "text"
    ids, bare = (tokenizer(**{side: ["a"]}, add_special_tokens=add)["input_ids"][0] for add in (True, False))
    start = next(at for at in range(len(ids)) if ids[at : at + len(bare)] == bare)
    return ids[:start], ids[start + len(bare) :]


def cut(ids: list[int], limit: int, side: str = "right", before: int = 0, after: int = 1) -> list[int]:
    """No more than `limit` of the token ids, without what is over on that side.

    The first `before` and the last `after` ids always stay: by default the last alone, eos.
    """
    if len(ids) <= limit:
        return ids
    first, text, last = ids[:before], ids[before : len(ids) - after], ids[len(ids) - after :]
    kept = max(limit - before - after, 0)
    return first + (text[len(text) - kept :] if side == "left" else text[:kept]) + last


def _too_long(name: str, side: str, length: int, limit: int) -> str:
    return (
        f"{name}: its {side} has {length} tokens and max_{side}_length is {limit}: raise max_{side}_length "
        f"(and the model's max_position_embeddings), or set overlong to truncate or drop"
    )
