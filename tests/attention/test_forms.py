"""Every form of a mask gives the numbers of the specification, forward and backward, and costs what it allows."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from flash_reference import flash_attn_varlen_func
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import Unchecked, expressions, layouts, of_examples, passage_numbers, randomised, with_passages
from torch.nn.attention import flex_attention as flex
from torch.utils._python_dispatch import TorchDispatchMode

from crossmask import masks
from crossmask.attention import blockwise, flash, varlen
from crossmask.attention.backends import BACKENDS, attend, compile_masks, find_backend
from crossmask.attention.base import MaskRequest
from crossmask.attention.blockwise import BlockwiseMask, blockwise_attention, compile_blockwise
from crossmask.attention.dense import eager_attention
from crossmask.attention.flash import varlen_attention
from crossmask.attention.flex import compile_flex
from crossmask.attention.packed import ExamplesMask, compile_by_example
from crossmask.attention.varlen import compile_varlen
from crossmask.masks.key_ranges import blocks_in_reach
from crossmask.masks.materialize import positions_of

CPU = torch.device("cpu")
HEADS, WIDTH, SCALE = 2, 4, 0.5
eight_examples = settings(randomised, max_examples=8, derandomize=True)
MODULE = SimpleNamespace(
    num_key_value_groups=2,
    training=False,
    is_causal=False,
    config=SimpleNamespace(_attn_implementation="flash_attention_2"),
)
bands = st.one_of(
    st.just(masks.full()),
    st.just(masks.causal()),
    st.builds(masks.window, st.integers(0, 4), st.none() | st.integers(0, 4)),
    st.builds(lambda left: masks.causal() & masks.window(left), st.integers(0, 4)),
)


@pytest.fixture
def _without_kernel(monkeypatch):
    """FlexAttention as it is written, without its kernel, which takes minutes to build."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def states(queries: int, keys: int, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(queries * 10 + keys)
    shapes = [(batch, HEADS, queries, WIDTH), (batch, 1, keys, WIDTH), (batch, 1, keys, WIDTH)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def gradients(output: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    return torch.autograd.grad((output * weights).sum(), inputs)


def dense(mask, query, key) -> torch.Tensor:
    return masks.naive_mask(mask, query, key, heads=HEADS).expand(2, HEADS, -1, -1)


@contextmanager
def blocks_of(rows: int, columns: int) -> Iterator[None]:
    """Blocks so small that a few tokens have several of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "ROWS", rows)
        patch.setattr(blockwise, "COLUMNS", columns)
        yield


def compile_one(name: str, mask: masks.Mask, side: masks.Layout) -> object:
    return compile_masks(name, [MaskRequest(mask, side, side)])[0]


def check_same(output: torch.Tensor, inputs: list[torch.Tensor], allowed: torch.Tensor) -> None:
    """Values and gradients are those of plain attention under the specification's mask; empty rows are zero."""
    expected, _ = eager_attention(MODULE, *inputs, allowed, scaling=SCALE)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    assert (output.transpose(1, 2)[~allowed.any(-1)] == 0).all()
    for got, wanted in zip(gradients(output, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@eight_examples
@given(expressions, layouts(batch=2), layouts(batch=2), st.integers(1, 3), st.integers(1, 3))
def test_nothing_allowed_is_out_of_reach(mask, query, key, rows, columns):
    reached = blocks_in_reach(mask, key, positions_of(query, -1, HEADS), rows, columns)
    spread = reached.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
    spread = spread[..., : query.length, : key.length].expand(2, HEADS, -1, -1)
    assert not (dense(mask, query, key) & ~spread).any()


@eight_examples
@given(expressions, layouts(batch=2), layouts(batch=2), st.integers(1, 3), st.integers(1, 3))
@pytest.mark.parametrize("inner", [None, eager_attention])
def test_blockwise(inner, mask, query, key, rows, columns):
    inputs = states(query.length, key.length)
    with blocks_of(rows, columns):
        compiled = compile_blockwise(mask, query, key, heads=HEADS)
        output, _ = blockwise_attention(MODULE, *inputs, compiled, inner=inner, scaling=SCALE)
        with torch.no_grad():
            again, _ = blockwise_attention(MODULE, *inputs, compiled, inner=inner, scaling=SCALE)
    check_same(output, inputs, dense(mask, query, key))
    torch.testing.assert_close(again, output, atol=1e-6, rtol=1e-6)


@pytest.mark.usefixtures("without_kernels")
@eight_examples
@given(expressions, layouts(batch=2), layouts(batch=2))
@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend(name, with_gradients, mask, query, key):
    """A mask that a backend refuses is an error that says what to use."""
    inputs = [x.detach().requires_grad_(with_gradients) for x in states(query.length, key.length)]
    request = MaskRequest(mask, query, key, heads=HEADS, batch=2)
    with torch.set_grad_enabled(with_gradients):
        compiled, refusal = try_to_compile(name, request)
        if refusal:
            assert "attn_implementation" in refusal
            return
        output, _ = attend(name, MODULE, *inputs, compiled, scaling=SCALE)
        if with_gradients:
            check_same(output, inputs, dense(mask, query, key))
        else:
            expected, _ = eager_attention(MODULE, *inputs, dense(mask, query, key), scaling=SCALE)
            torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def try_to_compile(name: str, request: MaskRequest) -> tuple[object, str]:
    """The compiled mask, and the error if the backend refuses the mask."""
    try:
        return compile_masks(name, [request])[0], ""
    except masks.MaskError as error:
        return None, str(error)


segmented = layouts(batch=2).filter(lambda side: side.segments is not None)


@eight_examples
@given(expressions | of_examples, segmented, segmented, passage_numbers)
@pytest.mark.parametrize("inner", [None, eager_attention])
def test_by_example(inner, mask, query, key, numbers):
    mask, key = Unchecked(mask), with_passages(key, numbers)
    inputs = states(query.length, key.length)
    compiled = compile_by_example(mask, query, key, heads=HEADS, batch=2)
    output, _ = blockwise_attention(MODULE, *inputs, compiled, inner=inner, scaling=SCALE)
    check_same(output, inputs, dense(mask, query, key))


@pytest.mark.parametrize("shape", [(2, 1, 1, 7), (2, 1, 5, 7), (1, HEADS, 5, 7), (2, HEADS, 5, 7)])
def test_tensor_by_example(shape):
    allowed = torch.rand(shape, generator=torch.Generator().manual_seed(3)) > 0.4
    query = masks.lay_out(5, CPU, segment_ids=torch.tensor([[1, 1, 2, 2, 0], [3, 1, 3, 1, 3]]))
    key = masks.lay_out(7, CPU, segment_ids=torch.tensor([[2, 2, 2, 1, 0, 1, 5], [1, 1, 3, 3, 3, 3, 0]]))
    inputs = states(5, 7)
    compiled = compile_by_example(masks.wait_k(2), query, key, allowed, HEADS, batch=2)
    output, _ = blockwise_attention(MODULE, *inputs, compiled, scaling=SCALE)
    expected = masks.compile_mask(masks.wait_k(2), query, key, allowed, HEADS).expand(2, HEADS, -1, -1)
    check_same(output, inputs, expected)


@pytest.mark.parametrize("inner", [None, eager_attention])
def test_no_number_of_another_example_is_read(inner):
    """Not even multiplied by zero: an example beside one that is not finite is what it was."""
    side = masks.lay_out(6, CPU, segment_ids=torch.tensor([[1, 1, 2, 2, 2, 0]] * 2))
    inputs = states(6, 6)
    compiled = compile_by_example(masks.full(), side, side, batch=2)
    wanted, _ = blockwise_attention(MODULE, *inputs, compiled, inner=inner, scaling=SCALE)
    spoilt = [x.detach().clone() for x in inputs]
    for states_of in spoilt:
        states_of[:, :, 2:] = torch.nan
    got, _ = blockwise_attention(MODULE, *spoilt, compiled, inner=inner, scaling=SCALE)
    assert got[:, :2].equal(wanted[:, :2])
    assert (got[:, 5] == 0).all()


@pytest.mark.parametrize(
    ("text", "length", "kind"),
    [
        ("full()", 16, ExamplesMask),
        ("window(2)", 16, ExamplesMask),
        ("full()", 300, ExamplesMask),
        ("window(16)", 1024, BlockwiseMask),
        ("causal() & window(64)", 2048, BlockwiseMask),
    ],
)
def test_packed_rows_take_the_form_of_least_work(text, length, kind):
    side = masks.lay_out(4096, CPU, segment_ids=torch.arange(4096)[None] // length + 1)
    assert type(compile_one("blockwise", masks.parse(text), side)) is kind


@pytest.mark.usefixtures("_without_kernel")
@eight_examples
@given(expressions, layouts(batch=2), layouts(batch=2))
def test_flex(mask, query, key):
    inputs = [x.detach() for x in states(query.length, key.length)]
    compiled = compile_flex(mask, query, key, heads=HEADS)
    output = flex.flex_attention(*inputs, block_mask=compiled, scale=SCALE, enable_gqa=True)
    expected, _ = eager_attention(MODULE, *inputs, dense(mask, query, key), scaling=SCALE)
    torch.testing.assert_close(output.transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mask",
    [
        masks.window(9) | masks.prefix(2),
        masks.keep((3, 9), (20, 200)),
        masks.drop((3, 9)),
        masks.blind(examples=(((3, 9),), ((5, 8), (20, 40)))),
    ],
    ids=str,
)
def test_flex_with_its_kernel(mask):
    torch._dynamo.reset()
    side = masks.lay_out(300, CPU, attention_mask=(torch.arange(300) >= torch.tensor([[0], [40]])).long())
    inputs = [x.detach().repeat(1, 1, 1, 4) for x in states(300, 300)]
    with torch.no_grad():
        output = torch.compile(flex.flex_attention)(
            *inputs, block_mask=compile_flex(mask, side, side), scale=SCALE, enable_gqa=True
        )
    expected, _ = eager_attention(MODULE, *inputs, masks.compile_mask(mask, side, side), scaling=SCALE)
    torch.testing.assert_close(output.transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


@eight_examples
@given(bands, layouts(batch=2))
def test_sequence_lengths(mask, side):
    inputs = states(side.length, side.length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash, "lazy_import_flash_attention", lambda name: ((None, flash_attn_varlen_func), None))
        compiled = compile_varlen(mask, side, side, batch=2)
        output, _ = varlen_attention(MODULE, *inputs, compiled, scaling=SCALE)
    check_same(output, inputs, dense(mask, side, side))


@eight_examples
@given(bands, layouts(batch=2), layouts(batch=2))
def test_sequence_lengths_of_two_sides(mask, query, key):
    """Either the band lies alike in all examples, or there is an error; `full()` always has lengths."""
    inputs = states(query.length, key.length)
    try:
        compiled = compile_varlen(mask, query, key, batch=2)
    except masks.MaskError:
        assert mask != masks.full()
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash, "lazy_import_flash_attention", lambda name: ((None, flash_attn_varlen_func), None))
        output, _ = varlen_attention(MODULE, *inputs, compiled, scaling=SCALE)
    check_same(output, inputs, dense(mask, query, key))


of_spans = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)).map(lambda p: (p[0], p[0] + p[1])), max_size=2)
choices = st.one_of(
    of_spans.map(lambda s: masks.keep(*s)),
    of_spans.map(lambda s: masks.drop(*s)),
    of_spans.map(lambda s: masks.blind(*s)),
    st.lists(of_spans, min_size=6, max_size=6).map(lambda s: masks.blind(examples=s)),
    st.lists(st.integers(0, 2), max_size=2).map(lambda n: masks.keep(passages=n)),
    st.builds(masks.prefix, st.integers(0, 4)),
    st.builds(lambda n: ~masks.prefix(n), st.integers(0, 4)),
)
choices = choices | st.builds(lambda a, b: a & b, choices, choices) | st.builds(lambda a, b: a | b, choices, choices)


@eight_examples
@given(choices, layouts(batch=2), layouts(batch=2), passage_numbers)
def test_sequence_lengths_of_chosen_keys(mask, query, key, numbers):
    key = with_passages(key, numbers)
    inputs = states(query.length, key.length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash, "lazy_import_flash_attention", lambda name: ((None, flash_attn_varlen_func), None))
        patch.setattr(varlen, "check", lambda *sides: None)  # it would refuse most random cases
        compiled = compile_varlen(mask, query, key, batch=2)
        output, _ = varlen_attention(MODULE, *inputs, compiled, scaling=SCALE)
    check_same(output, inputs, dense(mask, query, key))


@eight_examples
@given(bands, layouts(batch=2), passage_numbers)
def test_sequence_lengths_of_passages(band, side, numbers):
    """Each is a sequence of its own, in which a band needs positions that are neighbours."""
    side = with_passages(side, numbers if band == masks.full() else sorted(numbers))
    inputs = states(side.length, side.length)
    mask = masks.passages() & band
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash, "lazy_import_flash_attention", lambda name: ((None, flash_attn_varlen_func), None))
        compiled = compile_varlen(mask, side, side, batch=2)
        output, _ = varlen_attention(MODULE, *inputs, compiled, scaling=SCALE)
    check_same(output, inputs, dense(mask, side, side))


def test_dropout_where_there_is_none_is_refused(monkeypatch):
    """As in versions 3 and 4."""

    def without_dropout(q, k, v, cu_seqlens_q, cu_seqlens_k, **options):
        return q

    monkeypatch.setattr(flash, "lazy_import_flash_attention", lambda name: ((None, without_dropout), None))
    side = masks.lay_out(4, CPU)
    compiled, inputs = compile_varlen(masks.causal(), side, side, batch=2), states(4, 4)
    options = {"scaling": SCALE, "implementation": "flash_attention_3"}
    varlen_attention(MODULE, *inputs, compiled, dropout=0.0, **options)
    with pytest.raises(ValueError, match=r"attention_dropout must be 0 under flash_attention_3, .* got 0\.1; use"):
        varlen_attention(MODULE, *inputs, compiled, dropout=0.1, **options)


def test_sequence_lengths_of_a_cached_step():
    """One query, the last token of each example, whatever the padding."""
    key = masks.lay_out(5, CPU, attention_mask=torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]))
    compiled = compile_varlen(masks.window(1) & masks.causal(), key.pick(torch.tensor([4])), key, batch=2)
    assert (compiled.cu_queries.tolist(), compiled.cu_keys.tolist()) == ([0, 1, 2], [0, 3, 8])
    assert compiled.window == (1, 0)
    assert compiled.keys.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "text",
    [
        "causal() | prefix(2)",
        "~causal()",
        "blocks(3)",
        "dilated(2)",
        "causal() & prefix(2)",
        "heads({0: keep((0, 1)), 'rest': full()})",
        "~passages()",
    ],
)
def test_mask_without_lengths(text):
    side = masks.lay_out(4, CPU)
    with pytest.raises(masks.MaskError) as error:
        compile_varlen(masks.parse(text), side, side)
    assert "a mask under flash_attention must be full(), causal(), windows" in str(error.value)
    assert f"got {masks.parse(text)}: " in str(error.value)
    assert '"blockwise"' in str(error.value)


