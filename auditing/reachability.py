"""Who may read whom through all layers: the reference, dense, on booleans, asked pair by pair.

It shares nothing with what the model compiles but the rules themselves, and these are asked with plain integers.
"""

import torch

from ..masks import Layout, Mask, MaskError, naive_mask
from ..masks.blind_check import kept_everywhere
from ..masks.rules import full, heads, lookup, random
from .expected_masks import Declaration, ScopeMask


def allowed_influence(declared: Declaration) -> tuple[torch.Tensor, torch.Tensor]:
    """Which source token, and which target token, may change which target position's output.

    A layer passes on what each token has read so far, and adds what the tokens have read that it sees.

    Returns:
        (B, T, S) and (B, T, T) bool.

    Raises:
        MaskError: a mask that speaks of heads, examples or tokens that are not there.
    """
    source, target = declared.source, declared.target
    encoded = _itself(source)
    for seen in _layers(declared.encoder_mask, source, source, declared, "encoder_mask"):
        encoded = encoded | _through(seen, encoded)
    memory = source
    if declared.memory is not None:
        memory = _memory(source, declared.memory)
        encoded = _through(_union(_pooled(declared), memory, source), encoded)
    cross = declared.cross_mask if declared.memory is None else ScopeMask((full(),) * len(declared.cross_mask.rules))
    read_source = torch.zeros(*target.segments.shape, source.length, dtype=torch.bool)
    read_target = _itself(target)
    over_target = _layers(declared.decoder_mask, target, target, declared, "decoder_mask")
    over_source = _layers(cross, target, memory, declared, "cross_mask")
    for seen_target, seen_source in zip(over_target, over_source, strict=True):
        read_target = read_target | _through(seen_target, read_target)
        read_source = read_source | _through(seen_target, read_source)
        read_source = read_source | _through(seen_source, encoded)
    return read_source, read_target


def cross_mask_is_ineffective(declared: Declaration, allowed: torch.Tensor) -> bool:
    """Whether all that the cross masks close is read by another way, since the encoder carries it on.

    Args:
        allowed: (B, T, S) bool, of all layers together.
    """
    mask = declared.cross_mask
    if declared.memory is not None or mask.same(ScopeMask((full(),) * len(mask.rules))):
        return False
    source, target = declared.source, declared.target
    direct = torch.stack(_layers(mask, target, source, declared, "cross_mask")).any(0)
    real = target.segments[:, :, None] == source.segments[:, None, :]
    closed = real & (target.segments > 0)[:, :, None] & ~direct
    return bool(closed.any()) and not (closed & ~allowed).any()


def _layers(mask: ScopeMask, query: Layout, key: Layout, declared: Declaration, name: str) -> list[torch.Tensor]:
    """What each layer sees, whichever head: (B, T, S) bool each."""
    asked = {}
    for rule in mask.rules:
        if rule not in asked:
            try:
                rule.check(query, key, declared.heads)
            except MaskError as error:
                raise MaskError(f"{name}: {error}") from error
            count = declared.heads if mask.given is not None or _asks_for_heads(rule) else 1
            asked[rule] = _union(rule, query, key, mask.given, count)
    return [asked[rule] for rule in mask.rules]


def _union(rule: Mask, query: Layout, key: Layout, given: torch.Tensor | None = None, count: int = 1) -> torch.Tensor:
    return naive_mask(rule, query, key, given, count).any(1)


def _asks_for_heads(rule: Mask) -> bool:
    """Whether heads may differ: of a rule that is not ours nobody knows."""
    ours = Mask.__module__.rpartition(".")[0]
    return any(
        isinstance(part, heads | random | lookup) or type(part).__module__.rpartition(".")[0] != ours
        for part in rule.rules()
    )


def _itself(side: Layout) -> torch.Tensor:
    return torch.eye(side.length, dtype=torch.bool).expand(len(side.segments), -1, -1)


def _through(seen: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """What is read through those that are seen: a product of relations, (B, T, S) and (B, S, N) to (B, T, N)."""
    return (seen.double() @ read.double()) > 0


def _memory(source: Layout, length: int) -> Layout:
    """The places of the memory's vectors: the same number in each segment."""
    segments = range(1, max(int(source.segments.max()), 1) + 1) if source.packed else [1]
    numbers = torch.tensor([[number for number in segments for _ in range(length)]]).expand(len(source.segments), -1)
    positions = torch.tensor([[index for _ in segments for index in range(length)]])
    return Layout(positions, numbers, rows=source.rows, packed=source.packed)


def _pooled(declared: Declaration) -> Mask:
    """What a memory takes in: all but blind spans."""
    rule = full()
    for span in kept_everywhere(declared.encoder_mask.rules):
        rule = rule & span
    return rule
