"""Where leaks come from: the difference between the expected and the actual masks that explains what was measured."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import torch

from ..masks import MaskError
from ..masks.rules import full
from ..masks.scope import SCOPES
from .expected_masks import BatchMasks, ScopeMask, not_padded
from .reachability import allowed_influence, cross_mask_is_ineffective
from .report import AuditReport, Relation

_MOST_PAIRS = 500_000  # of a query and a key, for which the slow reference is asked to find an explanation


@dataclass(frozen=True)
class _Guess:
    """Changes of the expected masks under which what was measured may be allowed, and the report's text for them."""

    changes: dict
    text: str
    certain: bool = True  # whether the model is known to have run so


def explain(report: AuditReport, expected: BatchMasks, actual: BatchMasks) -> str | None:
    """One line: the difference that explains all leaks most closely, and how to fix it; None if none does."""
    of_sides = [_counted(getattr(report, side)) for side in ("source", "target")]
    explanations: list[tuple[int, _Guess]] = []
    if _pairs(expected) <= _MOST_PAIRS:
        for guess in chain(_differences(expected, actual), _not_applied(expected)):
            try:
                allowed = allowed_influence(replace(expected, **guess.changes))
            except MaskError:  # a rule that does not fit the batch under these changes
                continue
            pairs = [(measured, may & counted) for (measured, counted), may in zip(of_sides, allowed, strict=True)]
            if not any((measured & ~may).any() for measured, may in pairs):
                explanations.append((sum(int((may & ~measured).sum()) for measured, may in pairs), guess))
                if not explanations[-1][0]:
                    break
    excess, best = min(explanations, key=lambda explanation: explanation[0], default=(0, None))
    shift = _shift(report)
    if shift is not None and (best is None or (excess and not best.certain)):
        return shift
    if best is not None:
        return best.text
    kinds = {leak.kind for leak in report.leaks}
    if kinds == {"padding"}:
        return "every leak is from padding"
    if kinds == {"segment"}:
        return "every leak is from another example of the row"
    return None


def suspect(
    report: AuditReport, expected: BatchMasks, actual: BatchMasks, source: torch.Tensor, config: object
) -> tuple[str, ...]:
    """Notes on what looks wrong although nothing leaks.

    These are a batch that looks packed but has no segments, padding that the attention mask allows, positions that
    hide what should be seen, and a cross mask that hides nothing.

    Args:
        source: (B, S) ids.
    """
    notes = []
    end = getattr(config, "eos_token_id", None)
    if expected.segment_ids is None and isinstance(end, int):
        ends = ((source == end) & expected.attention_mask).sum(-1).tolist()
        several = [row for row, count in enumerate(ends) if count > 1]
        if several:
            notes.append(
                f"several end tokens in the source of {_rows(several)}; if these are several examples, give the audit "
                "segment_ids and decoder_segment_ids"
            )
    padding = ~not_padded(source, config, "source") & expected.attention_mask
    if padding.any():
        notes.append(
            f"the attention_mask lets padding at the ends of {_rows(padding.any(-1).nonzero().flatten().tolist())} be "
            "read; if it is padding, give the audit an attention_mask with 0 there"
        )
    if not report.leaks:
        notes += [guess.text for guess in _raw_positions(expected, actual)]
    if cross_mask_is_ineffective(expected, report.source.allowed):
        notes.append(
            f"cross_mask {expected.cross_mask} hides nothing: under encoder_mask {expected.encoder_mask} the tokens "
            "that it lets through have read all others"
        )
    return tuple(notes)


def _rows(numbers: list[int]) -> str:
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:6]))}{' ...' if numbers[6:] else ''}"


