"""Decoder inputs, made in one place: the start token, the shift, the padding."""

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


def attention_mask_from_labels(labels: torch.Tensor, cached: int = 0) -> torch.Tensor:
    """Which of the shifted inputs are tokens: (B, T) labels to (B, P + T) int64 of ones and zeros.

    The start token always is, and so are P cached ones; every other one is if the label that it came from counts.
    """
    return torch.cat([labels.new_ones(labels.shape[0], cached + 1), (labels[:, :-1] != IGNORED).long()], dim=-1)
