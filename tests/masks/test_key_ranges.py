"""What a mask cannot reach costs nothing, and nothing that it allows is out of reach."""

import pytest
import torch
from hypothesis import given, settings
from mask_cases import EXAMPLES, Unchecked, layouts, of_examples, passage_numbers, randomised, with_passages

from crossmask import masks
from crossmask.attention.blockwise import compile_blockwise
from crossmask.masks.expressions import Not
from crossmask.masks.key_ranges import blocks_in_reach
from crossmask.masks.materialize import positions_of

CPU = torch.device("cpu")
HEADS = 3
thirty_examples = settings(randomised, max_examples=30)


@thirty_examples
@given(of_examples, layouts(batch=2), layouts(batch=2), passage_numbers)
def test_nothing_allowed_is_out_of_reach(mask, query, key, numbers):
    key = with_passages(key, numbers)
    for size in (1, 2):
        reached = blocks_in_reach(Unchecked(mask), key, positions_of(query, -1, HEADS), size, size)
        spread = reached.repeat_interleave(size, -2).repeat_interleave(size, -1)
        spread = spread[..., : query.length, : key.length].expand(2, HEADS, -1, -1)
        assert not (masks.naive_mask(mask, query, key, heads=HEADS) & ~spread).any()


# More than the pictures of the rules show. What attention in blocks computes is what each of them allows, ...
EXACT = {
    "asymmetric": "window(left=3, right=1)",
    "heads": "heads({0: window(1), 1: prefix(2), 2: ~full()})",
    "passages": "passages()",
    "keep passages": "keep(passages=(0, 2))",
    "keep spans": "keep((1, 3), (6, 9), (11, 12))",
    "keep examples": masks.keep(examples=[[(0, 2)], [(3, 6), (7, 8)]]),
    "blind spans": "blind((2, 3), (5, 20))",
    "blind examples": masks.blind(examples=[[(0, 2)], []]),
    "alignment backwards": masks.alignment(tuple(range(23, -1, -1)), width=1),
    "alignment examples": masks.alignment(examples=[tuple(range(24)), (5,) * 24]),
    "negated rules": "~causal() | ~window(20) & ~prefix(2) | ~chunked(30)",
    "negated bands": "~monotonic(slope=0.5, width=1) & ~window(2)",
    "nothing": "~segments() | window(0) & ~window(2) | keep()",
    "many spans": masks.keep(*((i, i + 1) for i in range(0, 16, 2))),
}
# ... and everything.
UNBOUNDED = {
    "lookup": "lookup('even_keys')",
    "negated heads": "~heads({0: window(1), 'rest': causal()})",
}


def read(mask: masks.Mask | str) -> masks.Mask:
    return masks.parse(mask) if isinstance(mask, str) else mask


def is_exact(mask: masks.Mask) -> bool:
    return mask.reach_is_exact or (isinstance(mask, Not) and mask.part.reach_is_exact)


def has_ranges(mask: masks.Mask) -> bool:
    return is_exact(mask) or type(mask).key_ranges is not masks.Mask.key_ranges


CHOSEN = {text: mask.for_layer(0, 2) for text, mask in EXAMPLES.items()}  # a compiler gets the mask of one layer
ALL_EXACT = {text: mask for text, mask in CHOSEN.items() if is_exact(mask)}
ALL_EXACT |= {f"~({text})": ~mask for text, mask in ALL_EXACT.items()}  # whoever says `reach_is_exact` says this too
ALL_EXACT |= {name: read(mask) for name, mask in EXACT.items()}
ALL_UNBOUNDED = {text: mask for text, mask in CHOSEN.items() if not has_ranges(mask)}
ALL_UNBOUNDED |= {name: read(mask) for name, mask in UNBOUNDED.items()}


