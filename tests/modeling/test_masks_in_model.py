"""Masks in the config and in the call: what they forbid has no influence, in any way of decoding."""

import pytest
import torch
from mask_cases import tiny_model, tokens
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from crossmask import CrossMaskConfig, InteractiveAttention, masks

B, S, T, H = 2, 6, 5, 4
MODES = {
    "greedy": {},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "beam": {"num_beams": 3},
    "beam, static cache": {"num_beams": 3, "cache_implementation": "static"},
    "sampling": {"do_sample": True},
    "several samples": {"do_sample": True, "num_return_sequences": 3},
}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
each_backend = pytest.mark.parametrize("backend", ["eager", "sdpa"])
SOURCE, TARGET = tokens(B, S), tokens(B, T, seed=1)


def rule_tensor(mask: masks.Mask, rows: int, columns: int, ndim: int = 3) -> torch.Tensor:
    """A rule written out: (B, rows, columns) or (B, H, rows, columns)."""
    cpu = torch.device("cpu")
    allowed = masks.naive_mask(mask, masks.lay_out(rows, cpu), masks.lay_out(columns, cpu))[0, 0]
    return allowed.expand(*(B, H)[: ndim - 2], -1, -1).clone()


def generate(model, mode: dict | None = None, source: torch.Tensor = SOURCE, steps: int = 5, **inputs) -> torch.Tensor:
    torch.manual_seed(0)
    settings = {"do_sample": False, "max_new_tokens": steps, "eos_token_id": None, "pad_token_id": 0, **(mode or {})}
    return model.generate(source, **settings, **inputs)


def logits(model, source: torch.Tensor = SOURCE, **inputs) -> torch.Tensor:
    return model(input_ids=source, decoder_input_ids=TARGET, **inputs).logits


@pytest.mark.parametrize("scope", ["encoder", "decoder", "cross"])
@each_backend
@torch.no_grad()
def test_config_and_call_mean_the_same(scope, backend):
    mask = masks.wait_k(2) & masks.window(1, 3)
    plain = tiny_model(backend, decoder_mask="full()")
    in_config = tiny_model(backend, **{"decoder_mask": "full()", f"{scope}_mask": str(mask)})
    expected = logits(in_config)
    assert not torch.allclose(expected, logits(plain))
    rows, columns = {"encoder": (S, S), "decoder": (T, T), "cross": (T, S)}[scope]
    as_tensor = rule_tensor(mask, rows, columns)
    for given in (mask, str(mask), as_tensor, as_tensor.long(), rule_tensor(mask, rows, columns, 4), as_tensor[:1]):
        assert logits(plain, **{f"{scope}_mask": given}).equal(expected)


@each_backend
@torch.no_grad()
def test_call_is_anded_with_config(backend):
    both = tiny_model(backend, cross_mask="wait_k(2) & ~prefix(1)")
    half = tiny_model(backend, cross_mask="wait_k(2)")
    expected = logits(both)
    assert logits(half, cross_mask="~prefix(1)").equal(expected)
    assert logits(half, cross_mask=rule_tensor(~masks.prefix(1), T, S)).equal(expected)
    assert logits(half, cross_mask="full()").equal(logits(half))


@torch.no_grad()
def test_layers_have_their_own_masks():
    model = tiny_model(cross_mask={"0": "prefix(1)", "rest": "~prefix(1)"})
    output = model(input_ids=SOURCE, decoder_input_ids=TARGET, output_attentions=True)
    first, second = output.cross_attentions
    assert (first[..., 1:] == 0).all()
    assert (second[..., 0] == 0).all()
    assert (first[..., 0] == 1).all()


@torch.no_grad()
def test_config_may_change_after_construction():
    model = tiny_model()
    before = logits(model)
    model.config.cross_mask = "wait_k(1)"
    changed = logits(model)
    assert changed.equal(logits(tiny_model(cross_mask="wait_k(1)")))
    model.config.cross_mask = {"0": "wait_k(1)", "1": "wait_k(1)"}
    assert logits(model).equal(changed)
    model.config.cross_mask["1"] = "full()"
    assert logits(model).equal(logits(tiny_model(cross_mask={"0": "wait_k(1)", "1": "full()"})))
    model.config.cross_mask = "full()"
    assert logits(model).equal(before)


