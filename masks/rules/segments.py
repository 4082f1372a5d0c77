"""Rules that allow tokens of the same part only: of an example in a packed row, or of a passage in an example."""

from dataclasses import dataclass
from typing import Any

from ..expressions import EVERYWHERE, Allowed, MaskError, Rule, TokenPosition
from ..key_ranges import Range, passage_ends
from ..registry import rule


@rule
@dataclass(frozen=True, repr=False)
class segments(Rule):
    """Only tokens of the same example.

    ```
    segments(), source_segments=1122
    ##..
    ##..
    ..##
    ..##
    ```

    The picture is of a packed row with two examples of two tokens.

    When to use: to write down that examples of a packed row do not see each other. It is never necessary: with
    `segment_ids` they do not, whatever the rule.

    See also: `passages` for the passages of an example.
    """

    name = "segments"
    reach_is_exact = True  # other segments are out of reach of every rule, and so of the negation of this one

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return q.segment == k.segment


@rule
@dataclass(frozen=True, repr=False)
class passages(Rule):
    """Only tokens of the same passage of an example; `passage_ids` give the passages.

    ```
    passages(), source_passages=0011
    ##..
    ##..
    ..##
    ..##
    ```

    The picture is of two passages of two tokens.

    When to use: in the encoder mask, to encode passages separately in one row, while the decoder reads all of them
    (Fusion-in-Decoder; Izacard and Grave 2021, https://arxiv.org/abs/2007.01282).

    See also: `keep(passages=(2,))` in the cross mask reads chosen passages only.

    Raises:
        MaskError: in a call, keys have passages and queries have none, as in a cross mask.
    """

    name = "passages"

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return q.passage == k.passage

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        return [EVERYWHERE if keys.passages is None else passage_ends(keys, q.segment, q.passage)]

    def check(self, query: Any, key: Any, heads: int) -> None:
        if query.passages is None and key.passages is not None:
            raise MaskError(
                "passages(): queries must have passages too, got passage_ids for the keys only; use it as "
                "encoder_mask, and keep(passages=(0,)) as cross_mask to read chosen passages"
            )
