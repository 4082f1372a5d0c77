"""Rules that tell examples, passages and heads apart: compiled as specified, refused where they do not fit."""

import pytest
import torch
from hypothesis import given, settings
from mask_cases import Unchecked, layouts, of_examples, passage_numbers, picture, randomised, with_passages

from crossmask import masks

CPU = torch.device("cpu")
HEADS = 3
twenty_examples = settings(randomised, max_examples=20)


@twenty_examples
@given(of_examples, layouts(batch=2), layouts(batch=2), passage_numbers)
def test_compiled_is_what_the_specification_says(mask, query, key, numbers):
    key = with_passages(key, numbers)
    compiled = masks.compile_mask(Unchecked(mask), query, key, heads=HEADS)
    expected = masks.naive_mask(mask, query, key, heads=HEADS)
    shape = (2, HEADS, query.length, key.length)
    assert expected.shape == shape
    compiled = torch.ones(shape, dtype=torch.bool) if compiled is None else compiled
    assert compiled.expand(shape).equal(expected)


def test_a_packed_row_means_what_its_examples_mean_in_a_batch():
    """Examples of packed rows are counted row by row."""
    mask = masks.keep(examples=[[(0, 1)], [(1, 2)], [(2, 3)]]) | masks.random(0.5, 3)
    padded = masks.lay_out(3, CPU, rows=3)
    packed = masks.lay_out(6, CPU, segment_ids=torch.tensor([[1, 1, 1, 2, 2, 2], [1, 1, 1, 0, 0, 0]]), rows=2)
    alone = masks.compile_mask(mask, padded, padded, heads=2)
    together = masks.compile_mask(mask, packed, packed, heads=2)
    parts = [together[0, :, :3, :3], together[0, :, 3:, 3:], together[1, :, :3, :3]]
    assert torch.stack(parts).equal(alone.expand(3, 2, 3, 3))
    slice_of = packed.pick(torch.tensor([3, 4]))
    assert slice_of.examples.tolist() == [[1, 1], [2, 2]]


def test_hypotheses_share_their_example():
    side = masks.lay_out(4, CPU, rows=torch.tensor([0, 0, 1, 1]))
    allowed = masks.compile_mask(masks.keep(examples=[[(0, 1)], [(1, 3)]]), side, side)[:, 0]
    assert [picture(rows).splitlines()[0] for rows in allowed] == ["#...", "#...", ".##.", ".##."]
    segments = torch.tensor([[1, 2, 2, 0]] * 2 + [[1, 1, 1, 1]] * 2)
    packed = masks.lay_out(4, CPU, segment_ids=segments, rows=torch.tensor([0, 0, 1, 1]))
    assert packed.examples.tolist() == [[0, 1, 1, 0]] * 2 + [[2, 2, 2, 2]] * 2


def test_random_forbids_a_share_of_p_and_not_always_the_same_pairs():
    side = masks.lay_out(64, CPU, rows=2)
    allowed = masks.compile_mask(masks.random(0.3, 1), side, side, heads=2)
    assert abs(allowed.float().mean() - 0.7) < 0.02
    others = (
        allowed[1, 0],
        allowed[0, 1],
        allowed[0, 0].T,
        masks.compile_mask(masks.random(0.3, 2), side, side)[0, 0],
        masks.compile_mask(masks.random(0.3, 1).for_layer(1, 2), side, side)[0, 0],
    )
    for other in others:  # independent pairs agree with probability 0.7 ** 2 + 0.3 ** 2
        assert abs((allowed[0, 0] == other).float().mean() - 0.58) < 0.05
    assert masks.random(0.3, 1).for_layer(0, 1, training=False) == masks.full()