def test_tensor_without_lengths():
    side = masks.lay_out(4, CPU)
    with pytest.raises(masks.MaskError, match=r"under flash_attention .* got a tensor mask: a tensor can allow any"):
        compile_varlen(masks.full(), side, side, torch.ones(1, 1, 4, 4, dtype=torch.bool))


@pytest.mark.usefixtures("_without_kernel")
@pytest.mark.parametrize("form", ["blockwise", "flex"])
@pytest.mark.parametrize("shape", [(2, 1, 1, 5), (2, 1, 4, 5), (1, HEADS, 4, 5)])
def test_tensor_in_blocks(form, shape):
    allowed = torch.rand(shape, generator=torch.Generator().manual_seed(3)) > 0.4
    query, key = masks.lay_out(4, CPU), masks.lay_out(5, CPU)
    inputs = [x.detach() for x in states(4, 5)]
    wanted = masks.compile_mask(masks.causal(), query, key, allowed)
    if form == "flex":
        compiled = compile_flex(masks.causal(), query, key, allowed)
        output = flex.flex_attention(*inputs, block_mask=compiled, scale=SCALE, enable_gqa=True).transpose(1, 2)
    else:
        with blocks_of(3, 2):
            compiled = compile_blockwise(masks.causal(), query, key, allowed)
            output, _ = blockwise_attention(MODULE, *inputs, compiled, scaling=SCALE)
    expected, _ = eager_attention(MODULE, *inputs, wanted, scaling=SCALE)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()  # with gradients FlexAttention does not run on CPU
