"""Rules that choose keys, the same for all queries: by spans of positions, or by passages."""

from dataclasses import dataclass
from typing import Any

from ..expressions import EVERYWHERE, FAR, Allowed, Mask, MaskError, Rule, TokenPosition, logical_not, logical_or
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
            raise MaskError(
                f"{self.name} must have either spans or examples, got both; give spans for all examples alike, or "
                "examples=, a tuple of spans for each"
            )
        rows = (spans,) if examples is None else examples
        if not isinstance(rows, tuple | list):
            raise MaskError(f"{self.name}: examples must be a tuple of spans for each example, got {brief(rows)}")
        size = 2 * sum(len(row) for row in rows if isinstance(row, tuple | list)) + len(rows)
        if size > NUMBERS_LIMIT:
            raise MaskError(
                f"{self.name}: spans must be at most {NUMBERS_LIMIT:,} numbers, got {size:,}; give a boolean tensor "
                "instead"
            )
        object.__setattr__(self, "spans", self.read(spans))
        object.__setattr__(self, "examples", None if examples is None else tuple(map(self.read, examples)))
        if self.examples == ():
            raise MaskError(f"{self.name}: examples must not be empty, got (); give a tuple of spans for each example")

    def read(self, spans: Any) -> Spans:
        """Spans as tuples in ascending order; those that touch or overlap are merged."""
        if not isinstance(spans, tuple | list):
            raise MaskError(f"{self.name}: examples must have a tuple of spans for each example, got {brief(spans)}")
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
            raise MaskError(
                f"{self.name}: a span must start at 0 or later and have at least one token, got {brief(span)}"
            )
        return numbers

    def text(self) -> str:
        if self.examples is None:
            return f"{self.name}({', '.join(map(repr, self.spans))})"
        return f"{self.name}(examples={self.examples!r})"

    @property
    def table(self) -> tuple[Spans, ...]:
        return (self.spans,) if self.examples is None else self.examples

    def contains(self, k: TokenPosition) -> Allowed:
        """Whether `k` is in a span."""
        inside = k.position < 0
        starts, ends = (_column(self.table, side) for side in (0, 1))
        for index in range(max(map(len, starts))):
            start = look_up(starts, k.example, index, fill=0)
            inside = inside | ((start <= k.position) & (k.position < look_up(ends, k.example, index, fill=0)))
        return inside

    def ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        """The spans of the example of `q`, first and last position; where it has fewer than others, they are `FAR`."""
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
                    f"{self.name}: a span must end within the {length} tokens to attend to, got a span that ends at "
                    f"{max(row)}; count the tokens of an example from 0"
                )


def _column(table: tuple[Spans, ...], side: int) -> Table:
    return tuple(tuple(span[side] for span in spans) for spans in table)


@rule
@dataclass(frozen=True, repr=False, init=False)
class keep(_Spans):
    """Only keys in spans, each `(first, one past the last)`, or only keys in chosen passages.

    ```
    keep((1, 3))
    .##.
    .##.
    ```

    When to use: in the cross mask, to generate from a part of the source: `keep((2, 5))`, or, with `passage_ids`,
    `keep(passages=(2,))`. What other encoder tokens have read from the rest remains.

    See also: `drop` is the negation; `prefix(n)` is `keep((0, n))`; `blind` keeps encoder tokens from reading a span
    too.

    Args:
        spans: pairs of positions, for all examples of a batch alike.
        examples: instead of `spans`, a tuple of such pairs for each example.
        passages: instead of `spans`, the numbers of the passages to keep, as in `passage_ids`.

    Raises:
        MaskError: `spans`, `examples` or `passages` are not of this form, or two of them are given; in a call, a span
            outside of the text, a passage that does not exist, or another number of examples than the batch has.
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
                raise MaskError(f"{self.name} must have either spans or passages, got both; join two rules by &")
            if not isinstance(passages, tuple | list) or not all(type(n) is int and 0 <= n < 2**31 for n in passages):
                raise MaskError(f"{self.name}: passages must be a tuple of numbers from 0, got {brief(passages)}")
            passages = tuple(sorted(set(passages)))
        object.__setattr__(self, "passages", passages)

    def text(self) -> str:
        return super().text() if self.passages is None else f"{self.name}(passages={self.passages!r})"

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        if self.passages is None:
            return self.contains(k)
        inside = k.position < 0
        for number in self.passages:
            inside = logical_or(inside, k.passage == number)
        return inside

    @property
    def reach_is_exact(self) -> bool:  # type: ignore[override]  # spans ascend, passages need not
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
                fix = "pass passage_ids" if last == 0 else "number passages as passage_ids do"
                raise MaskError(
                    f"{self.brief_text()}: a passage must be from 0 to {last}, as in the batch, got "
                    f"{self.passages[-1]}; {fix}"
                )


@rule
def drop(*spans: tuple[int, int], examples: Any = None, passages: Any = None) -> Mask:
    """All keys but those in spans or in chosen passages: `~keep(...)`.

    ```
    drop((1, 3))
    #..#
    #..#
    ```

    When to use: in the cross mask, to generate without a part of the source, for an ablation or a correction. What
    other encoder tokens have read from that part remains.

    See also: `blind` keeps encoder tokens from reading a span too.

    Args, Raises: as in `keep`.
    """
    return ~keep(*spans, examples=examples, passages=passages)


@rule
class blind(_Spans):
    """All keys but those in private spans, which nothing in the model reads.

    ```
    blind((1, 3))
    #..#
    #..#
    ```

    ```python
    hidden = masks.blind((2, 5))
    model.generate(ids, encoder_mask=hidden, cross_mask=hidden)
    ```

    What it guarantees: whatever tokens are in the span, every logit, loss, generated token, score and gradient of a
    parameter is the same to the bit. It has to be in the encoder mask and in the cross mask, because an encoder token
    that read the span would pass it on; a call in which only one of them has it is an error. In the encoder no token
    reads a blind one, not even that token itself: its hidden state goes from layer to layer and is never read.

    What it does not guarantee: that there is a span, where it is and how long, can be told.
    `encoder_last_hidden_state` at the span's own positions depends on it, and so do options of generation that read
    the source's ids without the network (`encoder_repetition_penalty`, `encoder_no_repeat_ngram_size`,
    `prompt_lookup_num_tokens`).

    When to use: in the encoder mask and in the cross mask, for names, numbers and other private spans;
    `masks.find_spans` finds them.

    See also: `drop` allows the same and guarantees nothing.

    Args, Raises: as in `keep`, without passages.
    """

    name = "blind"
    reach_is_exact = True

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return logical_not(self.contains(k))

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        return gaps(self.ranges(q, keys))
