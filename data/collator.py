"""From token ids to padded batches for `Seq2SeqTrainer`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..modeling.decoder_inputs import IGNORED, attention_mask_from_labels, shift_right
from ..utils.errors import InputError

Feature = Mapping[str, Any]


def with_prefix(feature: Feature) -> tuple[list[int], int]:
    """What the decoder goes through, context prefix and target, and how many tokens of it are prefix."""
    prefix = list(feature.get("decoder_prefix_ids", ()))
    return prefix + list(feature["labels"]), len(prefix)


@dataclass(frozen=True)
class Seq2SeqCollator:
    """Pads examples to one length a side and builds what the decoder reads from the labels.

    The decoder reads the start token, then the example's `decoder_prefix_ids` (if it has any), then its labels up to
    the last but one. Labels are aligned with that; prefix and padding are -100 in them, which the loss ignores.

    ```python
    >>> collate = Seq2SeqCollator(pad_token_id=0, decoder_start_token_id=1)
    >>> batch = collate([{"input_ids": [5, 2], "labels": [7, 8, 2], "decoder_prefix_ids": [6]}])
    >>> batch["decoder_input_ids"], batch["labels"]
    (tensor([[1, 6, 7, 8]]), tensor([[-100,    7,    8,    2]]))
    ```

    Args:
        pad_token_id: fills sources and decoder inputs.
        decoder_start_token_id: the first token of every decoder input.
        padding_side: where sources are padded; targets always are on the right.
        pad_to_multiple_of: rounds both lengths up, for hardware that likes round shapes.

    Called with features of `input_ids` and `labels` (both end with eos), optionally `decoder_prefix_ids`, and
    optionally `cross_mask`, each a boolean (T, S) of the example's own decoder length and source length.
    Returns `input_ids`, `attention_mask` (B, S) and `decoder_input_ids`, `decoder_attention_mask`, `labels` (B, T),
    all int64, and `cross_mask` (B, T, S) bool where the features have one. Called with no features, as a process is
    that has nothing left at the end of an epoch, it returns one row of padding.
    """

    pad_token_id: int
    decoder_start_token_id: int
    padding_side: Literal["left", "right"] = "right"
    pad_to_multiple_of: int | None = None

    def __post_init__(self) -> None:
        if self.pad_token_id is None or self.decoder_start_token_id is None:
            raise InputError(
                f"pad_token_id is {self.pad_token_id} and decoder_start_token_id is {self.decoder_start_token_id}: "
                "set both in the config"
            )
        if self.padding_side not in ("left", "right"):
            raise InputError(f"padding_side is {self.padding_side!r}: expected left or right")

    def __call__(self, features: Sequence[Feature]) -> dict[str, torch.Tensor]:
        sources = [list(feature["input_ids"]) for feature in features]
        targets = [with_prefix(feature) for feature in features]
        rows = max(len(features), 1)
        source_length = self._round_up(max(map(len, sources), default=1))
        target_length = self._round_up(max((len(ids) for ids, _ in targets), default=1))
        input_ids = torch.full((rows, source_length), self.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        decoded = torch.full((rows, target_length), IGNORED)
        labels = decoded.clone()
        for row, (source, (target, prefix_length)) in enumerate(zip(sources, targets, strict=True)):
            span = self._source_span(len(source), source_length)
            input_ids[row, span] = torch.tensor(source)
            attention_mask[row, span] = 1
            decoded[row, : len(target)] = torch.tensor(target)
            labels[row, prefix_length : len(target)] = decoded[row, prefix_length : len(target)]
        batch = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "decoder_input_ids": shift_right(decoded, self.decoder_start_token_id, self.pad_token_id),
            "decoder_attention_mask": attention_mask_from_labels(decoded),
            "labels": labels,
        }
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
        """Examples without a mask see everything; what is allowed at padding does not matter."""
        padded = torch.ones((len(features), target_length, source_length), dtype=torch.bool)
        for row, (feature, shape) in enumerate(zip(features, lengths, strict=True)):
            if feature.get("cross_mask") is None:
                continue
            mask = torch.as_tensor(feature["cross_mask"])
            if mask.dtype != torch.bool or tuple(mask.shape) != shape:
                raise InputError(
                    f"cross_mask of example {row} of the batch is {tuple(mask.shape)} of {mask.dtype}: expected "
                    f"{shape} (its decoder tokens, its source tokens) of torch.bool"
                )
            padded[row, : shape[0], self._source_span(shape[1], source_length)] = mask
        return padded
