"""What a sound model reads is what the composed reference allows, over random masks and layouts; a mutant is found."""

import random

import pytest
import torch
from audit_cases import PACKED
from mask_cases import EXAMPLES, names_source_tokens
from small_models import pad, small_model, tokens

from crossmask import audit, masks

RULES = [text for text, mask in EXAMPLES.items() if not names_source_tokens(mask)]
LAYOUTS = ("whole", "left", "right", "packed")


def expression(rng: random.Random, depth: int = 2) -> str:
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(RULES)
    sign = rng.choice(["&", "|", "|", "~"])
    left, right = (expression(rng, depth - 1) for _ in range(2))
    return f"~({left})" if sign == "~" else f"({left}) {sign} ({right})"


def batch_of(layout: str) -> dict[str, torch.Tensor]:
    if layout == "packed":
        return {"input_ids": tokens(1, 8), "decoder_input_ids": tokens(1, 6, seed=1), **PACKED}
    if layout == "whole":
        return {"input_ids": tokens(2, 5), "decoder_input_ids": tokens(2, 4, seed=1)}
    sources, source_mask = pad([tokens(5), tokens(3, seed=2)], layout)
    targets, target_mask = pad([tokens(3, seed=3), tokens(4, seed=4)], layout)
    batch = {"input_ids": sources, "attention_mask": source_mask}
    return {**batch, "decoder_input_ids": targets, "decoder_attention_mask": target_mask}


def possible(rng: random.Random, in_config: bool) -> str:
    """A mask that allows something; a config cannot hold `random`."""
    while True:
        text = expression(rng)
        if masks.parse(text) != ~masks.full() and not (in_config and "random" in text):
            return text


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(8))
def test_what_is_read_is_what_is_allowed(layout, seed):
    rng = random.Random(f"{layout} {seed}")
    scopes = {f"{scope}_mask": possible(rng, bool(seed % 2)) for scope in ("encoder", "decoder", "cross")}
    model = small_model(seed=seed, **(scopes if seed % 2 else {}), decoder_layers=1 + seed % 3)
    batch = batch_of(layout) | ({} if seed % 2 else scopes)
    report = audit(model, batch, method="perturbation" if seed % 4 == 0 else "gradient")
    assert report.ok, f"{scopes}\n{report}"
    # The model is random, so whatever may have influence has some.
    assert not report.source.unused.any(), scopes
    assert not report.target.unused.any(), scopes


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mutant", ["window(left=1, right=2)", "window(left=2, right=1)", "~window(1)", "full()"])
def test_a_mutated_mask_is_found(layout, mutant):
    model, batch = small_model(encoder_mask="window(0)", decoder_mask="window(0)"), batch_of(layout)
    report = audit(model, {**batch, "cross_mask": mutant}, cross_mask="window(1)")
    assert not report.ok
    sound, run = (audit(model, {**batch, "cross_mask": mask}) for mask in ("window(1)", mutant))
    assert report.source.leaking.equal(run.source.measured & ~sound.source.allowed & run.source.counted)


def test_layers_compose():
    """Two layers of a window of one reach two tokens, and the decoder's layers go on from the last."""
    model = small_model(encoder_mask="window(1)", cross_mask="window(0)", decoder_mask="window(left=1, right=0)")
    report = audit(model, {"input_ids": tokens(1, 9), "decoder_input_ids": tokens(1, 9)})
    # Encoder: 2 to either side. Decoder: the second layer's neighbour saw what the first layer's cross mask let it.
    assert report.ok
    expected = [[t - 3 <= s <= t + 2 and s >= 0 for s in range(9)] for t in range(9)]
    # The second layer's self-attention also brings what its neighbour's cross-attention saw in the first layer.
    assert report.source.allowed[0].tolist() == expected
    assert report.target.allowed[0].tolist() == [[t - 2 <= u <= t for u in range(9)] for t in range(9)]


def test_masks_of_layers_and_heads():
    model = small_model(
        encoder_mask={"0": "window(0)", "1": "window(left=1, right=0)"},
        cross_mask="heads({0: window(0), 'rest': ~full()})",
        decoder_mask="window(0)",
    )
    batch = {"input_ids": tokens(1, 5), "decoder_input_ids": tokens(1, 5)}
    report = audit(model, batch)
    assert report.ok
    assert report.source.measured[0].tolist() == [[t - 1 <= s <= t for s in range(5)] for t in range(5)]
    assert audit(model, batch, cross_mask="heads({0: ~full(), 'rest': full()})").ok
    assert not audit(model, batch, encoder_mask={"0": "window(0)", "1": "window(0)"}).ok
    assert not audit(model, batch, cross_mask="heads({0: prefix(2), 'rest': ~full()})").ok


def test_tensor_masks():
    allowed = torch.rand(2, 4, 4, 5, generator=torch.Generator().manual_seed(1)) > 0.7
    model = small_model(encoder_mask="window(0)", decoder_mask="window(0)")
    batch = batch_of("whole")
    report = audit(model, {**batch, "cross_mask": allowed})
    assert report.ok
    assert report.source.measured.equal(allowed.any(1))
    closed = allowed.clone()
    closed[1, :, 2] = False
    report = audit(model, {**batch, "cross_mask": allowed}, cross_mask=closed)
    assert {(leak.row, leak.target) for leak in report.leaks} == {(1, 2)}
    assert "the model ran under cross_mask a tensor" in report.cause
    may_grow = masks.tensor(torch.ones(1, 2, 2, dtype=torch.bool), repeat_last=True)
    assert audit(model, {**batch, "decoder_mask": may_grow}).ok


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_memory_passes_on_what_it_pools(layout):
    model = small_model(memory_length=3, encoder_mask="causal()")
    span = "blind((0, 1))"
    batch = batch_of(layout)
    report = audit(model, batch)
    assert report.ok
    assert not report.source.unused.any()
    measured = report.source.measured
    hidden = audit(model, {**batch, "encoder_mask": span})
    assert hidden.ok
    first = torch.tensor([[[bool(place == 0)] for place in row] for row in positions(batch)]).transpose(1, 2)
    assert (hidden.source.measured & hidden.source.counted).equal(measured & ~first & hidden.source.counted)
    assert not audit(model, batch, encoder_mask=f"causal() & {span}").ok


def positions(batch) -> list[list[int]]:
    ids = batch.get("segment_ids", batch.get("attention_mask", torch.ones_like(batch["input_ids"])))
    return [[row[:i].count(n) if n else -1 for i, n in enumerate(row)] for row in ids.tolist()]
