"""From token ids to padded batches for `Seq2SeqTrainer`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from ..seq2seq.decoder_inputs import pad_targets
from ..utils.errors import InputError
from ..utils.type_checks import check_choice

Feature = Mapping[str, Any]


def has_labels(features: Sequence[Feature]) -> bool:
    """Whether the features of a batch have labels.

    Raises:
        InputError: some have and some have not; or none has, but one has a prefix or a cross mask, which belong to a
            target.
    """
    unlabelled = [index for index, feature in enumerate(features) if feature.get("labels") is None]
    if not unlabelled:
        return True
    if len(unlabelled) < len(features):
        raise InputError(
            f"example {unlabelled[0]} of the batch must have labels as others have, got none; give labels to all, or "
            "to none to predict"
        )
    for name in ("decoder_prefix_ids", "cross_mask"):
        for index, feature in enumerate(features):
            if len(feature.get(name, ())):
                raise InputError(f"example {index} of the batch must have labels beside {name}, got none; give both")
    return False


def check_target(feature: Feature) -> None:
    """Refuse an example without labels for training.

    Raises:
        InputError: there are none.
    """
    if feature.get("labels") is None:
        raise InputError(f"an example to train on must have labels, got only {', '.join(feature)}; give labels to all")


def with_prefix(feature: Feature) -> tuple[list[int], int]:
    """The tokens that the decoder processes, prefix and target, and the length of the prefix.

    Raises:
        InputError: there are no labels.
    """
    check_target(feature)
    prefix = list(feature.get("decoder_prefix_ids", ()))
    return prefix + list(feature["labels"]), len(prefix)


@dataclass(frozen=True)
class Seq2SeqCollator:
    """Pads sources to one length and targets to another, and makes the decoder's input from the labels.

    The decoder reads the start token, then the example's `decoder_prefix_ids` (if it has any), then its labels without
    the last. Labels are aligned with that; prefix and padding are -100 in them, which the loss ignores.

    ```python
    >>> collate = Seq2SeqCollator(pad_token_id=0, decoder_start_token_id=1)
    >>> batch = collate([{"input_ids": [5, 2], "labels": [7, 8, 2], "decoder_prefix_ids": [6]}])
    >>> batch["decoder_input_ids"], batch["labels"]
    (tensor([[1, 6, 7, 8]]), tensor([[-100,    7,    8,    2]]))
    ```

    Args:
        pad_token_id: fills decoder inputs, and sources unless they have a padding of their own.
        decoder_start_token_id: the first token of every decoder input.
        padding_side: where sources are padded; targets always are on the right.
        pad_to_multiple_of: both lengths are rounded up to a multiple of it, for hardware that is faster then.
        source_pad_token_id: fills sources that have a vocabulary of their own, as in a bridge.

    Called with features of `input_ids` and `labels` (both end with eos), optionally `decoder_prefix_ids`, and
    optionally `cross_mask`, each a boolean (T, S) of the example's own decoder length and source length.
    Returns `input_ids`, `attention_mask` (B, S) and `decoder_input_ids`, `decoder_attention_mask`, `labels` (B, T),
    all int64, and `cross_mask` (B, T, S) bool where the features have one. Without features it returns one row of
    padding: at the end of an epoch a process may have none left. For features without labels, to predict, it returns
    `input_ids` and `attention_mask` alone.

    Raises:
        InputError: only some of the features have labels, or a cross mask does not fit.
    """

    pad_token_id: int
    decoder_start_token_id: int
    padding_side: Literal["left", "right"] = "right"
    pad_to_multiple_of: int | None = None
    source_pad_token_id: int | None = None

    def __post_init__(self) -> None:
        if self.pad_token_id is None or self.decoder_start_token_id is None:
            raise InputError(
                f"pad_token_id and decoder_start_token_id must be token ids, got {self.pad_token_id} and "
                f"{self.decoder_start_token_id}; set both in the config"
            )
        check_choice("padding_side", self.padding_side, ("left", "right"))

    def __call__(self, features: Sequence[Feature]) -> dict[str, torch.Tensor]:
        for index, feature in enumerate(features):
            if feature.get("input_ids") is None:
                raise InputError(f"example {index} of the batch must have input_ids, got none; give them to all")
        sources = [list(feature["input_ids"]) for feature in features]
        batch = self._pad_sources(sources)
        return batch | self._pad_targets(features, sources, batch) if has_labels(features) else batch

    def _pad_sources(self, sources: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        length = self._round_up(max(map(len, sources), default=1))
        fill = self.pad_token_id if self.source_pad_token_id is None else self.source_pad_token_id
        input_ids = torch.full((max(len(sources), 1), length), fill)
        attention_mask = torch.zeros_like(input_ids)
        for row, source in enumerate(sources):
            span = self._source_span(len(source), length)
            input_ids[row, span] = torch.tensor(source, dtype=torch.int64)
            attention_mask[row, span] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def _pad_targets(
        self, features: Sequence[Feature], sources: Sequence[Sequence[int]], padded: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        rows, source_length = padded["input_ids"].shape
        targets = [with_prefix(feature) for feature in features]
        target_length = self._round_up(max((len(ids) for ids, _ in targets), default=1))
        start, pad = self.decoder_start_token_id, self.pad_token_id
        batch = pad_targets(targets, start, pad, rows=rows, length=target_length)
        if any("cross_mask" in feature for feature in features):
            lengths = [(len(target), len(source)) for source, (target, _) in zip(sources, targets, strict=True)]
            batch["cross_mask"] = self._pad_masks(features, lengths, target_length, source_length)
        return batch

    def _round_up(self, length: int) -> int:
        step = self.pad_to_multiple_of or 1
        return -(-length // step) * step

    def _source_span(self, length: int, padded: int) -> slice:
        return slice(padded - length, padded) if self.padding_side == "left" else slice(0, length)

    def _pad_masks(
        self, features: Sequence[Feature], lengths: Sequence[tuple[int, int]], target_length: int, source_length: int
    ) -> torch.Tensor:
        """Examples without a mask see everything; the values at padding do not matter."""
        padded = torch.ones((len(features), target_length, source_length), dtype=torch.bool)
        for row, (feature, shape) in enumerate(zip(features, lengths, strict=True)):
            if feature.get("cross_mask") is None:
                continue
            mask = torch.as_tensor(feature["cross_mask"])
            if mask.dtype != torch.bool or tuple(mask.shape) != shape:
                raise InputError(
                    f"cross_mask of example {row} of the batch must be {shape} (its decoder and source tokens) of "
                    f"torch.bool, got {tuple(mask.shape)} of {mask.dtype}"
                )
            padded[row, : shape[0], self._source_span(shape[1], source_length)] = mask
        return padded


@dataclass(frozen=True)
class WithLists:
    """Pads columns of whole numbers beside what another collator pads, (B, longest) int64.

    Args:
        names: of the columns. padding: fills them.
    """

    collate: Callable[[Sequence[Any]], dict[str, torch.Tensor]]
    names: tuple[str, ...]
    padding: int

    def __call__(self, features: Sequence[Feature]) -> dict[str, torch.Tensor]:
        batch = self.collate([{k: v for k, v in row.items() if k not in self.names} for row in features])
        for name in self.names:
            columns = [torch.tensor(row.get(name, ()), dtype=torch.int64) for row in features or [{}]]
            batch[name] = pad_sequence(columns, batch_first=True, padding_value=self.padding)
        return batch
