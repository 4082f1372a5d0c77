"""Decoder inputs, made in one place: the start token, the shift, the padding."""

from collections.abc import Sequence

import torch

IGNORED = -100


def shift_right(labels: torch.Tensor, decoder_start_token_id: int, pad_token_id: int) -> torch.Tensor:
    """What the decoder reads to predict `labels`: the start token, then every label but the last.

    ```python
    >>> shift_right(torch.tensor([[5, 6, 2, -100]]), decoder_start_token_id=1, pad_token_id=0)
    tensor([[1, 5, 6, 2]])
    ```

    Args:
        labels: (B, T) int64; -100 is ignored by the loss and becomes padding here.

    Returns:
        (B, T) int64
    """
    start = torch.full_like(labels[:, :1], decoder_start_token_id)
    return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, pad_token_id)], dim=-1)


def begin_after_padding(
    decoder_input_ids: torch.Tensor, shown: torch.Tensor, pad_token_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prefixes of several lengths, padded on the left, whose start token stands before the padding: put it behind.

    ```python
    >>> rows = torch.tensor([[1, 0, 5], [1, 6, 7]])
    >>> begin_after_padding(rows, rows[:, 1:] != 0, pad_token_id=0)[0]
    tensor([[0, 1, 5],
            [1, 6, 7]])
    ```

    Args:
        decoder_input_ids: (B, 1 + T) int64, a start token and a prefix in each row.
        shown: (B, T) bool, which of the prefix are tokens.

    Returns:
        ids and bool, (B, 1 + T); both (B, T), without the start token, where a prefix has it behind its padding.
    """
    start, prefix = decoder_input_ids[:, :1], decoder_input_ids[:, 1:]
    length = prefix.shape[1]
    first = torch.where(shown.any(-1), shown.long().argmax(-1), length)[:, None]
    # A row without tokens has padding there, which may be the start token.
    if bool(((prefix.gather(1, first.clamp(max=length - 1)) == start) & (first < length)).any()):
        return prefix, shown
    columns = torch.arange(length + 1, device=prefix.device).expand(len(prefix), -1)
    moved = decoder_input_ids.where(columns > first, pad_token_id).where(columns != first, start)
    shown = torch.cat([shown.new_zeros(len(shown), 1), shown], dim=-1)
    return moved, shown | (columns == first)


def attention_mask_from_labels(labels: torch.Tensor, cached: int = 0) -> torch.Tensor:
    """Which of the shifted inputs are tokens: (B, T) labels to (B, P + T) int64 of ones and zeros.

    The start token always is, and so are P cached ones; every other one is if the label that it came from counts.
    """
    return torch.cat([labels.new_ones(labels.shape[0], cached + 1), (labels[:, :-1] != IGNORED).long()], dim=-1)


def pad_targets(
    targets: Sequence[tuple[Sequence[int], int]],
    decoder_start_token_id: int,
    pad_token_id: int,
    *,
    rows: int | None = None,
    length: int | None = None,
) -> dict[str, torch.Tensor]:
    """Targets of several lengths as one batch, padded on the right by length, whatever the padding token is.

    ```python
    >>> pad_targets([([6, 7, 2], 1)], decoder_start_token_id=1, pad_token_id=2)["labels"]
    tensor([[-100,    7,    2]])
    ```

    Args:
        targets: of each example what the decoder goes through, and how many tokens of that the loss ignores.
        rows, length: the sizes of the batch, at least those of `targets`, which are the default.

    Returns:
        `decoder_input_ids`, `decoder_attention_mask` and `labels`, (rows, length) int64.
    """
    rows = len(targets) if rows is None else rows
    length = max((len(ids) for ids, _ in targets), default=1) if length is None else length
    decoded = torch.full((rows, length), IGNORED)
    labels = decoded.clone()
    for row, (ids, ignored) in enumerate(targets):
        decoded[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        labels[row, ignored : len(ids)] = decoded[row, ignored : len(ids)]
    return {
        "decoder_input_ids": shift_right(decoded, decoder_start_token_id, pad_token_id),
        "decoder_attention_mask": attention_mask_from_labels(decoded),
        "labels": labels,
    }
