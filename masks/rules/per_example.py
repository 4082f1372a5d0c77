"""Numbers that differ from example to example, in a form that rules can ask with integers and with tensors."""

from functools import lru_cache

import torch

from ..expressions import MaskError
from ..fast_paths import is_observed
from ..layout import Layout

Table = tuple[tuple[int, ...], ...]


def look_up(table: Table, row: int | torch.Tensor, column: int | torch.Tensor, fill: int) -> int | torch.Tensor:
    """`table[row][column]`, or `fill` beyond the end of the row; tensors broadcast. A row alone is for all."""
    if isinstance(row, int) and isinstance(column, int):
        own = table[row if len(table) > 1 else 0]
        return own[column] if column < len(own) else fill
    if isinstance(column, int):
        # No tensor of its own: FlexAttention's kernels take none that is made inside a mask.
        numbers = [line[column] if column < len(line) else fill for line in table]
        found: int | torch.Tensor = numbers[0]
        for index, number in enumerate(numbers[1:], start=1):
            found = torch.where(row == index, number, found)  # type: ignore[arg-type]  # the row is a tensor here
        return found
    device = row.device if isinstance(row, torch.Tensor) else column.device
    # A tracer makes the tensor a part of its graph, which is no place for a cached one.
    make = _tensor.__wrapped__ if is_observed() else _tensor
    padded = make(table, fill, device)
    row = row if len(table) > 1 else 0
    if isinstance(column, torch.Tensor):
        column = column.clamp(max=padded.shape[1] - 1)
    return padded[row, column]


@lru_cache(maxsize=8)  # a table may be large
def _tensor(table: Table, fill: int, device: torch.device) -> torch.Tensor:
    """(rows, longest + 1) int64; the last column is `fill` in every row."""
    width = max(map(len, table)) + 1
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in table], dtype=torch.long, device=device)


def example_lengths(side: Layout) -> list[int]:
    """The number of tokens of each example of the batch, as far as this side has them."""
    positions, examples = torch.broadcast_tensors(side.positions, side.examples)
    ends = positions + 1 if side.segments is None else (positions + 1) * (side.segments > 0)
    lengths = ends.new_zeros(int(examples.max()) + 1)
    longest: list[int] = lengths.scatter_reduce(0, examples.flatten(), ends.flatten(), "amax").tolist()
    return longest


def per_example(table: Table, lengths: list[int], what: str) -> list[tuple[int, tuple[int, ...]]]:
    """Pair the length of each example with its row of the table; a row alone is for all, and for the longest example.

    Raises:
        MaskError: there is a row for each example, but of another number of examples.
    """
    if len(table) == 1:
        return [(max(lengths), table[0])]
    if len(table) != len(lengths):
        raise MaskError(f"{what} is for {len(table)} examples, but the batch has {len(lengths)}")
    return list(zip(lengths, table, strict=True))