@each_backend
@torch.no_grad()
def test_wait_k_hides_the_future_source_to_the_bit(backend):
    """With a causal encoder, the logits at step t know source tokens 0 to t + k - 1 and nothing else."""
    model = tiny_model(backend, encoder_mask="causal()", cross_mask="wait_k(2)")
    before = logits(model)
    for changed in range(S):
        source = SOURCE.clone()
        source[:, changed:] = tokens(B, S - changed, seed=7)
        source[:, changed] = (SOURCE[:, changed] + 1 - 4) % 36 + 4
        after = logits(model, source)
        blind = [t for t in range(T) if t + 2 <= changed]
        assert after[:, blind].equal(before[:, blind])
        for t in set(range(T)) - set(blind):
            assert not after[:, t].equal(before[:, t])


@each_backend
def test_what_is_forbidden_has_no_gradient(backend):
    model = tiny_model(backend)
    allowed = torch.rand(B, T, S, generator=torch.Generator().manual_seed(2)) > 0.5
    embeddings = model.get_input_embeddings()(SOURCE).detach().requires_grad_()
    for t in range(T):
        output = model(
            inputs_embeds=embeddings,
            decoder_input_ids=TARGET,
            encoder_mask="window(0)",
            decoder_mask="window(0)",
            cross_mask=allowed,
        )
        (gradient,) = torch.autograd.grad(output.logits[:, t].square().sum(), embeddings)
        influence = gradient.abs().amax(-1) > 0
        assert influence.equal(allowed[:, t])


@each_backend
@torch.no_grad()
def test_source_hidden_from_encoder_and_decoder_changes_no_bit(backend):
    model = tiny_model(backend)
    blind = torch.ones(B, S, dtype=torch.bool)
    blind[0, 1:3] = blind[1, 4] = False
    hidden = {"encoder_mask": blind, "cross_mask": blind}
    changed = torch.where(blind, SOURCE, (SOURCE + 5 - 4) % 36 + 4)
    assert logits(model, changed, **hidden).equal(logits(model, **hidden))
    assert not logits(model, changed, cross_mask=blind).equal(logits(model, cross_mask=blind))
    assert not logits(model, changed).equal(logits(model))
    for mode in MODES.values():
        assert generate(model, mode, changed, **hidden).equal(generate(model, mode, **hidden))


@each_mode
@each_backend
@torch.no_grad()
def test_generation_sees_the_same_mask_in_every_form(mode, backend):
    mask = masks.wait_k(1) & ~masks.blocks(4)
    expected = generate(tiny_model(backend, cross_mask=str(mask)), mode)
    model = tiny_model(backend)
    assert not generate(model, mode).equal(expected)
    rows = rule_tensor(mask, 5, S)
    forms = [mask, str(mask), rows, rows.int(), rows[:1], rule_tensor(mask, 9, S, 4), masks.tensor(rows)]
    for given in forms:
        assert generate(model, mode, cross_mask=given).equal(expected)


@each_mode
@torch.no_grad()
def test_each_example_keeps_its_own_rows(mode):
    """Tensor masks that differ between examples, heads and steps stay with their examples, beams included."""
    model = tiny_model("sdpa")
    allowed = torch.rand(B, H, 5, S, generator=torch.Generator().manual_seed(0)) > 0.4
    together = generate(model, mode, cross_mask=allowed)
    assert not together.equal(generate(model, mode))
    if mode.get("do_sample"):
        return
    for b in range(B):
        assert generate(model, mode, SOURCE[b : b + 1], cross_mask=allowed[b : b + 1]).equal(together[b : b + 1])


@pytest.mark.parametrize("tensor", [False, True])
@torch.no_grad()
def test_assisted_decoding(tensor):
    model, assistant = tiny_model("sdpa"), tiny_model("sdpa", initializer_range=0.4)
    mask = masks.wait_k(1) & ~masks.blocks(4)
    given = rule_tensor(mask, 12, S)[:1] if tensor else mask
    one = SOURCE[:1]
    expected = generate(model, source=one, steps=8, cross_mask=given)
    assert generate(model, {"assistant_model": assistant}, one, 8, cross_mask=given).equal(expected)
    assert generate(model, {"assistant_model": model}, one, 8, cross_mask=given).equal(expected)


@torch.no_grad()
def test_decoder_mask_in_generation():
    mask = masks.causal() & masks.window(1)
    expected = generate(tiny_model(decoder_mask=str(mask)))
    model = tiny_model()
    assert not generate(model).equal(expected)
    for mode in ({}, {"cache_implementation": "static"}):
        for given in (mask, str(mask), rule_tensor(mask, 5, 5), rule_tensor(mask, 8, 8, 4)):
            assert generate(model, mode, decoder_mask=given).equal(expected)


