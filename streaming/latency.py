"""The latency of simultaneous translation in source words, as SimulEval 1.1 computes it.

The delay of a target word is the number of source words that had been read when it was written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..utils.errors import InputError


def average_lagging(delays: Sequence[float], source_length: int, target_length: int | None = None) -> float:
    """AL (Ma et al. 2019, https://arxiv.org/abs/1810.08398): the mean lag behind an ideal policy.

    Target words that are written after the source has ended do not count, but for the first of them.

    ```python
    >>> average_lagging([3, 4, 5, 5], source_length=5, target_length=5)
    3.0
    ```

    Args:
        delays: one for each target word.
        target_length: words in the reference; those of the translation if there is none.

    Raises:
        ValueError: no delays, or a length below 1.
    """
    _check(delays, source_length, target_length)
    return _lagging(delays, source_length, target_length or len(delays))


def length_adaptive_average_lagging(
    delays: Sequence[float], source_length: int, target_length: int | None = None
) -> float:
    """LAAL (Papi et al. 2022, https://arxiv.org/abs/2206.05807): AL that does not reward long translations.

    ```python
    >>> length_adaptive_average_lagging([1, 2, 3, 4], source_length=4, target_length=2)
    1.0
    ```

    Arguments and errors as for `average_lagging`.
    """
    _check(delays, source_length, target_length)
    return _lagging(delays, source_length, max(len(delays), target_length or 0))


def differentiable_average_lagging(delays: Sequence[float], source_length: int) -> float:
    """DAL (Cherry and Foster 2019, https://arxiv.org/abs/1906.00048): AL in which writing a word takes time.

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
        raise InputError("delays must have one for each target word, got none; leave out sentences without any")
    for name, length in (("source_length", source_length), ("target_length", target_length)):
        if length is not None and length < 1:
            raise InputError(f"{name} must be at least 1, got {length}")


@dataclass(frozen=True)
class Latency:
    """The latency of a corpus: means over the sentences whose translation is not empty."""

    AL: float
    LAAL: float
    DAL: float

    @classmethod
    def of(
        cls, delays: Sequence[Sequence[float]], source_lengths: Sequence[int], references: Sequence[str]
    ) -> "Latency":
        """The latency of sentences.

        Args:
            delays: of the words of each translation.
            source_lengths: the number of words of each source.
            references: the texts whose numbers of words are the target lengths.

        Raises:
            ValueError: unequal numbers of sentences, or no translation that is not empty.
        """
        sentences = zip(delays, source_lengths, references, strict=True)
        written = [(d, source, len(reference.split(" "))) for d, source, reference in sentences if d]
        if not written:
            raise InputError(
                f"at least one of {len(delays)} translations must not be empty, got none; there is nothing to measure"
            )
        return cls(
            AL=fmean(average_lagging(*sentence) for sentence in written),
            LAAL=fmean(length_adaptive_average_lagging(*sentence) for sentence in written),
            DAL=fmean(differentiable_average_lagging(d, source) for d, source, _ in written),
        )
