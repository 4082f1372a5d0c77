"""The network gives the same numbers on every attention implementation, and says what one of them cannot run."""

import os
from pathlib import Path

import pytest
import torch
from small_models import START, small_config, small_model, tokens
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from crossmask import CrossMaskForConditionalGeneration, masks
from crossmask.modeling import mask_compiler

pytestmark = pytest.mark.usefixtures("without_kernels")
IMPLEMENTATIONS = ("sdpa", "blockwise", "flex_attention", "flash_attention_2")
MASKS = {"encoder_mask": "window(3)", "decoder_mask": "causal() & window(4)"}
DOCS = Path(__file__).parents[2] / "docs" / "backends.md"


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


@pytest.mark.parametrize("name", ["sdpa", "blockwise", "flex_attention"])
def test_same_numbers_with_additive_scores(name):
    fields = {"cross_attention_score": "additive", "cross_mask": "wait_k(3)", **MASKS}
    expected = numbers(on("eager", **fields), inputs("padded"))
    for got, wanted in zip(numbers(on(name, **fields), inputs("padded")), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_generation(name, use_cache):
    batch = inputs("padded")
    options = {"attention_mask": batch["attention_mask"], "max_new_tokens": 6, "num_beams": 2, "use_cache": use_cache}
    expected = on("eager", **MASKS).generate(batch["input_ids"], **options)
    assert on(name, **MASKS).generate(batch["input_ids"], **options).equal(expected)


@pytest.mark.parametrize("name", ["eager", "sdpa", "blockwise", "flex_attention"])
def test_implementation_is_set_by_name(name):
    model = small_model()
    model.set_attn_implementation(name)
    assert model.model.decoder.layers[0].cross_attn.config._attn_implementation == name
    model = CrossMaskForConditionalGeneration._from_config(small_config(), attn_implementation=name)
    assert model.config._attn_implementation == name


def test_mask_that_flash_attention_cannot_run():
    model = on("flash_attention_2", encoder_mask="blocks(4)")
    with pytest.raises(
        masks.MaskError, match=r"flash_attention cannot run blocks\(4\).*attn_implementation=\"blockwise\""
    ):
        model(**inputs("padded"))


@pytest.mark.parametrize("name", ["eager", *IMPLEMENTATIONS])
def test_one_compilation_a_pass(name, monkeypatch):
    """Each distinct mask once, however many layers have it."""
    compiled = []

    def count(name, requests):
        compiled.extend(str(request.rule) for request in requests)
        return compile_masks(name, requests)

    compile_masks = mask_compiler.compile_masks
    monkeypatch.setattr(mask_compiler, "compile_masks", count)
    on(name, **MASKS)(**inputs("padded"))
    assert compiled == ["window(left=3)", "causal() & window(left=4)", "full()"]


def test_other_models_can_name_blockwise():
    """Their masks come as tensors, or not at all."""
    query = torch.randn(1, 2, 3, 4)
    allowed = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    module = torch.nn.Module()
    module.num_key_value_groups = 1
    run, plain = (ALL_ATTENTION_FUNCTIONS[name] for name in ("blockwise", "sdpa"))
    assert run(module, query, query, query, allowed, scaling=0.5, dropout=0.0)[0].equal(
        plain(module, query, query, query, allowed, scaling=0.5, dropout=0.0)[0]
    )


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
COLUMNS = ("eager", "sdpa", "blockwise", "flex_attention", "flash_attention_2")
NAMES = {
    "NoneType": "nothing",
    "Tensor": "tensor",
    "BlockwiseMask": "blocks",
    "ExamplesMask": "examples",
    "BlockMask": "`BlockMask`",
    "Varlen": "lengths",
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
        found = NAMES[type(seen[scope]).__name__]
        torch.testing.assert_close(logits, on("eager", **fields)(**batch).logits, rtol=1e-5, atol=1e-4)
    return found


def table(monkeypatch) -> str:
    lines = [
        "| mask | eager | sdpa | blockwise | flex_attention | the same, training on CPU | flash_attention_2, 3, 4 |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, row in ROWS.items():
        found = [cell(name, *row, False, monkeypatch) for name in COLUMNS]
        found.insert(4, cell("flex_attention", *row, True, monkeypatch))
        lines.append(f"| {title} | {' | '.join(found)} |")
    return "\n".join(lines)


def test_the_table_in_the_docs_is_right(monkeypatch):
    """Which mask runs where; CROSSMASK_WRITE_DOCS=1 writes the table."""
    before, _, rest = DOCS.read_text().partition("<!-- table -->\n")
    _, _, after = rest.partition("\n<!-- end of table -->")
    expected = f"{before}<!-- table -->\n{table(monkeypatch)}\n<!-- end of table -->{after}"
    if os.environ.get("CROSSMASK_WRITE_DOCS"):
        DOCS.write_text(expected)
    assert DOCS.read_text() == expected


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
