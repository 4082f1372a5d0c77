"""Whether what `blind` promises is kept: no source token may read the span, nor may the decoder."""

from collections.abc import Sequence
from functools import reduce

from .expressions import And, Mask, MaskError, Or, by_text, once
from .rules import blind, heads


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
    return reduce(frozenset.intersection, map(kept, once(layers)))


def mentioned(layers: Sequence[Mask]) -> frozenset[blind]:
    """The blind rules of which the masks speak at all."""
    return frozenset(rule for mask in once(layers) for rule in mask.rules() if isinstance(rule, blind))


def check_blind_spans(
    encoder: Sequence[Mask], decoder: Sequence[Mask], cross: Sequence[Mask], memory: bool = False
) -> None:
    """Check that a span which is blind anywhere is so in the encoder and in the cross mask, in every layer and head.

    Args:
        encoder, decoder, cross: the masks of all layers.
        memory: whether the decoder reads a memory, into which the encoder's blind spans are not pooled.

    Raises:
        MaskError: something could read a span.
    """
    for span in mentioned(decoder):
        raise MaskError(
            f"decoder_mask: {span.brief_text()} hides source tokens, of which it has none; write drop(...)"
        )
    needed = {"encoder_mask": encoder} if memory else {"encoder_mask": encoder, "cross_mask": cross}
    for span in sorted(mentioned(encoder) | mentioned(cross), key=by_text):
        for name, layers in needed.items():
            if span not in kept_everywhere(layers):
                raise MaskError(
                    f"{name}: {span.brief_text()} does not hold in every layer and head here, so what is under the "
                    f"span could be read; join it by & to {' and to '.join(needed)}, or write drop(...) to hide it "
                    "in one only"
                )


def speaks_of_blind(mask: object) -> bool:
    """Whether a call's mask has a blind rule in it."""
    return isinstance(mask, Mask) and bool(mentioned([mask]))