@each_mode
@torch.no_grad()
def test_past_the_last_row(mode):
    model = tiny_model()
    rows = torch.rand(B, 3, S, generator=torch.Generator().manual_seed(4)) > 0.4
    with pytest.raises(masks.MaskError) as error:
        generate(model, mode, cross_mask=rows)
    assert "must have a row for each of 4 decoder tokens, got 3" in str(error.value)
    assert "masks.tensor(mask, repeat_last=True)" in str(error.value)
    assert generate(model, mode, steps=3, cross_mask=rows).shape[1] == 4
    extended = torch.cat([rows, rows[:, -1:].expand(-1, 4, -1)], dim=1)
    repeated = generate(model, mode, cross_mask=masks.tensor(rows, repeat_last=True))
    assert repeated.equal(generate(model, mode, cross_mask=extended))
    other = extended.clone()
    other[:, 3:] = ~other[:, 3:]
    assert not repeated.equal(generate(model, mode, cross_mask=other))


@torch.no_grad()
def test_a_mask_without_rows_never_runs_out():
    model = tiny_model()
    keep = torch.tensor([[1, 1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 1]])
    assert generate(model, cross_mask=keep).equal(generate(model, cross_mask=keep[:, None].expand(-1, 9, -1)))


@each_backend
@torch.no_grad()
def test_heads_see_what_their_own_masks_allow(backend):
    allowed = torch.rand(B, H, T, S, generator=torch.Generator().manual_seed(3)) > 0.5
    model = tiny_model("eager")
    output = model(input_ids=SOURCE, decoder_input_ids=TARGET, cross_mask=allowed, output_attentions=True)
    for weights in output.cross_attentions:
        assert (weights > 0).equal(allowed)
    torch.testing.assert_close(logits(tiny_model(backend), cross_mask=allowed), output.logits, atol=1e-4, rtol=1e-4)


@each_backend
def test_nothing_to_see_is_finite(backend):
    model = tiny_model(backend)
    sizes = {"encoder_mask": (B, S, S), "decoder_mask": (B, T, T), "cross_mask": (B, T, S)}
    closed = {name: torch.zeros(size, dtype=torch.bool) for name, size in sizes.items()}
    output = model(input_ids=SOURCE, labels=TARGET, **closed)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    other = model(input_ids=tokens(B, S, seed=8), labels=TARGET, **closed)
    assert other.logits.equal(output.logits)


def ones(*shape, dtype=torch.bool):
    return torch.ones(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"cross_mask": ones(B, T, S, dtype=torch.float)}, "cross_mask: a tensor mask must be boolean"),
        ({"cross_mask": ones(B, T, S).int() * 2}, "cross_mask: a tensor mask of torch.int32 must hold 0 and 1 only"),
        ({"cross_mask": ones(S)}, "cross_mask: a tensor mask must be (batch, source)"),
        (
            {"cross_mask": ones(3, T, S)},
            "cross_mask must be for the 2 examples of the batch, or for 1, got 3 in (3, 5, 6)",
        ),
        (
            {"cross_mask": ones(B, 3, T, S)},
            "cross_mask must be for the 4 heads of the model, or for 1, got 3 in (2, 3, 5, 6)",
        ),
        (
            {"cross_mask": ones(B, T - 1, S)},
            "cross_mask must have a row for each of 5 decoder tokens, got 4 in (2, 4, 6)",
        ),
        (
            {"cross_mask": ones(B, T, S + 1)},
            "cross_mask must have a column for each of 6 tokens to attend to, got 7 in (2, 5, 7)",
        ),
        (
            {"cross_mask": "wait_k"},
            "cross_mask: a rule must have brackets, got 'wait_k' in the mask",
        ),
        ({"cross_mask": 3}, "cross_mask must be a mask, its text or a boolean tensor, got int"),
        (
            {"decoder_mask": ones(B, T, T - 1)},
            "decoder_mask must have a column for each of 5 tokens to attend to, got 4 in (2, 5, 4)",
        ),
        (
            {"encoder_mask": ones(B, S - 1, S)},
            "encoder_mask must have a row for each of 6 source tokens, got 5 in (2, 5, 6)",
        ),
        (
            {"encoder_mask": ones(B, S + 1, S)},
            "encoder_mask must have a row for each of 6 source tokens, got 7 in (2, 7, 6)",
        ),
        (
            {"encoder_mask": "full() ^ full()"},
            "encoder_mask: a mask must be made of rules with &, | and ~, got 'full() ^ full()' in the mask",
        ),
        ({"attention_mask": ones(B, 1, T, S)}, "the attention mask must be (batch, 6), got (2, 1, 5, 6)"),
        ({"attention_mask": ones(B, S + 1)}, "the attention mask must be (batch, 6), got (2, 7)"),
        ({"segment_ids": ones(B, S).long()}, "both segment_ids and decoder_segment_ids"),
    ],
)
@torch.no_grad()
def test_misfits_say_what_is_wrong(inputs, message):
    with pytest.raises(ValueError) as error:
        logits(tiny_model(), **inputs)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", ["wait_k(2)", ones(B, T, 3)])
