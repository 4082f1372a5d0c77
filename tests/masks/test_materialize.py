import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mask_cases import expressions, layouts, picture, randomised

from crossmask import masks
from crossmask.masks.tensor_mask import check_fit, rows_for

CPU = torch.device("cpu")


def compiled(mask, query, key, batch, heads, tensor_mask=None) -> torch.Tensor:
    """Compiled and spread over (B, H, T, S)."""
    result = masks.compile_mask(mask, query, key, tensor_mask, heads)
    shape = (batch, heads, query.length, key.length)
    if result is None:
        return torch.ones(shape, dtype=torch.bool)
    assert result.dtype == torch.bool
    assert result.shape[2:] == shape[2:]
    return result.expand(shape)


@randomised
@given(expressions, layouts(batch=2), layouts(batch=2))
def test_compiled_is_what_the_specification_says(mask, query, key):
    expected = masks.naive_mask(mask, query, key, heads=2)
    assert compiled(mask, query, key, 2, 2).equal(expected)


@randomised
@given(expressions, layouts(batch=2), layouts(batch=2), st.sampled_from([2, 3, 4]), st.randoms())
def test_compiled_with_a_tensor_is_what_the_specification_says(mask, query, key, ndim, random):
    heads = random.choice([1, 3])
    shape = {2: (2, key.length), 3: (2, query.length, key.length), 4: (2, heads, query.length, key.length)}[ndim]
    allowed = torch.rand(shape, generator=torch.Generator().manual_seed(random.randrange(99))) > 0.4
    part = rows_for(masks.tensor(allowed), rows=torch.arange(query.length), columns=key.length)
    expected = masks.naive_mask(mask, query, key, allowed, heads=3).expand(2, -1, -1, -1)
    assert compiled(mask, query, key, 2, 3, part).equal(expected)


@randomised
@given(expressions, layouts(batch=2))
def test_each_packed_example_sees_what_it_sees_alone(mask, packed):
    """The rule in a packed row, or a padded one, is the rule of each segment by itself."""
    if packed.segments is None:
        return
    allowed = compiled(mask, packed, packed, 2, 1)[:, 0]
    for row, segments, examples in zip(
        allowed, packed.segments, packed.examples.expand(2, packed.length), strict=True
    ):
        for segment in segments.unique():
            members = (segments == segment).nonzero().squeeze(-1)
            inside = row[members][:, members]
            assert not row[members].sum() > inside.sum()
            alone = masks.lay_out(len(members), CPU, rows=examples[members][:1])
            expected = compiled(mask, alone, alone, 1, 1)[0, 0] if segment > 0 else torch.zeros_like(inside)
            assert inside.equal(expected)


@pytest.mark.parametrize(
    ("attention_mask", "expected"),
    [([0, 1, 1, 1], "....\n.#..\n.##.\n.###"), ([1, 1, 1, 0], "#...\n##..\n###.\n....")],
)
def test_padding_on_either_side(attention_mask, expected):
    side = masks.lay_out(4, CPU, attention_mask=torch.tensor([attention_mask]))
    assert picture(masks.compile_mask(masks.causal(), side, side)[0, 0]) == expected


def test_packed_row():
    side = masks.lay_out(6, CPU, segment_ids=torch.tensor([[1, 2, 1, 2, 2, 0]]))
    expected = "#.....\n.#....\n#.#...\n.#.#..\n.#.##.\n......"
    assert picture(masks.compile_mask(masks.causal(), side, side)[0, 0]) == expected


def test_packed_target_reads_its_own_source():
    query = masks.lay_out(5, CPU, segment_ids=torch.tensor([[2, 2, 1, 1, 3]]))
    key = masks.lay_out(6, CPU, segment_ids=torch.tensor([[1, 1, 1, 2, 2, 0]]))
    expected = "...#..\n...##.\n#.....\n##....\n......"
    assert picture(masks.compile_mask(masks.wait_k(1), query, key)[0, 0]) == expected


