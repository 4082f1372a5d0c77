"""What masks allow through all layers: a slow reference that asks about every pair of tokens.

Of what the model compiles it uses the rules alone, and asks them with plain integers.
"""

import torch

from ..masks import Layout, Mask, MaskError, naive_mask
from ..masks.blind_check import kept_everywhere
from ..masks.reference import depends_on_head
from ..masks.rules import full
from .expected_masks import BatchMasks, ScopeMask


def allowed_influence(expected: BatchMasks) -> tuple[torch.Tensor, torch.Tensor]:
    """Which source tokens, and which target tokens, may change the output of which target position.

    In each layer a token keeps what it has read, and adds what the tokens that it sees have read.

    Returns:
        (B, T, S) and (B, T, T) bool.

    Raises:
        MaskError: a mask names heads, examples or tokens that do not exist.
    """
    source, target = expected.source, expected.target
    encoded = _identity(expected.source_segments)
    for seen in _layers(expected.encoder_mask, source, source, expected, "encoder_mask"):
        encoded = encoded | _through(seen, encoded)
    memory = source
    if expected.memory is not None:
        memory = _memory(source, expected.source_segments, expected.memory)
        encoded = _through(naive_mask(_pooled(expected), memory, source).any(1), encoded)
    cross = expected.cross_mask if expected.memory is None else ScopeMask((full(),) * len(expected.cross_mask.rules))
    read_source = torch.zeros(*expected.target_segments.shape, source.length, dtype=torch.bool)
    read_target = _identity(expected.target_segments)
    over_target = _layers(expected.decoder_mask, target, target, expected, "decoder_mask")
    over_source = _layers(cross, target, memory, expected, "cross_mask")
    for seen_target, seen_source in zip(over_target, over_source, strict=True):
        read_target = read_target | _through(seen_target, read_target)
        read_source = read_source | _through(seen_target, read_source)
        read_source = read_source | _through(seen_source, encoded)
    return read_source, read_target


def cross_mask_is_ineffective(expected: BatchMasks, allowed: torch.Tensor) -> bool:
    """Whether all that the cross masks hide is read nevertheless, since encoder tokens have read it and pass it on.

    Args:
        allowed: (B, T, S) bool, from `allowed_influence`.
    """
    mask = expected.cross_mask
    if expected.memory is not None or mask.same(ScopeMask((full(),) * len(mask.rules))):
        return False
    source, target = expected.source, expected.target
    direct = torch.stack(_layers(mask, target, source, expected, "cross_mask")).any(0)
    same_example = expected.target_segments[:, :, None] == expected.source_segments[:, None, :]
    hidden = same_example & (expected.target_segments > 0)[:, :, None] & ~direct
    return bool(hidden.any()) and not bool((hidden & ~allowed).any())


def _layers(mask: ScopeMask, query: Layout, key: Layout, expected: BatchMasks, name: str) -> list[torch.Tensor]:
    """What each layer sees in any of its heads: (B, T, S) bool each."""
    by_rule = {}
    for rule in mask.rules:
        if rule not in by_rule:
            try:
                rule.check(query, key, expected.heads)
            except MaskError as error:
                raise MaskError(f"{name}: {error}") from error
            heads = expected.heads if mask.tensor_mask is not None or depends_on_head(rule) else 1
            by_rule[rule] = naive_mask(rule, query, key, mask.tensor_mask, heads).any(1)
    return [by_rule[rule] for rule in mask.rules]


def _identity(segments: torch.Tensor) -> torch.Tensor:
    rows, length = segments.shape
    return torch.eye(length, dtype=torch.bool).expand(rows, -1, -1)


def _through(seen: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """What is read by way of the tokens that are seen: (B, T, S) and (B, S, N) to (B, T, N)."""
    return (seen.double() @ read.double()) > 0


def _memory(source: Layout, segments: torch.Tensor, length: int) -> Layout:
    """The layout of the memory's vectors, of which each segment has `length`; `segments` (B, S) are the source's."""
    present = range(1, max(int(segments.max()), 1) + 1) if source.packed else [1]
    numbers = torch.tensor([[number for number in present for _ in range(length)]]).expand(len(segments), -1)
    positions = torch.tensor([[index for _ in present for index in range(length)]])
    return Layout(positions, numbers, rows=source.rows, packed=source.packed)


def _pooled(expected: BatchMasks) -> Mask:
    """The mask under which a memory is made: all but blind spans."""
    rule: Mask = full()
    for span in kept_everywhere(expected.encoder_mask.rules):
        rule = rule & span
    return rule