def test_memory_has_no_source_positions(given):
    with pytest.raises(masks.MaskError, match="cannot be combined with memory_length"):
        logits(tiny_model(memory_length=3), cross_mask=given)


def prediction(tmp_path, given, steps: int):
    model = tiny_model()
    model.generation_config.update(eos_token_id=None, pad_token_id=0)
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), predict_with_generate=True, report_to=[], use_cpu=True, generation_max_length=steps
    )
    trainer = Seq2SeqTrainer(model=model, args=arguments)
    batch = {
        "input_ids": SOURCE,
        "attention_mask": torch.ones_like(SOURCE),
        "labels": TARGET,
        "decoder_input_ids": model.prepare_decoder_input_ids_from_labels(TARGET),
        "cross_mask": given,
    }
    gen = {"max_new_tokens": steps, "do_sample": False}
    loss, generated, _ = trainer.prediction_step(model, batch, prediction_loss_only=False, **gen)
    return model, loss, generated


def test_trainer_generates_under_the_masks_of_the_training_batch(tmp_path):
    given = torch.rand(B, T, S, generator=torch.Generator().manual_seed(6)) > 0.4
    model, loss, generated = prediction(tmp_path, given, T)
    assert loss.isfinite()
    assert generated[:, : T + 1].equal(generate(model, steps=T, cross_mask=given))
    assert not generated[:, : T + 1].equal(generate(model, steps=T))


def test_trainer_that_generates_past_the_labels_is_told_so(tmp_path):
    given = torch.ones(B, T, S, dtype=torch.bool)
    with pytest.raises(masks.MaskError, match="must have a row for each of 6 decoder tokens, got 5"):
        prediction(tmp_path, given, T + 2)


def interactive():
    torch.manual_seed(0)
    attention = InteractiveAttention(CrossMaskConfig(hidden_size=16, num_attention_heads=4, initializer_range=0.5))
    return attention, torch.randn(2, 5, 16), torch.randn(2, 7, 16)


@pytest.mark.parametrize("given", ["wait_k(2)", masks.wait_k(2), "(B,T,S)", "(B,H,T,S)", "ints"])
def test_interactive_attention_by_itself_reads_every_kind_of_mask(given):
    attention, target, source = interactive()
    allowed = torch.arange(7)[None, None] < torch.arange(5)[None, :, None] + 2
    forms = {"(B,T,S)": allowed, "(B,H,T,S)": allowed[:, None].expand(2, 4, 5, 7), "ints": allowed.int()}
    output, weights = attention(target, source, forms[given] if isinstance(given, str) and given in forms else given)
    assert weights.masked_select(~allowed[:, None]).eq(0).all()
    assert weights.sum(-1).allclose(torch.ones(()))
    torch.testing.assert_close(output, attention(target, source, allowed)[0])


@pytest.mark.parametrize("given", ["wait_k(2)", torch.arange(7)[None].expand(2, 7) > 1])
def test_interactive_attention_by_itself_reads_a_mask_over_a_source_that_is_cached(given):
    attention, target, source = interactive()
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    expected, _ = attention(target, source, given, cache)
    torch.testing.assert_close(attention(target, None, given, cache)[0], expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.ones(2, 5, 6, dtype=torch.bool), "does not fit (B, H, T, S) = (2, 4, 5, 7)"),
        (torch.ones(2, 7), "must be boolean with True = allowed"),
        ("wait_k()", "wait_k"),
    ],
)
def test_interactive_attention_by_itself_says_what_does_not_fit(given, message):
    attention, target, source = interactive()
    with pytest.raises(masks.MaskError) as error:
        attention(target, source, given)
    assert message in str(error.value)