def sides(kind: str) -> masks.Layout:
    """24 tokens in two rows, in three passages."""
    options = {
        "whole": {},
        "left": {"attention_mask": (torch.arange(24) >= torch.tensor([[0], [4]])).long()},
        "right": {"attention_mask": (torch.arange(24) < torch.tensor([[24], [20]])).long()},
    }[kind]
    return masks.lay_out(24, CPU, rows=2, passage_ids=torch.arange(24)[None] // 8, **options)


def in_reach(mask: masks.Mask, side: masks.Layout) -> torch.Tensor:
    """(2, 1, 24, 24) bool: what any head reaches, key by key."""
    reached = blocks_in_reach(mask, side, positions_of(side, -1, HEADS), 1, 1).expand(2, -1, -1, -1)
    return reached.any(1, keepdim=True)


@pytest.mark.parametrize("kind", ["whole", "left", "right"])
@pytest.mark.parametrize("name", ALL_EXACT)
def test_reach_is_what_is_allowed(name, kind):
    side = sides(kind)
    allowed = masks.naive_mask(ALL_EXACT[name], side, side, heads=HEADS).any(1, keepdim=True)
    assert in_reach(ALL_EXACT[name], side).equal(allowed)


@pytest.mark.parametrize("kind", ["whole", "left", "right"])
@pytest.mark.parametrize("text", [text for text, mask in CHOSEN.items() if has_ranges(mask) and not is_exact(mask)])
def test_reach_holds_what_is_allowed_and_not_everything(text, kind):
    side = sides(kind)
    allowed = masks.naive_mask(CHOSEN[text], side, side, heads=HEADS).any(1, keepdim=True)
    reached = in_reach(CHOSEN[text], side)
    assert not (allowed & ~reached).any()
    assert not reached.all(), "key_ranges that bound nothing should be left out"


@pytest.mark.parametrize("name", ALL_EXACT)
def test_nothing_leaves_the_device(name):
    """The meta device refuses what another one would, and has no values to look at."""
    device = torch.device("meta")
    ids = torch.ones(2, 24, dtype=torch.long, device=device)
    side = masks.lay_out(24, device, segment_ids=ids, passage_ids=ids, rows=2)
    assert blocks_in_reach(ALL_EXACT[name], side, positions_of(side, -1, HEADS), 4, 4).shape[-2:] == (6, 6)


@pytest.mark.parametrize("name", ALL_UNBOUNDED)
def test_reach_is_everything_where_a_rule_has_no_ranges(name):
    side = masks.lay_out(24, CPU)
    assert blocks_in_reach(ALL_UNBOUNDED[name], side, positions_of(side, -1, HEADS), 1, 1).all()
    both = ALL_UNBOUNDED[name] & masks.window(2)
    assert blocks_in_reach(both, side, positions_of(side, -1, HEADS), 1, 1).sum() == 24 * 5 - 6


def test_passages_and_spans_of_packed_rows():
    """Numbered anew in each example, in an order of their own."""
    segments = torch.tensor([[1] * 6 + [2] * 6, [1] * 9 + [0] * 3])
    passages = torch.tensor([[0, 0, 0, 1, 1, 2, 3, 3, 0, 0, 1, 1], [2, 2, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0]])
    side = masks.lay_out(12, CPU, segment_ids=segments, passage_ids=passages, rows=2)
    for mask in (
        masks.passages(),
        masks.keep(passages=(1,)),
        masks.keep(examples=[[(0, 2)], [(3, 4), (5, 6)], [(7, 8)]]),
        masks.drop(examples=[[(0, 2)], [], [(7, 9)]]),
    ):
        reached = blocks_in_reach(mask, side, positions_of(side, -1), 1, 1).expand(2, 1, -1, -1)
        assert reached.equal(masks.naive_mask(mask, side, side))


def pairs(mask: masks.Mask, query: masks.Layout, key: masks.Layout) -> int:
    """How many pairs of a query and a key are looked at."""
    blocks = compile_blockwise(mask, query, key, heads=4).blocks
    return sum((b.queries[1] - b.queries[0]) * sum(last - first for first, last in b.keys) for b in blocks)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("full()", 1.0),
        ("causal()", 0.52),
        ("~causal()", 0.52),
        ("window(64)", 0.07),
        ("dilated(8) & window(64)", 0.07),
        ("chunked(size=64, lookback=1)", 0.05),
        ("blocks(64)", 0.04),
        ("monotonic(slope=1.0, width=64)", 0.07),
        ("keep((1000, 1500))", 0.15),
        ("drop((100, 4000))", 0.07),
        ("blind((100, 4000))", 0.07),
        ("heads({0: window(64), 1: prefix(4), 'rest': ~full()})", 0.08),
        ("heads({0: window(64), 'rest': full()})", 1.0),
        ("dilated(8)", 1.0),
        ("random(p=0.9, seed=0)", 1.0),
        ("keep(passages=(3,))", 0.13),
        ("passages()", 0.13),
    ],
)
def test_work_over_long_sources(text, share):
    """The share of all pairs that blockwise attention looks at, with 4096 source tokens in 8 passages."""
    side = masks.lay_out(4096, CPU, passage_ids=torch.arange(4096)[None] // 512)
    work = pairs(masks.parse(text), side, side) / 4096**2
    assert share - 0.02 < work <= share


def test_work_of_an_alignment():
    query, key = masks.lay_out(1024, CPU), masks.lay_out(4096, CPU)
    mask = masks.alignment(tuple(range(0, 4096, 4)), width=16)
    assert pairs(mask, query, key) <= 1024 * (128 * 4 + 32 + 2 * 64)
