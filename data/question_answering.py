"""From windows of questions and contexts to batches, for pointers and for models of Transformers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig

from ..question_answering.configuration import CrossMaskQuestionAnsweringConfig
from ..question_answering.loss import IGNORED
from ..question_answering.windows import WindowCollator


@dataclass(frozen=True)
class QuestionAnsweringCollator:
    """Pads windows with `labels`, the answer's first and last token, for a model with this config.

    Only a pointer with a score of no answer learns from a window without the answer. For other models such windows are
    left out; of a batch to evaluate they stay, and do not count in the loss. Called with nothing, as a process is that
    has nothing left at the end of an epoch, it returns a row that does not count.

    Args:
        for_evaluation: whether all windows stay, with their `offsets` and `passage_ids`.
    """

    config: PreTrainedConfig
    for_evaluation: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        is_pointer = isinstance(self.config, CrossMaskQuestionAnsweringConfig)
        pad = getattr(self.config.encoder if is_pointer else self.config, "pad_token_id", None) or 0
        knows_no_answer = is_pointer and self.config.no_answer
        if not knows_no_answer and not self.for_evaluation:
            rows = [row for row in rows if row["labels"][0] >= 0]
        nothing = {"input_ids": [pad], "passage_ids": [-1], "offsets": [[0, 0]], "labels": [IGNORED, IGNORED]}
        windows = [
            {**row, "start_positions": row["labels"][0], "end_positions": row["labels"][1]}
            for row in rows or [nothing]
        ]
        batch = WindowCollator(pad, keep_offsets=self.for_evaluation)(windows)
        if not knows_no_answer:
            # Models of Transformers leave out what is behind the last token.
            ignored = IGNORED if is_pointer else batch["input_ids"].shape[1]
            for name in ("start_positions", "end_positions"):
                batch[name] = batch[name].where(batch[name] >= 0, ignored)
        if not is_pointer and not self.for_evaluation:
            del batch["passage_ids"]
        return batch
