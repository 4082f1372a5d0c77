"""How far a simultaneous translation lags behind its source, as SimulEval 1.1 counts it, in words.

A delay is the number of source words that had been read when a target word was written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..utils.errors import InputError


def average_lagging(delays: Sequence[float], source_length: int, target_length: int | None = None) -> float:
    """AL (Ma et al. 2019, https://arxiv.org/abs/1810.08398): how far behind an ideal writer, until the source ends.

    ```python
    >>> average_lagging([3, 4, 5, 5], source_length=5, target_length=5)
    3.0
    ```

    Args:
        delays: one for each target word.
        target_length: words in the reference; in the translation itself if there is none.

    Raises:
        ValueError: no delays, or a length below 1.
    """
    _check(delays, source_length, target_length)
    return _lagging(delays, source_length, target_length or len(delays))


def length_adaptive_average_lagging(
    delays: Sequence[float], source_length: int, target_length: int | None = None
) -> float:
    """LAAL (Papi et al. 2022, https://arxiv.org/abs/2206.05807): AL that does not reward a translation too long.

    ```python
    >>> length_adaptive_average_lagging([1, 2, 3, 4], source_length=4, target_length=2)
    1.0
    ```

    Arguments and errors as for `average_lagging`.
    """
    _check(delays, source_length, target_length)
    return _lagging(delays, source_length, max(len(delays), target_length or 0))


def differentiable_average_lagging(delays: Sequence[float], source_length: int) -> float:
    """DAL (Cherry and Foster 2019, https://arxiv.org/abs/1906.00048): AL in which every word written takes its time.

    ```python
    >>> differentiable_average_lagging([4, 4], source_length=4)
    4.0
    ```

    Raises:
        ValueError: no delays, or a length below 1.
    """
    _check(delays, source_length, None)
    step = source_length / len(delays)
    total = earliest = 0.0
    for index, delay in enumerate(delays):
        started = max(delay, earliest)
        total += started - index * step
        earliest = started + step
    return total / len(delays)


def _lagging(delays: Sequence[float], source_length: int, target_length: int) -> float:
    if delays[0] > source_length:
        return float(delays[0])
    last = next((index for index, delay in enumerate(delays) if delay >= source_length), len(delays) - 1)
    return fmean(delay - index * source_length / target_length for index, delay in enumerate(delays[: last + 1]))


def _check(delays: Sequence[float], source_length: int, target_length: int | None) -> None:
    if not delays:
        raise InputError("no delays: nothing was written, so there is no latency; leave such sentences out")
    if source_length < 1 or (target_length is not None and target_length < 1):
        raise InputError(f"lengths must be at least 1, got source {source_length} and target {target_length}")


@dataclass(frozen=True)
class Latency:
    """The latency of a corpus: means over the sentences for which something was written."""

    AL: float
    LAAL: float
    DAL: float

    @classmethod
    def of(
        cls, delays: Sequence[Sequence[float]], source_lengths: Sequence[int], references: Sequence[str]
    ) -> "Latency":
        """Measure sentences, given their delays, the number of words in their sources, and their references.

        Raises:
            ValueError: unequal numbers of sentences, or nothing written for any.
        """
        sentences = zip(delays, source_lengths, references, strict=True)
        written = [(d, source, len(reference.split(" "))) for d, source, reference in sentences if d]
        if not written:
            raise InputError(f"nothing was written for any of {len(delays)} sentences, so there is no latency")
        return cls(
            AL=fmean(average_lagging(*sentence) for sentence in written),
            LAAL=fmean(length_adaptive_average_lagging(*sentence) for sentence in written),
            DAL=fmean(differentiable_average_lagging(d, source) for d, source, _ in written),
        )
