"""Batches with a leak in them, each with what should hold, and the sound batch beside it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from small_models import pad, small_model, tokens

PACKED = {
    "segment_ids": torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0]]),
    "decoder_segment_ids": torch.tensor([[1, 1, 2, 2, 2, 0]]),
}
SPAN = {"encoder_mask": "blind((2, 4))", "cross_mask": "blind((2, 4))"}


@dataclass(frozen=True)
class Case:
    """A planted leak: what it is called with, what should hold, exactly which (row, target, source) leak, and why."""

    model: torch.nn.Module
    leaking: dict
    sound: dict
    leaks: set[tuple[int, int, int]]
    cause: str
    should: dict = field(default_factory=dict)


def off_by_one() -> Case:
    batch = {"input_ids": tokens(2, 7), "labels": tokens(2, 4, seed=1)}
    return Case(
        small_model(encoder_mask="causal()"),
        {**batch, "cross_mask": "wait_k(3)"},
        {**batch, "cross_mask": "wait_k(2)"},
        {(row, t, t + 2) for row in range(2) for t in range(4)},
        "the model ran under cross_mask wait_k(3), and wait_k(2) should hold",
        {"cross_mask": "wait_k(2)"},
    )


def packed_without_segments() -> Case:
    batch = {"input_ids": tokens(1, 8), "decoder_input_ids": tokens(1, 6, seed=1)}
    first, second = range(0, 3), range(3, 7)
    across = {(0, t, s) for t in (0, 1) for s in (*second, 7)} | {(0, t, s) for t in (2, 3, 4) for s in (*first, 7)}
    return Case(small_model(), batch, {**batch, **PACKED}, across, "the batch has no segment_ids", PACKED)


def left_padded_with_raw_positions() -> Case:
    ids, attention_mask = pad([tokens(6), tokens(4, seed=2)], "left")
    batch = {"input_ids": ids, "attention_mask": attention_mask, "decoder_input_ids": tokens(2, 3, seed=1)}
    return Case(
        small_model(encoder_mask="window(0)", cross_mask="drop((0, 2))"),
        {**batch, "position_ids": torch.arange(6).expand(2, -1)},
        batch,
        {(1, t, s) for t in range(3) for s in (2, 3)},
        "the batch's position_ids do not count from each example's first token",
    )


def left_padded_target_with_raw_positions() -> Case:
    ids, attention_mask = pad([tokens(4), tokens(2, seed=2)], "left")
    batch = {"input_ids": tokens(2, 6), "decoder_input_ids": ids, "decoder_attention_mask": attention_mask}
    return Case(
        small_model(encoder_mask="causal()", cross_mask="wait_k(1)"),
        {**batch, "decoder_position_ids": torch.arange(4).expand(2, -1)},
        batch,
        {(1, 2, 1), (1, 2, 2), (1, 3, 2), (1, 3, 3)},
        "the batch's decoder_position_ids do not count from each example's first token",
    )


def blind_span_through_the_encoder() -> Case:
    batch = {"input_ids": tokens(1, 6), "labels": tokens(1, 3, seed=1)}
    return Case(
        small_model(),
        {**batch, "cross_mask": "drop((2, 4))"},
        {**batch, **SPAN},
        {(0, t, s) for t in range(3) for s in (2, 3)},
        "the model ran under encoder_mask full(), and blind((2, 4)) should hold",
        SPAN,
    )


def padding_without_attention_mask() -> Case:
    ids, attention_mask = pad([tokens(5), tokens(3, seed=2)], "right")
    batch = {"input_ids": ids, "labels": tokens(2, 3, seed=1)}
    return Case(
        small_model(),
        batch,
        {**batch, "attention_mask": attention_mask},
        {(1, t, s) for t in range(3) for s in (3, 4)},
        "the batch's attention_mask does not close all padding, or is missing",
    )


CASES: dict[str, Callable[[], Case]] = {
    make.__name__: make
    for make in (
        off_by_one,
        packed_without_segments,
        left_padded_with_raw_positions,
        left_padded_target_with_raw_positions,
        blind_span_through_the_encoder,
        padding_without_attention_mask,
    )
}
