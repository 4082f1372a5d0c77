"""Rules of which portions of the keys may be read, whoever asks: spans, and chosen passages."""

from dataclasses import dataclass
from typing import Any

from ..expressions import EVERYWHERE, FAR, Allowed, Mask, MaskError, Rule, TokenPosition, contrary, either
from ..key_ranges import Range, example_among, gaps, passage_ends
from ..limits import NUMBERS_LIMIT, brief
from ..registry import rule
from .per_example import Table, example_lengths, look_up, per_example

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, repr=False, init=False)
class _Spans(Rule):
    spans: Spans = ()
    examples: tuple[Spans, ...] | None = None

    def __init__(self, *spans: tuple[int, int], examples: tuple[Spans, ...] | None = None):
        if spans and examples is not None:
            raise MaskError(f"{self.name}: give either spans, for all examples, or examples=, spans for each")
        rows = (spans,) if examples is None else examples
        if not isinstance(rows, tuple | list):
            raise MaskError(f"{self.name}: examples must be a tuple of spans for each example, got {brief(rows)}")
        if 2 * sum(len(row) for row in rows if isinstance(row, tuple | list)) + len(rows) > NUMBERS_LIMIT:
            raise MaskError(
                f"{self.name}: the spans must have at most {NUMBERS_LIMIT:,} numbers; give a boolean tensor instead"
            )
        object.__setattr__(self, "spans", self.read(spans))
        object.__setattr__(self, "examples", None if examples is None else tuple(map(self.read, examples)))
        if self.examples == ():
            raise MaskError(f"{self.name}: examples=() has spans for no example; give one tuple of spans for each")

    def read(self, spans: Any) -> Spans:
        """Spans as tuples in order; those that touch or overlap become one."""
        if not isinstance(spans, tuple | list):
            raise MaskError(f"{self.name}: expected a tuple of spans for each example, got {brief(spans)}")
        joined: list[tuple[int, int]] = []
        for start, end in sorted(map(self.read_span, spans)):
            if joined and start <= joined[-1][1]:
                start, last = joined.pop()
                end = max(end, last)
            joined.append((start, end))
        return tuple(joined)

    def read_span(self, span: Any) -> tuple[int, int]:
        numbers = tuple(span) if isinstance(span, tuple | list) and len(span) == 2 else ()
        if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
            raise MaskError(f"{self.name}: a span must be a pair (first, one past the last), got {brief(span)}")
        if not 0 <= numbers[0] < numbers[1] < 2**31:
            raise MaskError(f"{self.name}: a span must be from 0 up and hold at least one token, got {brief(span)}")
        return numbers

    def text(self) -> str:
        if self.examples is None:
            return f"{self.name}({', '.join(map(repr, self.spans))})"
        return f"{self.name}(examples={self.examples!r})"

    @property
    def table(self) -> tuple[Spans, ...]:
        return (self.spans,) if self.examples is None else self.examples

    def holds(self, k: TokenPosition) -> Allowed:
        """Whether `k` is in a span."""
        inside = k.position < 0
        starts, ends = (_column(self.table, side) for side in (0, 1))
        for index in range(max(map(len, starts))):
            start = look_up(starts, k.example, index, fill=0)
            inside = inside | ((start <= k.position) & (k.position < look_up(ends, k.example, index, fill=0)))
        return inside

    def ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        """The spans of the example that `q` belongs to, first and last position; those it lacks are far away."""
        row = 0 if self.examples is None else example_among(keys, q)
        starts, ends = (_column(self.table, side) for side in (0, 1))
        return [
            (look_up(starts, row, index, fill=FAR), look_up(ends, row, index, fill=FAR) - 1)
            for index in range(max(map(len, starts)))
        ]

    def check(self, query: Any, key: Any, heads: int) -> None:
        for length, row in per_example(_column(self.table, 1), example_lengths(key), self.name):
            if row and max(row) > length and not key.may_grow:
                raise MaskError(
                    f"{self.name}: a span ends at {max(row)}, but there are {length} tokens to attend to; "
                    "spans count the tokens of an example from 0"
                )


def _column(table: tuple[Spans, ...], side: int) -> Table:
    return tuple(tuple(span[side] for span in spans) for spans in table)


