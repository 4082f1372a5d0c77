"""Checks of ids and masks for engines that take them as they come: those of the network in PyTorch, in its words."""

from typing import Any

import torch

from ..configuration.crossmask import CrossMaskConfig
from ..masks.layout import lay_out
from ..modeling.decoder import CrossMaskDecoder
from ..modeling.encoder import CrossMaskEncoder
from ..seq2seq.call_checks import check_length
from ..seq2seq.token_ids import check_batch_of_ids, check_range


def check_source(config: CrossMaskConfig, ids: Any, attention_mask: Any = None) -> torch.Tensor:
    """Which tokens of a source are no padding.

    Args:
        config: of the model that was exported. ids: (B, S) integers.
        attention_mask: (B, S) or (1, S), 1 for tokens and 0 for padding.

    Returns:
        (B, S) bool.

    Raises:
        ValueError: ids or a mask that the model refuses.
    """
    _check_ids(CrossMaskEncoder.__name__, config, ids)
    shown = check_attention_mask(torch.ones_like(ids) if attention_mask is None else attention_mask, *ids.shape)
    check_length("source", ids.shape[1], config.max_position_embeddings)
    return shown


def check_attention_mask(attention_mask: Any, batch: int, length: int) -> torch.Tensor:
    """An attention mask as (B, S) bool, from (B, S) or (1, S) with 1 for tokens and 0 for padding.

    Raises:
        MaskError: one that the model refuses.
    """
    lay_out(length, torch.device("cpu"), attention_mask=attention_mask, rows=batch)
    shown: torch.Tensor = attention_mask.bool()
    return shown.expand(batch, length)


def check_target(config: CrossMaskConfig, ids: Any, cached: int) -> None:
    """Check the target's ids, (B, T), behind this many cached ones.

    Raises:
        ValueError: ids that the model refuses.
    """
    _check_ids(CrossMaskDecoder.__name__, config, ids)
    check_length("target", cached + ids.shape[1], config.max_position_embeddings)


def _check_ids(side: str, config: CrossMaskConfig, ids: Any) -> None:
    check_batch_of_ids(side, ids)
    check_range("ids", side, config.vocab_size, ids)
