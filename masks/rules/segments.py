"""Rules by which tokens of the same part see each other: an example of a packed row, a passage of an example."""

from dataclasses import dataclass
from typing import Any

from ..expressions import EVERYWHERE, Allowed, MaskError, Rule, TokenPosition
from ..key_ranges import Range, passage_ends
from ..registry import rule


@rule
@dataclass(frozen=True, repr=False)
class segments(Rule):
    """The same example.

    ```
    ##..
    ##..
    ..##
    ..##
    ```

    When to use: never needed, since a packed row is masked so whatever the rule; it says it where one wants it said.
    The picture shows a row of two examples of two tokens. Neighbours: `passages` parts an example.
    """

    name = "segments"
    reach_is_exact = True  # what is out of reach lies in other segments, which are closed to the contrary too

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return q.segment == k.segment


@rule
@dataclass(frozen=True, repr=False)
class passages(Rule):
    """The same passage of an example, as `passage_ids` number them.

    ```
    ##..
    ##..
    ..##
    ..##
    ```

    When to use: in the encoder mask, to encode several passages in one row, each on its own, all of which the decoder
    reads (Fusion-in-Decoder, Izacard and Grave 2021, https://arxiv.org/abs/2007.01282). The picture shows two passages
    of two tokens. Neighbours: `keep(passages=(2,))` in the cross mask then reads chosen ones only.

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
                "passages(): the queries are in no passage; it belongs in encoder_mask, and keep(passages=(0,)) in "
                "cross_mask reads chosen ones"
            )
