"""Whether what `blind` guarantees holds: neither a source token nor the decoder reads the span."""

from collections.abc import Sequence
from functools import reduce

from .expressions import And, Mask, MaskError, Or, by_text, once
from .rules import blind, heads


def enforced(mask: Mask) -> frozenset[blind]:
    """The blind rules that hold for every pair that the mask allows."""
    if isinstance(mask, blind):
        return frozenset([mask])
    if isinstance(mask, And):
        return frozenset().union(*map(enforced, mask.parts))
    if isinstance(mask, (Or, heads)):
        return frozenset.intersection(*map(enforced, mask.parts if isinstance(mask, Or) else mask.values()))
    return frozenset()


def kept_everywhere(layers: Sequence[Mask]) -> frozenset[blind]:
    """The blind rules that hold in every layer."""
    return reduce(frozenset.intersection, map(enforced, once(layers)))


def mentioned(layers: Sequence[Mask]) -> frozenset[blind]:
    """The blind rules that are anywhere in the masks."""
    return frozenset(rule for mask in once(layers) for rule in mask.rules() if isinstance(rule, blind))


def check_blind_spans(
    encoder: Sequence[Mask], decoder: Sequence[Mask], cross: Sequence[Mask], memory: bool = False
) -> None:
    """Check that a span that is blind anywhere is blind in the encoder and cross masks of every layer and head.

    Args:
        encoder, decoder, cross: the masks of all layers.
        memory: whether the decoder reads a memory, which is made without the blind spans of the encoder mask.

    Raises:
        MaskError: something could read a span.
    """
    for span in mentioned(decoder):
        raise MaskError(
            f"decoder_mask must be without blind spans, which are of source tokens, got {span.brief_text()}; write "
            "drop(...)"
        )
    needed = {"encoder_mask": encoder} if memory else {"encoder_mask": encoder, "cross_mask": cross}
    for span in sorted(mentioned(encoder) | mentioned(cross), key=by_text):
        for name, layers in needed.items():
            if span not in kept_everywhere(layers):
                raise MaskError(
                    f"{name} must have {span.brief_text()} in every layer and head, since the span could be read "
                    f"otherwise; join it by & to {' and to '.join(needed)}, or write drop(...) to hide it in one only"
                )


def speaks_of_blind(mask: object) -> bool:
    """Whether the mask of a call has a blind rule."""
    return isinstance(mask, Mask) and bool(mentioned([mask]))
