"""Every rule allows the same under a tracer as without, on batches of other sizes than the one that was traced."""

import pytest
import torch
from mask_cases import EXAMPLES

from crossmask import masks
from crossmask.masks.materialize import compile_mask, skip_shape_checks


@masks.register
def even_distance(q, k, n=2):
    return (k.position - q.position) % n == 0


CAUSAL = masks.causal()
# Every rule, and what looks up tables, passages and heads.
RULES = [
    *(mask.for_layer(0, 2) for mask in EXAMPLES.values()),
    masks.window(2, 1),
    masks.keep(examples=[((0, 1),), ((1, 2),)] + [()] * 4),
    masks.keep(passages=(1,)),
    masks.keep(passages=()),
    masks.alignment(examples=[(0, 1, 0, 2, 1, 1, 0)] * 6, width=1),
    masks.lookup("even_distance", n=3),
    masks.heads({0: masks.window(0), "1-2": masks.passages(), "rest": CAUSAL}),
    masks.heads({0: masks.keep(passages=()), "rest": ~masks.full()}),
]
MASKS = [*RULES, *(~rule for rule in RULES), *(rule & CAUSAL | masks.passages() for rule in RULES)]


class Allowed(torch.nn.Module):
    """A mask as a function of what lays out the two sides."""

    def __init__(self, mask: masks.Mask, passages: bool):
        super().__init__()
        self.mask = mask
        self.passages = passages

    def forward(self, target: torch.Tensor, source: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        rows, sides = target.shape[0], []
        for tokens in (target, source):
            passage_ids = numbers[:, : tokens.shape[1]] if self.passages else None
            sides.append(
                masks.lay_out(
                    tokens.shape[1], tokens.device, attention_mask=tokens, passage_ids=passage_ids, rows=rows
                )
            )
        return compile_mask(self.mask, *sides, heads=4)


def inputs(rows: int, target: int, source: int, padded: bool) -> tuple[torch.Tensor, ...]:
    sides = [torch.ones(rows, length, dtype=torch.long) for length in (target, source)]
    if padded:
        sides[0][0, -1:], sides[1][-1, :1] = 0, 0
    return *sides, (torch.arange(9) // 2).expand(rows, -1)


@pytest.mark.parametrize("passages", [False, True])
@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_under_jit_trace(mask, passages):
    allowed = Allowed(mask, passages)
    traced = torch.jit.trace(allowed, inputs(2, 4, 5, padded=False), check_trace=False)
    with skip_shape_checks():
        for size in [(2, 4, 5), (6, 7, 3), (1, 1, 6), (3, 5, 1)]:
            batch = inputs(*size, padded=True)
            assert traced(*batch).equal(allowed(*batch)), size


@pytest.mark.parametrize("mask", RULES, ids=str)
def test_without_graph_breaks(mask):
    allowed = Allowed(mask & ~masks.blocks(3), passages=True)
    torch._dynamo.reset()
    compiled = torch.compile(allowed, fullgraph=True, backend="eager")
    batch = inputs(6, 5, 4, padded=True)
    with skip_shape_checks():
        expected = allowed(*batch)
    assert compiled(*batch).equal(expected)
