"""From features of single texts to batches for encoders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig

from ..seq2seq.decoder_inputs import IGNORED

NO_WORD = -2
"""What fills up `first_tokens`: -1 is a word without a token."""


@dataclass(frozen=True)
class EncoderCollator:
    """Pads features, lists of numbers or single ones, to a batch of int64 tensors, with an `attention_mask`.

    `labels` are padded with -100, which no loss counts, `first_tokens` with -2, and all others but `input_ids` with 0.
    Called with nothing, as a process is that has nothing left at the end of an epoch, it returns a row that does not
    count.

    Args:
        pad_token_id: fills `input_ids`, on the right.
        marks: what the model calls `marker_ids`; None where a text has one label and no marks.
        keep_first_tokens: whether batches have `first_tokens`, which models do not take.
    """

    pad_token_id: int
    marks: str | None = None
    keep_first_tokens: bool = False

    @classmethod
    def for_config(cls, config: PreTrainedConfig, **options: Any) -> Self:
        """A collator for a model with this config, of crossmask or of Transformers."""
        pad = getattr(config.get_text_config(encoder=True), "pad_token_id", None)
        return cls(pad or 0, **options)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        if not rows:
            label = IGNORED if self.marks is None else [IGNORED]
            rows = [{"input_ids": [self.pad_token_id], "labels": label}]
        fill = {"input_ids": self.pad_token_id, "labels": IGNORED, "first_tokens": NO_WORD}
        names = {"marker_ids": self.marks or "marker_ids"}
        batch = {}
        for name in rows[0]:
            if name == "first_tokens" and not self.keep_first_tokens:
                continue
            values = [torch.tensor(row[name]) for row in rows]
            if values[0].ndim:
                column = pad_sequence(values, batch_first=True, padding_value=fill.get(name, 0))
            else:
                column = torch.stack(values)
            batch[names.get(name, name)] = column
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        return batch
