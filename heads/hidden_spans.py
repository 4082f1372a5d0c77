"""The blind spans of a call: tokens that nothing reads."""

from ..masks.blind_check import enforced, mentioned
from ..masks.expressions import And, Mask, MaskError
from ..masks.rules import blind
from ..masks.tensor_mask import TensorMask


def blind_part(**call_masks: Mask | TensorMask | None) -> Mask | None:
    """The blind spans of all masks as one rule, or None where there are none.

    Raises:
        MaskError: a blind span that does not hold wherever its mask allows.
    """
    hidden: set[Mask] = set()
    for name, mask in call_masks.items():
        if not isinstance(mask, Mask):
            continue
        spans = enforced(mask)
        for span in mentioned([mask]) - spans:
            raise MaskError(
                f"{name}: {span.brief_text()} does not hold everywhere here, so what is under the span could be read; "
                "join it by &, or write drop(...) for a span that the encoder may read"
            )
        hidden |= spans
    if not hidden:
        return None
    parts = tuple(sorted(hidden, key=str))
    return parts[0] if len(parts) == 1 else And(parts)


def hides_alone(mask: Mask) -> bool:
    """Whether a mask is made of blind spans alone."""
    return all(isinstance(part, blind) for part in (mask.parts if isinstance(mask, And) else (mask,)))