def _differences(expected: BatchMasks, actual: BatchMasks) -> Iterator[_Guess]:
    """Each difference between the masks, and then all of them together."""
    guesses = []
    for scope in SCOPES:
        name = f"{scope}_mask"
        actual_mask, expected_mask = getattr(actual, name), getattr(expected, name)
        if not actual_mask.same(expected_mask):
            text = (
                f"the model ran under {name} {actual_mask}, and {expected_mask} should hold: set {name} in the config "
                "or the call"
            )
            guesses.append(_Guess({name: actual_mask}, text))
    if not _same(expected.segment_ids, actual.segment_ids) or not _same(
        expected.decoder_segment_ids, actual.decoder_segment_ids
    ):
        names = ("segment_ids", "decoder_segment_ids")
        has = "has no" if actual.segment_ids is None else "has other"
        text = f"the batch {has} segment_ids, so examples of one row read each other: pass {' and '.join(names)}"
        guesses.append(_Guess({name: getattr(actual, name) for name in names}, text))
    for name in ("attention_mask", "decoder_attention_mask"):
        if not _same(getattr(expected, name), getattr(actual, name)):
            text = f"the batch's {name} does not close all padding, or is missing: pass {name}, 0 for padding"
            guesses.append(_Guess({name: getattr(actual, name)}, text))
    guesses += _raw_positions(expected, actual)
    if not _same(expected.passage_ids, actual.passage_ids):
        text = "the batch has other passage_ids than it should, or none: pass passage_ids"
        guesses.append(_Guess({"passage_ids": actual.passage_ids}, text))
    yield from guesses
    if len(guesses) > 1:
        together = {name: value for guess in guesses for name, value in guess.changes.items()}
        yield _Guess(together, "; and ".join(guess.text for guess in guesses))


def _raw_positions(expected: BatchMasks, actual: BatchMasks) -> list[_Guess]:
    """The sides whose positions in the batch do not count the tokens of each example."""
    guesses = []
    for name, side in (("position_ids", "source"), ("decoder_position_ids", "target")):
        layout, positions = getattr(expected, side), getattr(actual, name)
        if positions is not None and not torch.equal((positions * (layout.segments > 0)), layout.positions):
            text = (
                f"the batch's {name} do not count from each example's first token, which moves the masks: leave "
                f"{name} out, so that they are counted"
            )
            guesses.append(_Guess({name: positions}, text))
    return guesses


def _not_applied(expected: BatchMasks) -> Iterator[_Guess]:
    """Faults of the model itself: a mask that it ran under does not take effect."""
    for scope in SCOPES:
        name = f"{scope}_mask"
        mask = getattr(expected, name)
        open_mask = ScopeMask((full(),) * len(mask.rules))
        if not mask.same(open_mask):
            text = f"the model reads as if {name} {mask} were not applied: look for the fault in its attention"
            yield _Guess({name: open_mask}, text, certain=False)
    if expected.segment_ids is not None:
        text = "the model reads as if segment_ids were not applied: look for the fault in its attention"
        yield _Guess({"segment_ids": None, "decoder_segment_ids": None}, text, certain=False)
    for name in ("attention_mask", "decoder_attention_mask"):
        if not getattr(expected, name).all():
            text = f"the model reads as if {name} were not applied: look for the fault in its attention"
            yield _Guess({name: torch.ones_like(getattr(expected, name))}, text, certain=False)


def _shift(report: AuditReport) -> str | None:
    """The explanation if every leak is one position before, or after, what is allowed."""
    nearest = set()
    for relation in (report.source, report.target):
        for row, target in relation.leaking.any(-1).nonzero().tolist():
            allowed = relation.allowed[row, target].nonzero()[:, 0]
            leaking = relation.leaking[row, target].nonzero()[:, 0].tolist()
            if not len(allowed) or len(leaking) != 1:
                return None
            distances = leaking[0] - allowed
            nearest.add((relation.side, int(distances[distances.abs().argmin()])))
    if len(nearest) != 1:
        return None
    ((side, distance),) = nearest
    if abs(distance) != 1:
        return None
    where = "after" if distance > 0 else "before"
    return f"every leak is the one {side} position {where} what is allowed: a mask that is off by one"


def _counted(relation: Relation) -> tuple[torch.Tensor, torch.Tensor]:
    return relation.measured & relation.counted, relation.counted


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _pairs(expected: BatchMasks) -> int:
    source, target = expected.source.length, expected.target.length
    pairs = source * source + target * target + target * source
    return pairs * len(expected.attention_mask)
