"""Tables of numbers with a row for each example, in which rules look up integers and tensors alike."""

from functools import lru_cache

import torch

from ..expressions import MaskError
from ..fast_paths import is_observed
from ..layout import Layout

Table = tuple[tuple[int, ...], ...]


def look_up(table: Table, row: int | torch.Tensor, column: int | torch.Tensor, fill: int) -> int | torch.Tensor:
    """`table[row][column]`, or `fill` beyond the end of the row. A table of one row has it for all examples."""
    if isinstance(row, int) and isinstance(column, int):
        numbers = table[row if len(table) > 1 else 0]
        return numbers[column] if column < len(numbers) else fill
    if isinstance(column, int):
        # Without a tensor for the table: FlexAttention's kernels take no tensor that is made inside of a mask.
        choices = [line[column] if column < len(line) else fill for line in table]
        result: int | torch.Tensor = choices[0]
        for index, choice in enumerate(choices[1:], start=1):
            result = torch.where(row == index, choice, result)  # type: ignore[arg-type]  # the row is a tensor here
        return result
    device = row.device if isinstance(row, torch.Tensor) else column.device
    # A tracer makes the tensor a part of its graph, and a cached one must not be in two graphs.
    build = _tensor.__wrapped__ if is_observed() else _tensor
    padded = build(table, fill, device)
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
    """The number of tokens of each example of the batch, on this side."""
    positions, examples = torch.broadcast_tensors(side.positions, side.examples)
    ends = positions + 1 if side.segments is None else (positions + 1) * (side.segments > 0)
    lengths = ends.new_zeros(int(examples.max()) + 1)
    longest: list[int] = lengths.scatter_reduce(0, examples.flatten(), ends.flatten(), "amax").tolist()
    return longest


def per_example(table: Table, lengths: list[int], name: str) -> list[tuple[int, tuple[int, ...]]]:
    """Pair the length of each example with its row of the table; a single row is paired with the longest example.

    Args:
        name: the rule's, for the error.

    Raises:
        MaskError: the table has several rows, and not one for each example.
    """
    if len(table) == 1:
        return [(max(lengths), table[0])]
    if len(table) != len(lengths):
        raise MaskError(
            f"{name}: examples must have a tuple for each of the {len(lengths)} examples of the batch, got "
            f"{len(table)}; give one for each, or a single one for all"
        )
    return list(zip(lengths, table, strict=True))
