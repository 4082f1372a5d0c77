"""Which states read which tokens, found by changing the tokens one by one."""

import torch

LENGTH = 9
CALLS = [
    "drop((0, 1))",
    "window(4, 4)",
    "~full() | window(2, 2)",
    torch.rand(1, LENGTH, LENGTH, generator=torch.Generator().manual_seed(0)) > 0.3,
    torch.zeros(1, LENGTH, LENGTH, dtype=torch.bool),
]
"""Masks of a call that leave queries with nothing to see, or speak of tokens that come later."""


def read(states, source: torch.Tensor) -> torch.Tensor:
    """(T, S) bool: which states change when a token of a source (1, S) does."""
    before, changed = states(source), []
    for column in range(source.shape[1]):
        other = source.clone()
        other[:, column] = (other[:, column] - 4 + 7) % 40 + 4
        changed.append((states(other) - before).abs().amax(-1)[0] > 0)
    return torch.stack(changed, dim=1)
