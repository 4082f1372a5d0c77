"""From token ids to batches of a causal language model: padded, or whole texts packed into rows.

A feature's `labels` are all tokens of a text, its start token first, which is not learned. In a batch, as in
Transformers, labels are aligned with `input_ids`, and the model shifts them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..seq2seq.decoder_inputs import IGNORED
from ..utils.errors import InputError
from .collator import Feature


@dataclass(frozen=True)
class CausalLMCollator:
    """Pads texts on the right.

    ```python
    >>> batch = CausalLMCollator(pad_token_id=0)([{"labels": [1, 5, 2]}, {"labels": [1, 2]}])
    >>> batch["input_ids"], batch["labels"]
    (tensor([[1, 5, 2],
            [1, 2, 0]]), tensor([[-100,    5,    2],
            [-100,    2, -100]]))
    ```

    Called with B features. Returns `input_ids`, `attention_mask` and `labels`, (B, T) int64. Called with none, as a
    process is that has nothing left at the end of an epoch, it returns one row without labels.
    """

    pad_token_id: int

    def __call__(self, features: Sequence[Feature]) -> dict[str, torch.Tensor]:
        texts = [list(feature["labels"]) for feature in features] or [[self.pad_token_id]]
        input_ids = torch.full((len(texts), max(map(len, texts))), self.pad_token_id)
        labels, attention_mask = torch.full_like(input_ids, IGNORED), torch.zeros_like(input_ids)
        for row, text in enumerate(texts):
            input_ids[row, : len(text)] = torch.tensor(text)
            labels[row, 1 : len(text)] = input_ids[row, 1 : len(text)]
            attention_mask[row, : len(text)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


@dataclass(frozen=True)
class PackedCausalLMCollator:
    """Lays rows of whole texts out as tensors of fixed size; positions start anew with every text.

    By these positions, and where there is no attention mask, most models of Transformers keep the texts of a row
    apart, with every attention implementation (`masking_utils.find_packed_sequence_indices`). A text then has the
    logits that it has alone. Models that do not (Bloom, OPT, Mamba) are refused by `tasks/language_modeling.py`.
    Padding is one more text, without labels.

    ```python
    >>> batch = PackedCausalLMCollator(pad_token_id=0, row_length=6)([[{"labels": [1, 5, 2]}, {"labels": [1, 2]}]])
    >>> batch["input_ids"], batch["position_ids"], batch["labels"]
    (tensor([[1, 5, 2, 1, 2, 0]]), tensor([[0, 1, 2, 0, 1, 0]]), tensor([[-100,    5,    2, -100,    2, -100]]))
    ```

    Called with B rows, each a list of features as `PackedDataset` gives them. Returns `input_ids`, `position_ids` and
    `labels`, (B, row_length) int64. Called with no rows, it returns one row of padding.

    Raises:
        InputError: a row of more tokens.
    """

    pad_token_id: int
    row_length: int

    def __call__(self, rows: Sequence[Sequence[Feature]]) -> dict[str, torch.Tensor]:
        rows = rows or [[]]
        input_ids = torch.full((len(rows), self.row_length), self.pad_token_id)
        labels, position_ids = torch.full_like(input_ids, IGNORED), torch.zeros_like(input_ids)
        for at, row in enumerate(rows):
            start = 0
            for feature in row:
                text = torch.as_tensor(feature["labels"], dtype=torch.int64)
                end = start + len(text)
                if end > self.row_length:
                    raise InputError(
                        f"row {at} of the batch must have at most {self.row_length} tokens, got {end}; pack with the "
                        "collator's row_length"
                    )
                input_ids[at, start:end] = text
                labels[at, start + 1 : end] = text[1:]
                position_ids[at, start:end] = torch.arange(len(text))
                start = end
            position_ids[at, start:] = torch.arange(self.row_length - start)
        return {"input_ids": input_ids, "position_ids": position_ids, "labels": labels}
