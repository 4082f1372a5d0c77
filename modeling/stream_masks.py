"""What masks mean to a stream: how far it must have come for a token, and whether it came as far as they speak of."""

from collections.abc import Sequence

import torch
from torch import nn

from ..masks.base import Mask, MaskError
from ..masks.given import MaskLike, TensorMask, read
from ..masks.layout import Layout, lay_out
from .frontier import ClosedPrefixes, Frontier


class StreamMasks:
    """The masks of streams side by side, from config and call.

    Attributes:
        given: the call's rules, by name.
        needed: how many source tokens a target token must wait for.
        closed: how much of what has arrived of a source may be encoded.

    Raises:
        ValueError: masks that cannot be read, do not fit the streams, are blind in part, or look ahead in the encoder;
            a model with a memory.
    """

    def __init__(self, model: nn.Module, batch: int, masks: dict[str, MaskLike | None]):
        self.config = model.config
        if self.config.memory_length is not None:
            raise ValueError(
                f"memory_length={self.config.memory_length}: the memory pools the whole source, so nothing could be "
                "written before its end; stream with a model that has memory_length=None"
            )
        self.given = {name: _rule(mask, name) for name, mask in masks.items() if mask is not None}
        model.base_model.check_blind(**self.given)
        encoder, decoder = model.get_encoder().layer_masks, model.get_decoder()
        self.rules: dict[str, tuple[Mask, ...]] = {
            f"{side.scope}_mask": side.rules(self.given.get(f"{side.scope}_mask"))[0]
            for side in (encoder, decoder.self_masks, decoder.cross_masks)
        }
        self.check([None] * batch, [1] * batch)
        self.needed = self._frontier(self.rules["cross_mask"], batch)
        self.closed = ClosedPrefixes(self._frontier(self.rules["encoder_mask"], batch))
        self._check_encoder(batch)

    def _frontier(self, rules: Sequence[Mask], batch: int) -> Frontier:
        return Frontier(rules, self.config.max_position_embeddings, self.config.num_attention_heads, batch)

    def _check_encoder(self, batch: int) -> None:
        encoder = self.closed.frontier
        if all(self.closed.first(example) is not None for example in range(batch)):
            return
        lone = [mask for mask in encoder.masks if ClosedPrefixes(self._frontier([mask], batch)).first() is None]
        raise ValueError(
            f"encoder_mask {', '.join(map(str, lone or encoder.masks))} looks ahead: no part of a source could be "
            'encoded before its end; stream with a mask that does not, such as encoder_mask="causal()", or that '
            'looks no further than a border, such as "blocks(8)"'
        )

    def whole(self) -> str | None:
        """The cross mask, if it lets the first target token of a stream see the whole source, however long."""
        cross = self.needed
        late = any(cross(0, example) >= cross.keys for example in range(cross.batch))
        return ", ".join(map(str, cross.masks)) if late else None

    def check(self, sources: Sequence[int | None], targets: Sequence[int]) -> None:
        """Check the masks against the streams' lengths, as a batch is checked that is there as a whole.

        Args:
            sources: the length of each source, or None while it may still become any.
            targets: how many tokens of each target the decoder has read, the start token included.

        Raises:
            MaskError: a rule speaks of heads, examples or tokens that are not there.
        """
        longest = self.config.max_position_embeddings
        source = _lay_out([longest if length is None else length for length in sources])
        target = _lay_out(targets)
        sides = {"encoder_mask": (source, source), "decoder_mask": (target, target), "cross_mask": (target, source)}
        for name, (query, key) in sides.items():
            for rule in self.rules[name]:
                try:
                    rule.check(query, key, self.config.num_attention_heads)
                except MaskError as error:
                    raise MaskError(f"{name}: {error}") from error


def _lay_out(lengths: Sequence[int]) -> Layout:
    width = max(1, *lengths)
    filled = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return lay_out(width, torch.device("cpu"), attention_mask=filled, rows=len(lengths))


def _rule(given: MaskLike, name: str) -> MaskLike:
    mask = read(given, name)
    if isinstance(mask, TensorMask):
        raise ValueError(
            f"{name}: a stream's source has no length yet that a tensor could be laid out for; give a rule"
        )
    return mask
