"""The network gives the same numbers on every attention implementation, and says what one of them cannot run."""

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from small_models import START, small_config, small_model, tokens
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface
from transformers.utils.generic import is_flash_attention_requested

from crossmask import CrossMaskForConditionalGeneration, masks
from crossmask.attention import AttentionBackend, MaskRequest, backends, blockwise, dense, register_backend
from crossmask.attention.backends import BACKENDS, attend, compile_masks
from crossmask.masks.rule_docs import summary, when_to_use
from crossmask.seq2seq import mask_compiler

pytestmark = pytest.mark.usefixtures("without_kernels")
BUILT_IN = dict(BACKENDS)
IMPLEMENTATIONS = (*(name for name in BUILT_IN if name != "eager"), "toy")
# What Transformers looks for a package of, which needs a GPU.
# What models of Transformers get from us under its name.
OURS = (*(name for name in BUILT_IN if isinstance(ALL_ATTENTION_FUNCTIONS.get(name), partial)), "toy")
OF_A_PACKAGE = {name for name in BUILT_IN if is_flash_attention_requested(requested_attention_implementation=name)}
MASKS = {"encoder_mask": "window(3)", "decoder_mask": "causal() & window(4)"}
DOCS = Path(__file__).parents[2] / "docs" / "backends.md"


@dataclass(frozen=True)
class Bias:
    """What is added to the scores: 0 where allowed."""

    numbers: torch.Tensor


class Toy(AttentionBackend):
    """A backend from outside: all that it takes is this class."""

    name = "toy"
    mask_types = (Bias,)

    def __init__(self):
        self.compiled: list[str] = []

    def supports(self, request: MaskRequest) -> str | None:
        if request.query.length > 100:
            return "it is for short rows"
        return super().supports(request)

    def compile(self, request: MaskRequest) -> Bias:
        self.compiled.append(str(request.rule))
        allowed = masks.compile_mask(request.rule, request.query, request.key, request.tensor_mask, request.heads)
        numbers = torch.zeros(()) if allowed is None else torch.zeros(allowed.shape).masked_fill(~allowed, -1e9)
        return Bias(numbers)

    def attend(self, module, query, key, value, compiled_mask, *, scaling, dropout=0.0, additive=False, **kwargs):
        assert not additive
        key, value = (part.repeat_interleave(module.num_key_value_groups, 1) for part in (key, value))
        bias = torch.zeros(()) if compiled_mask is None else compiled_mask.numbers
        weights = (query @ key.transpose(2, 3) * scaling + bias).softmax(-1) * (bias == 0)
        return (nn.functional.dropout(weights, dropout, module.training) @ value).transpose(1, 2), weights


@pytest.fixture(autouse=True)
def toy(monkeypatch) -> Toy:
    """Registered for one test, here and at Transformers."""
    monkeypatch.setattr(backends, "BACKENDS", dict(backends.BACKENDS))
    for interface in (AttentionInterface, AttentionMaskInterface):
        monkeypatch.setattr(interface, "_global_mapping", dict(interface._global_mapping))
    return register_backend(Toy())


def on(name: str, **fields) -> CrossMaskForConditionalGeneration:
    model = small_model(**{"max_position_embeddings": 400, "initializer_range": 0.2, **fields})
    model.config._attn_implementation = name  # set_attn_implementation looks for the flash_attn package
    return model


def inputs(kind: str) -> dict[str, torch.Tensor]:
    """Sources longer than a block of queries, with padding on the left or packed."""
    source, target = tokens(2, 150), tokens(2, 9, seed=1)
    batch = {"input_ids": source, "decoder_input_ids": target, "labels": target}
    if kind == "padded":
        return {**batch, "attention_mask": (torch.arange(150) >= torch.tensor([[0], [40]])).long()}
    segments, target_segments = torch.ones(2, 150).long(), torch.ones(2, 9).long()
    segments[:, 70:], target_segments[:, 4:], segments[1, 140:], target_segments[1, 8:] = 2, 2, 0, 0
    return {**batch, "segment_ids": segments, "decoder_segment_ids": target_segments}


