"""The loss of labels of whole texts.

Letters: B batch, C classes.
"""

import torch
from torch import nn
from transformers import PreTrainedConfig

from ..seq2seq.loss import cross_entropy


def problem_type_of(config: PreTrainedConfig, labels: torch.Tensor) -> str:
    """What labels mean, as in Transformers: the config says it, or the number of classes and the labels' dtype."""
    if config.problem_type is not None:
        return str(config.problem_type)
    if config.num_labels == 1:
        return "regression"
    whole = labels.dtype in (torch.int64, torch.int32)
    return "single_label_classification" if whole else "multi_label_classification"


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    config: PreTrainedConfig,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """The mean over labels that count, or the sum over `num_items_in_batch` where that is given.

    Cross-entropy of one label a text, binary cross-entropy of several, or the squared error in a regression.

    Args:
        logits: (B, C). labels: (B,) int64, -100 for a text that does not count; of several labels a text (B, C) of 0
            and 1, and in a regression (B,) or (B, C) numbers.
        config: has `num_labels` and `problem_type`.

    Raises:
        ValueError: labels of another shape, or that no class has. TypeError: classes that are not int64.
    """
    kind = problem_type_of(config, labels)
    if kind == "single_label_classification":
        if labels.shape != logits.shape[:1]:
            raise ValueError(f"labels must be ({logits.shape[0]},), one for each text, got {tuple(labels.shape)}")
        return cross_entropy(logits[:, None], labels[:, None], num_items_in_batch)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    values = labels.to(logits.dtype).reshape(-1, 1) if logits.shape[1] == 1 else labels.to(logits.dtype)
    if values.shape != logits.shape:
        raise ValueError(
            f"labels must be {tuple(logits.shape)}, a number for each text and class, got {tuple(labels.shape)}"
        )
    if kind == "regression":
        total = nn.functional.mse_loss(logits, values, reduction="sum")
    else:
        total = nn.functional.binary_cross_entropy_with_logits(logits, values, reduction="sum")
    if num_items_in_batch is None:
        num_items_in_batch = values.numel()
    if torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(total.device).clamp(min=1)
    return total / num_items_in_batch
