"""Multi-path training: a wait of its own for every step, so that one model serves many.

Elbayad et al. 2020, "Efficient Wait-k Models for Simultaneous Machine Translation", https://arxiv.org/abs/2005.08595.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..masks.rules.positional import wait_k
from ..utils.errors import InputError


@dataclass(frozen=True)
class Multipath:
    """Chooses `k` for an optimizer step from `lowest` to `highest`, each as likely.

    The choice is a function of the seed and the step, so a resumed run and every process make the same.

    Raises:
        ValueError: not two integers of which the first is at least 1 and the second no smaller.
    """

    lowest: int
    highest: int
    seed: int = 0

    @classmethod
    def of(cls, bounds: Sequence[int], seed: int, longest: int | None = None) -> "Multipath":
        """From a recipe's `multipath_k: [lowest, highest]`; a source has at most `longest` tokens."""
        are_integers = isinstance(bounds, list | tuple) and all(type(bound) is int for bound in bounds)
        if not are_integers or len(bounds) != 2 or not 1 <= bounds[0] <= bounds[1]:
            raise InputError(f"multipath_k must be [lowest, highest] with 1 <= lowest <= highest, got {bounds!r}")
        if longest is not None and bounds[1] > longest:
            raise InputError(
                f"multipath_k must be at most max_source_length={longest}, since a longer wait reads all of every "
                f"source, got {bounds!r}; lower it"
            )
        return cls(bounds[0], bounds[1], seed)

    def mask(self, step: int) -> wait_k:
        """The cross mask of an optimizer step, counted from 0."""
        return wait_k(int(np.random.default_rng((self.seed, step)).integers(self.lowest, self.highest + 1)))