def numbers(model, batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits in training, gradients of all parameters, logits in inference."""
    output = model(**batch)
    gradients = torch.autograd.grad(output.loss, list(model.parameters()))
    with torch.no_grad():
        logits = model(**batch).logits
    return output.logits.detach(), torch.cat([g.flatten() for g in gradients]), logits


@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize("fields", [MASKS, {}, {"memory_length": 2}], ids=["masks", "none", "memory"])
def test_same_numbers(fields, kind):
    expected = numbers(on("eager", **fields), inputs(kind))
    for name in IMPLEMENTATIONS:
        for got, wanted in zip(numbers(on(name, **fields), inputs(kind)), expected, strict=True):
            tolerance = 1e-5 * max(1.0, float(wanted.abs().max()))
            assert (got - wanted).abs().max() <= tolerance, name


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_same_numbers_with_additive_scores(name):
    fields = {"cross_attention_score": "additive", "cross_mask": "wait_k(3)", **MASKS}
    expected = numbers(on("eager", **fields), inputs("padded"))
    for got, wanted in zip(numbers(on(name, **fields), inputs("padded")), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize("name", ["sdpa", "blockwise"])
def test_no_kernel_of_an_accelerator_is_given_a_query_without_keys(name, kind, monkeypatch):
    """Of which some make NaN; what is done about it there is done here on CPU."""
    seen = []

    def kernel(module, query, key, value, mask, **kwargs):
        seen.append(mask is None or bool(mask.any(-1).all()))
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    open_empty_rows = dense.open_empty_rows
    monkeypatch.setattr(dense, "open_empty_rows", lambda mask, _: open_empty_rows(mask, torch.device("cuda")))
    monkeypatch.setattr(blockwise, "sdpa_attention_forward", kernel)
    AttentionInterface.register("sdpa", kernel)
    fields = {**MASKS, "cross_mask": "wait_k(2) & ~prefix(4)"}  # the first queries see nothing
    for got, wanted in zip(
        numbers(on(name, **fields), inputs(kind)), numbers(on("eager", **fields), inputs(kind)), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max())))
    assert seen
    assert all(seen)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_generation(name, use_cache):
    batch = inputs("padded")
    options = {"attention_mask": batch["attention_mask"], "max_new_tokens": 6, "num_beams": 2, "use_cache": use_cache}
    expected = on("eager", **MASKS).generate(batch["input_ids"], **options)
    assert on(name, **MASKS).generate(batch["input_ids"], **options).equal(expected)


@pytest.mark.parametrize("name", sorted({"eager", *IMPLEMENTATIONS} - OF_A_PACKAGE))
def test_implementation_is_set_by_name(name):
    model = small_model()
    model.set_attn_implementation(name)
    assert model.model.decoder.layers[0].cross_attn.config._attn_implementation == name
    model = CrossMaskForConditionalGeneration._from_config(small_config(), attn_implementation=name)
    assert model.config._attn_implementation == name


def test_mask_that_flash_attention_cannot_run():
    model = on("flash_attention_2", encoder_mask="blocks(4)")
    with pytest.raises(
        masks.MaskError,
        match=r"under flash_attention must be .*, got blocks\(4\): .*attn_implementation=\"blockwise\"",
    ):
        model(**inputs("padded"))


@pytest.mark.parametrize("name", ["eager", *IMPLEMENTATIONS])
def test_each_mask_is_compiled_once_in_a_pass(name, monkeypatch):
    """Each distinct mask once, however many layers have it."""
    compiled = []

    def count(name, requests):
        compiled.extend(str(request.rule) for request in requests)
        return compile_masks(name, requests)

    compile_masks = mask_compiler.compile_masks
    monkeypatch.setattr(mask_compiler, "compile_masks", count)
    on(name, **MASKS)(**inputs("padded"))
    assert compiled == ["window(left=3)", "causal() & window(left=4)", "full()"]


@pytest.mark.parametrize("name", OURS)
def test_other_models_can_name_a_backend(name):
    """Their masks come as tensors, or not at all."""
    query = torch.randn(1, 2, 3, 4)
    allowed = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    module = torch.nn.Module()
    module.num_key_value_groups = 1
    run, plain = (ALL_ATTENTION_FUNCTIONS[name] for name in (name, "sdpa"))
    assert run(module, query, query, query, allowed, scaling=0.5, dropout=0.0)[0].equal(
        plain(module, query, query, query, allowed, scaling=0.5, dropout=0.0)[0]
    )


def test_a_backend_from_outside_runs_what_it_supports(toy):
    """Long rows go to its fallback, and so do hypotheses that share a source; the rest is compiled here."""
    model, batch = on("toy", **MASKS, cross_mask="wait_k(3)"), inputs("padded")
    model(**batch)
    assert toy.compiled == ["causal() & window(left=4)", "wait_k(3)"]
    toy.compiled.clear()
    model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=3, num_beams=2)
    assert set(toy.compiled) == {"causal() & window(left=4)"}


def test_a_backend_from_outside_is_not_used_under_tracers(toy):
    batch = {name: ids for name, ids in inputs("padded").items() if name != "labels"}
    expected = on("eager", **MASKS)(**batch).logits
    toy.compiled.clear()
    with FlopCounterMode(display=False):
        torch.testing.assert_close(on("toy", **MASKS)(**batch).logits, expected, rtol=1e-5, atol=1e-4)
    assert toy.compiled == []


def test_a_backend_from_outside_trains(toy):
    model, batch = on("toy", **MASKS), inputs("packed")
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(4):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


def test_a_function_that_transformers_alone_knows_gets_tensors():
    seen = []

    def recording(module, query, key, value, attention_mask, **kwargs):
        seen.append(attention_mask)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("recording", recording)
    model, batch = on("recording", cross_mask="wait_k(3)"), inputs("padded")
    torch.testing.assert_close(model(**batch).logits, on("sdpa", cross_mask="wait_k(3)")(**batch).logits)
    assert all(mask.dtype == torch.bool and mask.ndim == 4 for mask in seen)
    options = {"attention_mask": batch["attention_mask"], "max_new_tokens": 4, "num_beams": 2}
    expected = on("sdpa", cross_mask="wait_k(3)").generate(batch["input_ids"], **options)
    assert model.generate(batch["input_ids"], **options).equal(expected)


class Lonely(Toy):
    name = "lonely"
    fallback = None


class Circling(Toy):
    name = "circling"
    fallback = "circling"


@pytest.mark.parametrize("kind", [Lonely, Circling])
def test_a_mask_that_no_backend_runs_is_named_with_the_backend(kind):
    register_backend(kind())
    says = (
        rf"encoder_mask: a mask must be one .* got window\(left=3\) \({kind.name} cannot run .* it is for short rows\)"
    )
    with pytest.raises(masks.MaskError, match=says):
        on(kind.name, **MASKS)(**inputs("padded"))
    additive = {"cross_attention_score": "additive", "cross_mask": "wait_k(3)"}
    batch = {"input_ids": tokens(2, 9), "decoder_input_ids": tokens(2, 9, seed=1)}
    says = rf"cross_mask: .*{kind.name} cannot run wait_k\(3\): it computes scaled [^;]*; choose"
    with pytest.raises(masks.MaskError, match=says):
        on(kind.name, **additive)(**batch)


def test_a_backend_that_compiles_to_something_else_is_an_error():
    class Wrong(Toy):
        name = "wrong"

        def compile(self, request):
            return [1]

    register_backend(Wrong())
    side = masks.lay_out(4, torch.device("cpu"))
    with pytest.raises(
        TypeError, match=r"backend 'wrong' must compile to its mask_types \(Bias\), got list for causal"
    ):
        compile_masks("wrong", [MaskRequest(masks.causal(), side, side)])
    query = torch.zeros(1, 1, 4, 2)
    with pytest.raises(TypeError, match=r"'wrong' or its fallbacks take for dot products, got list; add"):
        attend("wrong", nn.Module(), query, query, query, [1], scaling=1.0)


def test_what_cannot_be_registered():
    class Other(AttentionBackend):
        name = "sdpa"

    with pytest.raises(
        ValueError, match="must have a new name, got 'sdpa', which exists already; choose another name"
    ):
        register_backend(Other())
    for wrong in (Toy, AttentionBackend(), "toy"):
        with pytest.raises(
            TypeError, match=r"must be an instance of AttentionBackend with a name, .*register_backend"
        ):
            register_backend(wrong)
    assert register_backend(Toy()) is backends.find_backend("toy")  # a notebook's cell, run once more


def test_the_example_in_the_docs():
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.S)
    assert examples
    for example in examples:
        exec(compile(example, str(DOCS), "exec"), {"__name__": "example"})


ROWS = {
    "nothing masked": ("encoder", "full()", {}),
    "padding": ("encoder", "full()", {"padded": True}),
    "packed rows": ("encoder", "full()", {"packed": True}),
    "`causal()`": ("decoder", "causal()", {}),
    "`window(8)`": ("encoder", "window(8)", {}),
    "`causal() & window(8)`, packed rows": ("decoder", "causal() & window(8)", {"packed": True}),
    "`wait_k(3)`, all sources and targets of one length": ("cross", "wait_k(3)", {}),
    "`wait_k(3)`, other lengths": ("cross", "wait_k(3)", {"padded": True}),
    "`chunked(4, 1)`": ("encoder", "chunked(4, 1)", {}),
    "`dilated(2)`": ("encoder", "dilated(2)", {}),
    "`blocks(4)`": ("encoder", "blocks(4)", {}),
    "`causal() \\| prefix(2)`": ("decoder", "causal() | prefix(2)", {}),
    "`~prefix(2)`": ("cross", "~prefix(2)", {}),
    "`keep((0, 2))`, `drop(...)`, `prefix(2)`": ("cross", "keep((0, 2)) & ~prefix(1)", {}),
    "`blind((1, 3))`, in both masks": ("encoder", "blind((1, 3))", {"cross_mask": "blind((1, 3))"}),
    "`passages()`": ("encoder", "passages()", {"passages": True}),
    "`heads({0: window(2), 'rest': full()})`": ("encoder", "heads({0: window(2), 'rest': full()})", {}),
    "a tensor": ("cross", "full()", {"tensor": True}),
    "additive scores, `wait_k(3)`": ("cross", "wait_k(3)", {"cross_attention_score": "additive"}),
}


def cell(name: str, scope: str, text: str, options: dict, training: bool, monkeypatch) -> str:
    """What the mask is compiled to, after a run that gave eager's numbers; a dash where there is an error."""
    options = dict(options)
    kinds = ("padded", "packed", "passages", "tensor")
    padded, packed, passages, tensor = (options.pop(kind, False) for kind in kinds)
    fields = {"encoder_mask": "full()", "decoder_mask": "causal()", "cross_mask": "full()", f"{scope}_mask": text}
    fields.update(options)
    batch = {"input_ids": tokens(2, 9), "decoder_input_ids": tokens(2, 9, seed=1)}
    if padded:
        batch["attention_mask"] = (torch.arange(9) >= torch.tensor([[0], [4]])).long()
    if packed:
        batch["segment_ids"] = batch["decoder_segment_ids"] = torch.tensor([[1] * 4 + [2] * 5] * 2)
    if passages:
        batch["passage_ids"] = torch.tensor([[0] * 4 + [1] * 5] * 2)
    if tensor:
        batch[f"{scope}_mask"] = torch.ones(2, 9, 9, dtype=torch.bool).tril(2)
    seen = {}

    def record(self, *args, **kwargs):
        result = compile_masks(self, *args, **kwargs)
        seen[self.scope] = result[0]
        return result

    compile_masks = mask_compiler.LayerMasks.compile
    with monkeypatch.context() as patch, torch.set_grad_enabled(training):
        patch.setattr(mask_compiler.LayerMasks, "compile", record)
        try:
            logits = on(name, **fields)(**batch).logits
        except masks.MaskError:
            return "-"
        compiled = seen[scope]
        torch.testing.assert_close(logits, on("eager", **fields)(**batch).logits, rtol=1e-5, atol=1e-4)
    return "nothing" if compiled is None else f"`{type(compiled).__name__}`"


def table_of_masks(monkeypatch) -> str:
    """What each mask is compiled to; for training on CPU too, where that is different."""
    columns = {}
    for name in BUILT_IN:
        for title, training in ((name, False), (f"{name}, training on CPU", True)):
            columns[title] = [cell(name, *row, training, monkeypatch) for row in ROWS.values()]
        if columns[title] == columns[name]:
            del columns[title]
    lines = [f"| mask | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {title} | {' | '.join(cells)} |" for title, *cells in zip(ROWS, *columns.values(), strict=True)]
    return "\n".join(lines)


def table_of_backends() -> str:
    lines = ["| name | what it is | when to use |", "|---|---|---|"]
    lines += [f"| `{name}` | {summary(type(it))} | {when_to_use(type(it))} |" for name, it in BUILT_IN.items()]
    return "\n".join(lines)


@pytest.mark.parametrize("name", ["backends", "masks"])
def test_tables_in_the_docs(name, monkeypatch):
    """CROSSMASK_WRITE_DOCS=1 writes them."""
    table = table_of_masks(monkeypatch) if name == "masks" else table_of_backends()
    before, _, rest = DOCS.read_text().partition(f"<!-- table of {name} -->\n")
    _, end, after = rest.partition("\n<!-- end of table -->")
    expected = f"{before}<!-- table of {name} -->\n{table}{end}{after}"
    if os.environ.get("CROSSMASK_WRITE_DOCS"):
        DOCS.write_text(expected)
    assert DOCS.read_text() == expected, "run CROSSMASK_WRITE_DOCS=1 pytest tests/attention/test_backends.py -k docs"


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing(use_reentrant):
    model, batch = on("blockwise", **MASKS), inputs("padded")
    expected = numbers(model, batch)[1]
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.train()
    model(**batch).loss.backward()
    got = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_start_token_alone():
    """One query and no cache yet."""
    batch = {"input_ids": tokens(2, 9), "decoder_input_ids": torch.full((2, 1), START)}
    with torch.no_grad():
        expected = on("eager", **MASKS)(**batch).logits
        for name in IMPLEMENTATIONS:
            torch.testing.assert_close(on(name, **MASKS)(**batch).logits, expected, rtol=1e-5, atol=1e-4)
