"""Where leaks come from: which one difference between what should hold and what was run explains what was measured."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import torch

from ..masks import MaskError
from ..masks.rules import full
from ..masks.scope import SCOPES
from .expected_masks import Declaration, ScopeMask, not_padded
from .reachability import allowed_influence, cross_mask_is_ineffective
from .report import AuditReport, Relation

_MOST_PAIRS = 500_000  # the most questions to the reference that an explanation is worth


@dataclass(frozen=True)
class _Guess:
    """If this had been declared, would what was measured have been allowed?"""

    changes: dict
    text: str
    certain: bool = True  # that what was run is so


def explain(report: AuditReport, declared: Declaration, run: Declaration) -> str | None:
    """One line: the difference that explains all leaks most closely, and how to fix it; None where none does."""
    real = {side: _counted(getattr(report, side)) for side in ("source", "target")}
    found: list[tuple[int, _Guess]] = []
    if _questions(declared) <= _MOST_PAIRS:
        for guess in chain(_as_run(declared, run), _not_applied(declared)):
            try:
                allowed = allowed_influence(replace(declared, **guess.changes))
            except MaskError:  # a rule that has no meaning where the batch is laid out so
                continue
            pairs = [
                (measured, may & counted) for (measured, counted), may in zip(real.values(), allowed, strict=True)
            ]
            if not any((measured & ~may).any() for measured, may in pairs):
                found.append((sum(int((may & ~measured).sum()) for measured, may in pairs), guess))
                if not found[-1][0]:
                    break
    excess, best = min(found, key=lambda one: one[0], default=(0, None))
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
    report: AuditReport, declared: Declaration, run: Declaration, source: torch.Tensor, config: object
) -> tuple[str, ...]:
    """Notes on a batch that looks packed and does not say so, on padding that it takes for text, on positions that
    hide what should be seen, and on a cross mask that closes nothing.

    Args:
        source: (B, S) ids.
    """
    notes = []
    end = getattr(config, "eos_token_id", None)
    if declared.segment_ids is None and isinstance(end, int):
        ends = ((source == end) & declared.attention_mask).sum(-1).tolist()
        several = [row for row, count in enumerate(ends) if count > 1]
        if several:
            notes.append(
                f"several end tokens in the source of {_rows(several)}; if these are several examples, give the audit "
                "segment_ids and decoder_segment_ids"
            )
    padding = ~not_padded(source, config, "source") & declared.attention_mask
    if padding.any():
        notes.append(
            f"the attention_mask lets padding at the ends of {_rows(padding.any(-1).nonzero().flatten().tolist())} be "
            "read; if it is padding, give the audit an attention_mask with 0 there"
        )
    if not report.leaks:
        notes += [guess.text for guess in _raw_positions(declared, run)]
    if cross_mask_is_ineffective(declared, report.source.allowed):
        notes.append(
            f"cross_mask {declared.cross_mask} hides nothing: under encoder_mask {declared.encoder_mask} the tokens "
            "that it lets through have read all others"
        )
    return tuple(notes)


def _rows(numbers: list[int]) -> str:
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:6]))}{' ...' if numbers[6:] else ''}"


def _as_run(declared: Declaration, run: Declaration) -> Iterator[_Guess]:
    """Each difference between the two, and then all of them together."""
    guesses = []
    for scope in SCOPES:
        name = f"{scope}_mask"
        ran, wanted = getattr(run, name), getattr(declared, name)
        if not ran.same(wanted):
            text = f"the model ran under {name} {ran}, and {wanted} should hold: set {name} in the config or the call"
            guesses.append(_Guess({name: ran}, text))
    if not _same(declared.segment_ids, run.segment_ids) or not _same(
        declared.decoder_segment_ids, run.decoder_segment_ids
    ):
        names = ("segment_ids", "decoder_segment_ids")
        what = "has no" if run.segment_ids is None else "has other"
        text = f"the batch {what} segment_ids, so examples of one row read each other: pass {' and '.join(names)}"
        guesses.append(_Guess({name: getattr(run, name) for name in names}, text))
    for name in ("attention_mask", "decoder_attention_mask"):
        if not _same(getattr(declared, name), getattr(run, name)):
            text = f"the batch's {name} does not close all padding, or is missing: pass {name}, 0 for padding"
            guesses.append(_Guess({name: getattr(run, name)}, text))
    guesses += _raw_positions(declared, run)
    if not _same(declared.passage_ids, run.passage_ids):
        text = "the batch has other passage_ids than it should, or none: pass passage_ids"
        guesses.append(_Guess({"passage_ids": run.passage_ids}, text))
    yield from guesses
    if len(guesses) > 1:
        together = {name: value for guess in guesses for name, value in guess.changes.items()}
        yield _Guess(together, "; and ".join(guess.text for guess in guesses))


def _raw_positions(declared: Declaration, run: Declaration) -> list[_Guess]:
    """The sides whose positions in the batch are not those of the examples' tokens."""
    guesses = []
    for name, side in (("position_ids", "source"), ("decoder_position_ids", "target")):
        should, ran = getattr(declared, side), getattr(run, name)
        if ran is not None and not torch.equal((ran * (should.segments > 0)), should.positions):
            text = (
                f"the batch's {name} do not count from each example's first token, which moves the masks: leave "
                f"{name} out, they are counted then"
            )
            guesses.append(_Guess({name: ran}, text))
    return guesses


def _not_applied(declared: Declaration) -> Iterator[_Guess]:
    """Faults of the model itself: something that was declared and run, and does not take effect."""
    for scope in SCOPES:
        name = f"{scope}_mask"
        mask = getattr(declared, name)
        open_mask = ScopeMask((full(),) * len(mask.rules))
        if not mask.same(open_mask):
            text = f"the model reads as if {name} {mask} were not applied: look for the fault in its attention"
            yield _Guess({name: open_mask}, text, certain=False)
    if declared.segment_ids is not None:
        text = "the model reads as if segment_ids were not applied: look for the fault in its attention"
        yield _Guess({"segment_ids": None, "decoder_segment_ids": None}, text, certain=False)
    for name in ("attention_mask", "decoder_attention_mask"):
        if not getattr(declared, name).all():
            text = f"the model reads as if {name} were not applied: look for the fault in its attention"
            yield _Guess({name: torch.ones_like(getattr(declared, name))}, text, certain=False)


def _shift(report: AuditReport) -> str | None:
    """Whether every leak lies equally far from what is allowed, on one side of it."""
    distances = set()
    for relation in (report.source, report.target):
        for row, target in relation.leaking.any(-1).nonzero().tolist():
            allowed = relation.allowed[row, target].nonzero()[:, 0]
            leaking = relation.leaking[row, target].nonzero()[:, 0].tolist()
            if not len(allowed) or len(leaking) != 1:
                return None
            gaps = allowed - leaking[0]
            distances.add((relation.side, -int(gaps[gaps.abs().argmin()])))
    if len(distances) != 1:
        return None
    ((side, distance),) = distances
    where = "after" if distance > 0 else "before"
    if abs(distance) != 1:
        return None
    return f"every leak is the one {side} position {where} what is allowed: a mask that is off by one"


def _counted(relation: Relation) -> tuple[torch.Tensor, torch.Tensor]:
    return relation.measured & relation.counted, relation.counted


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _questions(declared: Declaration) -> int:
    source, target = declared.source.length, declared.target.length
    pairs = source * source + target * target + target * source
    return pairs * len(declared.attention_mask)