@pytest.mark.parametrize("name", BACKENDS)
def test_nothing_is_made_where_everything_is_allowed(name):
    side = masks.lay_out(4, CPU)
    assert compile_one(name, masks.full(), side) is None
    assert compile_one(name, masks.causal(), side) is not None


def pairs(mask: masks.Mask, query: masks.Layout, key: masks.Layout | None = None) -> int:
    """How many pairs of a query and a key are looked at."""
    blocks = compile_blockwise(mask, query, key or query).blocks
    return sum((b.queries[1] - b.queries[0]) * sum(last - first for first, last in b.keys) for b in blocks)


@pytest.mark.parametrize(
    "text", ["window(64)", "blocks(64)", "window(64) | prefix(4)", "window(64) & ~blocks(3)", "causal() & window(64)"]
)
def test_work_is_linear(text):
    mask = masks.parse(text)
    work = [pairs(mask, masks.lay_out(length, CPU)) for length in (1024, 2048, 4096)]
    assert work[2] - work[1] == 2 * (work[1] - work[0])
    assert work[2] <= 4096 * 384


def test_work_in_packed_and_padded_rows():
    segments = torch.arange(2048)[None] // 300 + 1
    packed = masks.lay_out(2048, CPU, segment_ids=segments)
    assert pairs(masks.full(), packed) <= 2048 * (300 + 2 * 128 + 64)
    assert pairs(masks.window(16), packed) <= 2048 * 256
    left = masks.lay_out(2048, CPU, attention_mask=(torch.arange(2048) >= 1000).long()[None])
    assert pairs(masks.window(16), left) <= 2048 * 256


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            if isinstance(part, torch.Tensor):
                self.size = max(self.size, part.numel())
        return result


@pytest.mark.parametrize(("name", "fits"), [("blockwise", True), ("sdpa", False)])
def test_no_mask_of_all_pairs_is_made(name, fits):
    side = masks.lay_out(2048, CPU)
    query, key, value = (torch.randn(1, 1, 2048, 4).requires_grad_() for _ in range(3))
    module = SimpleNamespace(num_key_value_groups=1, training=False, is_causal=False)
    with Largest() as largest:
        # Asked directly: what records sizes is a tracer, for which `blockwise` would leave the mask to `sdpa`.
        compiled = find_backend(name).compile(MaskRequest(masks.window(8), side, side))
        output, _ = attend(name, module, query, key, value, compiled, scaling=SCALE)
        output.sum().backward()
    assert (largest.size < 2048 * 2048 // 16) == fits