@rule
@dataclass(frozen=True, repr=False, init=False)
class keep(_Spans):
    """Only what is in the spans, which are half-open, `(first, one past the last)`; or only chosen passages.

    ```
    keep((1,3))
    .##.
    .##.
    ```

    When to use: in the cross mask, to answer from a part of the source. Neighbours: `drop` is the contrary;
    `prefix(n)` is `keep((0, n))`; `blind` hides a span for good.

    Args:
        spans: pairs of positions, for all examples of a batch.
        examples: or a tuple of such pairs for each example.
        passages: or the numbers of the passages to keep, as `passage_ids` have them.

    Raises:
        MaskError: spans that are none; in a call, a span outside of the text, a passage that is not there, or another
            number of examples than the batch has.
    """

    passages: tuple[int, ...] | None = None
    name = "keep"

    def __init__(
        self,
        *spans: tuple[int, int],
        examples: tuple[Spans, ...] | None = None,
        passages: tuple[int, ...] | None = None,
    ):
        super().__init__(*spans, examples=examples)
        if passages is not None:
            if spans or examples is not None:
                raise MaskError(f"{self.name}: give either spans or passages; join two rules by & for both")
            if not isinstance(passages, tuple | list) or not all(type(n) is int and 0 <= n < 2**31 for n in passages):
                raise MaskError(f"{self.name}: passages must be a tuple of numbers from 0, got {brief(passages)}")
            passages = tuple(sorted(set(passages)))
        object.__setattr__(self, "passages", passages)

    def text(self) -> str:
        return super().text() if self.passages is None else f"{self.name}(passages={self.passages!r})"

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        if self.passages is None:
            return self.holds(k)
        inside = k.position < 0
        for number in self.passages:
            inside = either(inside, k.passage == number)
        return inside

    @property
    def reach_is_exact(self) -> bool:  # type: ignore[override]  # spans lie in order, passages need not
        return self.passages is None

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        if self.passages is None:
            return self.ranges(q, keys)
        if keys.passages is None:
            return [EVERYWHERE]
        return [passage_ends(keys, q.segment, number) for number in self.passages]

    def check(self, query: Any, key: Any, heads: int) -> None:
        if self.passages is None:
            super().check(query, key, heads)
        elif self.passages:
            last = 0 if key.passages is None else int(key.passages.max())
            if self.passages[-1] > last:
                there = (
                    "there is passage 0 alone; pass passage_ids" if last == 0 else f"there are passages 0 to {last}"
                )
                raise MaskError(f"{self.brief_text()}: no passage {self.passages[-1]}: {there}")


@rule
def drop(*spans: tuple[int, int], examples: Any = None, passages: Any = None) -> Mask:
    """All but what is in the spans or passages: `~keep(...)`.

    ```
    drop((1,3))
    #..#
    #..#
    ```

    When to use: to take a part of the source away, for an ablation or a correction. Neighbours: `blind` also makes
    sure that nothing learns of the span by another way.

    Args, Raises: as in `keep`.
    """
    return ~keep(*spans, examples=examples, passages=passages)


@rule
class blind(_Spans):
    """Spans of the source that nothing may read, for privacy, in the encoder mask and in the cross mask.

    ```
    blind((1,3))
    #..#
    #..#
    ```

    ```python
    hidden = masks.blind((2, 5))
    model.generate(ids, encoder_mask=hidden, cross_mask=hidden)
    ```

    What it guarantees: whatever tokens stand under the span, every logit, loss, generated token, score and gradient of
    a parameter is the same to the bit. It needs both masks, because an encoder token that read the span would carry it
    on; a call in which only one has it is an error. In the encoder no token reads a blind one, not even itself: its
    hidden state goes on from layer to layer, and nothing ever reads it.

    What it does not: that there is a span, where and how long, still shows. `encoder_last_hidden_state` at the span's
    own positions, and what generation reads off the source's ids without the network
    (`encoder_repetition_penalty`, `encoder_no_repeat_ngram_size`, `prompt_lookup_num_tokens`), depend on it.

    When to use: names, numbers and other private spans; `masks.find_spans` finds them. Neighbours: `drop` is the same
    rule without the promise.

    Args, Raises: as in `keep`, without passages.
    """

    name = "blind"
    reach_is_exact = True

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return contrary(self.holds(k))

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        return gaps(self.ranges(q, keys))
