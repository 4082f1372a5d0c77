"""When a stream writes: read-write policies for simultaneous translation."""

from dataclasses import dataclass

import torch

from .streaming_model import StreamingModel


class Policy:
    """Decides, target token by target token, whether enough of the source has been read.

    To write one, subclass this, and pass an instance as `model.stream(..., policy=...)`. Once a source has ended
    neither question is asked any more.
    """

    needs_attention: bool = False
    """Whether `accepts` wants the weights of the interactive attention, which only eager attention gives."""

    def check(self, model: StreamingModel, unlimited: str | None) -> None:
        """Check that the policy can work, before a stream begins.

        Args:
            model: the one that streams.
            unlimited: the cross mask, if it lets the first target token see the whole source, however long.

        Raises:
            ValueError: it cannot, and how to fix it.
        """
        attention = model.config._attn_implementation
        if self.needs_attention and not (attention or "eager").endswith("eager"):  # there are others of that kind
            raise ValueError(
                f"{self} needs attention weights, which the backend {attention!r} does not return; "
                'call model.set_attn_implementation("eager") first'
            )

    def ready(self, written: int, read: int, needed: int) -> bool:
        """Whether to predict the next target token: asked before it is computed.

        Args:
            written: target tokens so far. read: source tokens encoded so far.
            needed: how many source tokens the masks let this target token see.
        """
        return read > 0

    def accepts(self, attention: torch.Tensor | None, read: int) -> bool:
        """Whether the token that was predicted is written; if not, it is predicted anew when more has been read.

        Args:
            attention: (layers, H, read) weights of the interactive attention, if `needs_attention`.
        """
        return True


@dataclass(frozen=True)
class FollowMask(Policy):
    """Write as soon as all has been read that the masks let the target token see: `wait_k(3)` waits for 3 tokens.

    The output is, token for token, what `generate()` makes of the whole source under the same masks (Ma et al. 2019,
    https://arxiv.org/abs/1810.08398, for wait-k).
    """

    def check(self, model: StreamingModel, unlimited: str | None) -> None:
        if unlimited is not None:
            raise ValueError(
                f"cross_mask {unlimited} lets the first target token see the whole source, so nothing could be "
                'written before its end; stream with cross_mask="wait_k(3)", or with policy=AlignAtt(f=2)'
            )

    def ready(self, written: int, read: int, needed: int) -> bool:
        return read >= needed


@dataclass(frozen=True)
class ReadAll(Policy):
    """Write nothing before the source has ended: offline translation, to hold the others against."""

    def ready(self, written: int, read: int, needed: int) -> bool:
        return False


@dataclass(frozen=True)
class AlignAtt(Policy):
    """Stop when the most attended source token is among the last `f` read (Papi et al. 2023, Interspeech,
    https://arxiv.org/abs/2305.11408).

    Needs no training for simultaneous translation, and no wait-k mask: a target token sees all that has been read.

    Args:
        f: the larger, the longer it waits; 0 never does.
        layer: the decoder layer whose attention, averaged over its heads, is looked at; the mean of all by default.

    Raises:
        ValueError: `f` is not an integer of at least 0, or `layer` no integer.
    """

    f: int
    layer: int | None = None
    needs_attention = True

    def __post_init__(self) -> None:
        if isinstance(self.f, bool) or not isinstance(self.f, int) or self.f < 0:
            raise ValueError(f"AlignAtt: f must be an integer of at least 0, got {self.f!r}")
        if self.layer is not None and not isinstance(self.layer, int):
            raise ValueError(f"AlignAtt: layer must be a decoder layer's number or None, got {self.layer!r}")

    def check(self, model: StreamingModel, unlimited: str | None) -> None:
        super().check(model, unlimited)
        layers = model.mask_compilers[2].layers
        if self.layer is not None and not -layers <= self.layer < layers:
            raise ValueError(f"{self}: there is no decoder layer {self.layer}, but {layers} of them, counted from 0")

    def ready(self, written: int, read: int, needed: int) -> bool:
        return read > self.f  # otherwise all that there is lies within f of the frontier

    def accepts(self, attention: torch.Tensor, read: int) -> bool:
        weights = attention if self.layer is None else attention[self.layer]
        return int(weights.flatten(0, -2).mean(dim=0).argmax()) < read - self.f