def test_layers_are_chosen_before_compiling():
    mask = masks.layers({0: "window(1)", "1-2": masks.random(0.5, 0), "rest": "full()"}) & masks.causal()
    assert mask.for_layer(0, 6) == masks.window(1) & masks.causal()
    assert mask.for_layer(2, 6) == masks.random(0.5, 0, layer=2) & masks.causal()
    assert mask.for_layer(2, 6, training=False) == mask.for_layer(5, 6) == masks.causal()
    side = masks.lay_out(3, CPU)
    with pytest.raises(masks.MaskError, match="a layer must be chosen before the mask is used"):
        masks.compile_mask(mask, side, side)
    with pytest.raises(masks.MaskError, match="a layer must be a number from 0 to 1, since there are 2, got layer 2"):
        mask.for_layer(0, 2)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("heads({3: full(), 'rest': causal()})", "a head must be a number from 0 to 2, since there are 3, got head 3"),
        ("heads({0: full()})", 'every head must have a mask, got none for heads [1, 2]; name them or add "rest"'),
        ("causal() | ~heads({3: full(), 'rest': causal()})", "got head 3; count them from 0"),
        (
            "heads({0: keep((0, 9)), 'rest': full()})",
            "keep: a span must end within the 5 tokens to attend to, got a span that ends at 9",
        ),
        ("keep((0, 2), (4, 6))", "keep: a span must end within the 5 tokens to attend to, got a span that ends at 6"),
        (
            "blind(examples=(((4, 5),), ((3, 4),)))",
            "blind: a span must end within the 3 tokens to attend to, got a span that ends at 4",
        ),
        (
            "blind(examples=(((0, 1),), (), ()))",
            "blind: examples must have a tuple for each of the 2 examples of the batch, got 3",
        ),
        ("alignment((0, 1, 2))", "alignment: there must be a point for each of 4 target positions, got 3"),
        ("alignment((0, 1, 2, 5))", "alignment: a point must be inside of the source, which has 5 tokens, got 5"),
        (
            "alignment(examples=((0, 1, 2, 3), (0, 0, 0, 3)))",
            "a point must be inside of the source, which has 3 tokens, got 3",
        ),
        (
            "keep(passages=(1,))",
            "keep(passages=(1,)): a passage must be from 0 to 0, as in the batch, got 1; pass passage_ids",
        ),
    ],
)
def test_what_does_not_fit_is_refused(mask, message):
    query = masks.lay_out(4, CPU, rows=2)
    key = masks.lay_out(5, CPU, attention_mask=torch.tensor([[1] * 5, [1] * 3 + [0] * 2]), rows=2)
    with pytest.raises(masks.MaskError) as error:
        masks.compile_mask(masks.parse(mask), query, key, heads=HEADS)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_passages_that_are_not_there_are_refused():
    key = masks.lay_out(4, CPU, passage_ids=torch.tensor([[0, 0, 1, 1]]))
    query = masks.lay_out(2, CPU)
    with pytest.raises(masks.MaskError, match="a passage must be from 0 to 1, as in the batch, got 2"):
        masks.compile_mask(masks.keep(passages=[0, 2]), query, key)
    with pytest.raises(masks.MaskError, match=r"queries must have passages too, .* use it as encoder_mask"):
        masks.compile_mask(masks.passages(), query, key)
    assert picture(masks.compile_mask(masks.keep(passages=[1]), query, key)[0, 0]) == "..##\n..##"


class TestLookup:
    def test_a_mask_in_a_few_lines(self):
        @masks.register
        def ahead(q, k, by=1):
            return k.position == q.position + by

        mask = masks.parse("lookup('ahead', by=2) | causal()")
        assert masks.parse(str(mask)) == mask
        assert masks.lookup("ahead") == masks.lookup("ahead") != masks.lookup("ahead", by=2)
        side = masks.lay_out(4, CPU)
        assert picture(masks.compile_mask(mask, side, side)[0, 0]) == "#.#.\n##.#\n###.\n####"
        assert masks.naive_mask(mask, side, side).equal(masks.compile_mask(mask, side, side))

    def test_and_or_not_of_python_are_refused(self):
        @masks.register
        def both(q, k):
            return q.position > k.position and k.position > 2

        side = masks.lay_out(4, CPU)
        with pytest.raises(
            masks.MaskError,
            match=r"lookup\('both'\): .* must not use a tensor as one truth value; write &, \| and \^ instead of and",
        ):
            masks.compile_mask(masks.lookup("both"), side, side)

    def test_a_cell_that_runs_again_replaces_its_mask(self):
        def define(answer):
            @masks.register
            def cell(q, k):
                return (q.position == q.position) & answer

        define(False)
        define(True)
        side = masks.lay_out(2, CPU)
        assert masks.compile_mask(masks.lookup("cell"), side, side).all()

    def test_mistakes_are_named(self):
        masks.register(number)
        with pytest.raises(masks.MaskError, match="a new name, got 'number', which is registered already"):
            masks.register(_named("number"))
        with pytest.raises(masks.MaskError, match=r"must be that of a registered function .*, got 'nobody'"):
            masks.parse("lookup('nobody')")
        with pytest.raises(masks.MaskError, match="got an unexpected keyword argument 'by'"):
            masks.lookup("number", by=2)
        side = masks.lay_out(2, CPU)
        with pytest.raises(masks.MaskError, match=r"a boolean tensor, got torch\.int64"):
            masks.compile_mask(masks.lookup("number"), side, side)


def number(q, k):
    return q.position + k.position


def _named(name):
    def other(q, k):
        return True

    other.__name__ = name
    return other
