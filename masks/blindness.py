"""Whether what `blind` promises is kept: no source token may read the span, nor may the decoder."""

from collections.abc import Sequence
from functools import reduce

from .base import And, Mask, MaskError, Or
from .library import blind, heads


def kept(mask: Mask) -> frozenset[blind]:
    """The blind rules that hold wherever the mask allows."""
    if isinstance(mask, blind):
        return frozenset([mask])
    if isinstance(mask, And):
        return frozenset().union(*map(kept, mask.parts))
    if isinstance(mask, Or | heads):
        return frozenset.intersection(*map(kept, mask.parts if isinstance(mask, Or) else mask.values()))
    return frozenset()


def kept_everywhere(layers: Sequence[Mask]) -> frozenset[blind]:
    """The blind rules that hold in every layer."""
    return reduce(frozenset.intersection, map(kept, layers))


def mentioned(layers: Sequence[Mask]) -> frozenset[blind]:
    """The blind rules of which the masks speak at all."""
    return frozenset(rule for mask in layers for rule in mask.rules() if isinstance(rule, blind))


def check_blind_spans(decoder: Sequence[Mask], **scopes: Sequence[Mask]) -> None:
    """Check that a blind span of one scope is blind in all of them, in every layer and head.

    Args:
        decoder: the masks of the decoder's own attention, which reads no source.
        scopes: the masks of all layers, by the name of the scope's argument (`encoder_mask`, `cross_mask`).

    Raises:
        MaskError: it is not, and something could read the span.
    """
    for span in mentioned(decoder):
        raise MaskError(f"decoder_mask: {span} hides source tokens, of which it has none; write drop(...)")
    for span in sorted(frozenset().union(*map(mentioned, scopes.values())), key=str):
        for name, layers in scopes.items():
            if span not in kept_everywhere(layers):
                raise MaskError(
                    f"{name}: {span} does not hold in every layer and head here, so what is under the span could be "
                    f"read; join it by & to {' and to '.join(scopes)}, or write drop(...) to hide it in one only"
                )
