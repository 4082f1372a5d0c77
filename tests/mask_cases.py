"""Masks, layouts and tiny models that several test modules share."""

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from crossmask import masks
from crossmask.configuration.crossmask import CrossMaskConfig
from crossmask.masks.key_ranges import ranges
from crossmask.masks.rule_docs import built_in_rules, pictures
from crossmask.modeling.crossmask import CrossMaskForConditionalGeneration

randomised = settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))

PICTURES = [picture for builder in built_in_rules().values() for picture in pictures(builder)]
EXAMPLES = {picture.text: picture.mask for picture in PICTURES}
"""Masks of every rule, by text: those that are drawn in the rules' docstrings."""


def fits_every_batch(mask: masks.Mask) -> bool:
    """Whether the mask holds for any tokens and any number of heads, and is chosen for a layer."""
    return all(type(rule).check is masks.Mask.check and not isinstance(rule, masks.layers) for rule in mask.rules())


def names_source_tokens(mask: masks.Mask) -> bool:
    """Whether the mask names tokens of one source, which other texts may not have."""
    return any(rule.uses_lookup_table or isinstance(rule, masks.blind) for rule in mask.rules())


small = st.integers(0, 5)
rules = st.one_of(
    st.sampled_from([mask for mask in EXAMPLES.values() if fits_every_batch(mask)]),
    st.builds(masks.window, small, st.none() | small),
    st.builds(masks.wait_k, st.integers(1, 5)),
    st.builds(masks.prefix, small),
    st.builds(masks.blocks, st.integers(1, 5)),
    st.builds(masks.chunked, st.integers(1, 4), st.none() | st.integers(0, 2)),
    st.builds(masks.dilated, st.integers(1, 3)),
    st.builds(masks.monotonic, st.sampled_from([0.0, 0.3, 1.1, 2.5]), st.integers(0, 2)),
    st.builds(masks.random, st.sampled_from([0.3, 0.7]), st.integers(0, 3)),
)
expressions = st.recursive(
    rules,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=6,
)

spans = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)).map(lambda p: (p[0], p[0] + p[1])), max_size=3).map(
    tuple
)
points = st.lists(st.integers(0, 5), min_size=1, max_size=6).map(tuple)
example_rules = st.one_of(
    st.sampled_from([mask.for_layer(0, 2) for mask in EXAMPLES.values() if not fits_every_batch(mask)]),
    spans.map(lambda s: masks.keep(*s)),
    spans.map(lambda s: masks.blind(*s)),
    st.lists(spans, min_size=6, max_size=6).map(lambda s: masks.keep(examples=s)),
    st.lists(st.integers(0, 2), max_size=2).map(lambda n: masks.keep(passages=n)),
    st.builds(masks.alignment, points, st.integers(0, 2)),
    st.lists(points, min_size=6, max_size=6).map(lambda p: masks.alignment(examples=p, width=1)),
    st.just(masks.passages()),
    st.just(masks.random(0.4, 5)),
    st.just(masks.heads({0: "window(1)", "1-2": "causal() & random(p=0.5, seed=1)"})),
    st.just(masks.heads({1: masks.keep((0, 2)), "rest": "prefix(1) | causal()"})),
)
of_examples = st.recursive(
    example_rules,
    lambda inner: st.one_of(st.builds(lambda a, b: a & ~b, inner, inner), st.builds(lambda a, b: a | b, inner, inner)),
)


passage_numbers = st.lists(st.integers(0, 2), min_size=6, max_size=6)


def with_passages(side: masks.Layout, numbers: list[int]) -> masks.Layout:
    passages = torch.tensor(numbers[: side.length])[None]
    return masks.Layout(side.positions, side.segments, passages, side.rows, side.packed)


class Unchecked(masks.Mask):
    """A mask without its checks: they would refuse most random cases."""

    def __init__(self, mask: masks.Mask):
        self.mask = mask

    def allows(self, q, k):
        return self.mask.allows(q, k)

    def key_ranges(self, q, keys):
        return ranges(self.mask, q, keys)


def grids(rows: int, columns: int, values: st.SearchStrategy[int]) -> st.SearchStrategy[torch.Tensor]:
    """(rows, columns) int64 tensors."""
    row = st.lists(values, min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows).map(lambda cells: torch.tensor(cells).view(rows, columns))


@st.composite
def layouts(draw, batch: int) -> masks.Layout:
    """A side of a batch: whole, padded on the left or the right, or packed, with segments in any order."""
    length = draw(st.integers(1, 6))
    kind = draw(st.sampled_from(["whole", "left", "right", "packed"]))
    if kind == "whole":
        return masks.lay_out(length, torch.device("cpu"), rows=batch)
    if kind == "packed":
        segment_ids = draw(grids(batch, length, st.integers(0, 3)))
        return masks.lay_out(length, torch.device("cpu"), segment_ids=segment_ids, rows=batch)
    tokens = torch.tensor(draw(st.lists(st.integers(0, length), min_size=batch, max_size=batch)))
    attention_mask = (torch.arange(length) < tokens[:, None]).long()
    attention_mask = attention_mask.flip(-1) if kind == "left" else attention_mask
    return masks.lay_out(length, torch.device("cpu"), attention_mask=attention_mask, rows=batch)


def picture(allowed: torch.Tensor) -> str:
    """A (queries, keys) mask as lines of `#` (allowed) and `.`."""
    return "\n".join("".join("#" if cell else "." for cell in row) for row in allowed.tolist())


def draw(mask: masks.Mask, queries: int, keys: int) -> str:
    """What the specification says of a whole sequence, as a picture."""
    cpu = torch.device("cpu")
    return picture(masks.naive_mask(mask, masks.lay_out(queries, cpu), masks.lay_out(keys, cpu))[0, 0])


def tiny_model(attn_implementation: str = "eager", **options) -> CrossMaskForConditionalGeneration:
    """A model of two layers on either side, the same at every call, without dropout, in evaluation mode."""
    sizes = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "dropout": 0.0,
        "initializer_range": 0.5,
    }
    torch.manual_seed(0)
    model = CrossMaskForConditionalGeneration(CrossMaskConfig(**{**sizes, **options})).eval()
    model.config._attn_implementation = attn_implementation  # set_attn_implementation looks for the flash_attn package
    return model


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random ordinary tokens, none of them special."""
    return torch.randint(4, 40, shape, generator=torch.Generator().manual_seed(seed))