@pytest.mark.parametrize("text", ["~full()", "~causal()", "~(prefix(1) & blocks(1))", "~prefix(0) | full()"])
def test_negation_opens_neither_padding_nor_other_segments(text):
    side = masks.lay_out(5, CPU, segment_ids=torch.tensor([[1, 1, 2, 2, 0]]))
    allowed = masks.compile_mask(masks.parse(text), side, side)[0, 0]
    assert not allowed[4].any()
    assert not allowed[:, 4].any()
    assert not allowed[:2, 2:].any()
    assert not allowed[2:, :2].any()


def test_nothing_is_materialised_where_everything_is_allowed():
    side = masks.lay_out(4, CPU, attention_mask=torch.ones(1, 4))
    assert masks.compile_mask(masks.full(), side, side) is None
    assert masks.compile_mask(masks.parse("full() & full()"), side, side) is None


def test_heads():
    allowed = torch.zeros(1, 2, 3, 3, dtype=torch.bool)
    allowed[:, 1] = True
    side = masks.lay_out(3, CPU)
    result = masks.compile_mask(masks.causal(), side, side, allowed)
    assert [picture(head) for head in result[0]] == ["...\n...\n...", "#..\n##.\n###"]


def fit(allowed, **options):
    mask = allowed if isinstance(allowed, masks.TensorMask) else masks.tensor(allowed)
    check_fit(mask, "cross_mask", **{"batch": 2, "heads": 4, "queries": 3, "keys": 5, "may_grow": False, **options})


@pytest.mark.parametrize("shape", [(2, 5), (1, 5), (2, 3, 5), (1, 3, 5), (2, 4, 3, 5), (2, 1, 3, 5), (2, 9, 5)])
def test_fitting_tensor(shape):
    fit(torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 5), "cross_mask must be for the 2 examples of the batch, or for 1, got 3 in (3, 5)"),
        ((4, 3, 5), "must be for the 2 examples of the batch, or for 1, got 4 in (4, 3, 5)"),
        ((2, 2, 3, 5), "must be for the 4 heads of the model, or for 1, got 2 in (2, 2, 3, 5)"),
        (
            (2, 2, 5),
            "must have a row for each of 3 decoder tokens, got 2 in (2, 2, 5); give a rule, limit max_new_tokens, or",
        ),
        ((2, 3, 4), "must have a column for each of 5 tokens to attend to, got 4 in (2, 3, 4)"),
        ((2, 3, 6), "must have a column for each of 5 tokens to attend to, got 6 in (2, 3, 6)"),
        ((2, 4), "must have a column for each of 5 tokens to attend to, got 4 in (2, 4)"),
    ],
)
def test_tensor_that_does_not_fit(shape, message):
    with pytest.raises(masks.MaskError) as error:
        fit(torch.ones(shape, dtype=torch.bool))
    assert message in str(error.value)


def test_tensor_for_fewer_examples_is_not_repeated_silently():
    with pytest.raises(masks.MaskError, match="must be for the 4 examples of the batch, or for 1, got 2"):
        fit(torch.ones(2, 3, 5, dtype=torch.bool), batch=4)


def test_last_row_repeats_only_if_told():
    allowed = torch.tensor([[[True, False], [False, True]]])
    fit(masks.tensor(allowed, repeat_last=True), batch=1, queries=4, keys=2)
    part = rows_for(masks.tensor(allowed, repeat_last=True), rows=torch.arange(4), columns=2)
    assert part.shape == (1, 1, 4, 2)
    assert picture(part[0, 0]) == "#.\n.#\n.#\n.#"


def test_rows_are_counted_from_the_start_token():
    allowed = torch.rand(2, 6, 3) > 0.5
    part = rows_for(masks.tensor(allowed), rows=torch.tensor([4, 5]), columns=3)
    assert part[:, 0].equal(allowed[:, 4:])
