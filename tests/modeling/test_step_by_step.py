"""Every rule, and expressions of all rules, one token at a time against one pass: every scope, every backend."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mask_cases import expressions, randomised, tiny_model, tokens

from crossmask import masks
from crossmask.masks.rules import RULES

S, T = 7, 6
RULE_TEXTS = {
    "full": "full()",
    "causal": "causal()",
    "window": "window(left=1, right=2)",
    "wait_k": "wait_k(2)",
    "prefix": "prefix(2)",
    "blocks": "blocks(2)",
    "chunked": "chunked(size=2, lookback=1)",
    "dilated": "dilated(2)",
    "monotonic": "monotonic(slope=1.1, width=1)",
    "alignment": "alignment((0, 2, 1, 4, 3, 5), width=1)",
    "keep": "keep((1, 3))",
    "drop": "drop((1, 3))",
    "blind": "blind((1, 3))",
    "segments": "segments()",
    "passages": "passages()",
    "heads": "heads({0: causal(), 1: window(1), 'rest': prefix(2)})",
    "layers": "layers({0: causal(), 'rest': wait_k(2)})",
    "random": "random(p=0.5, seed=3)",
    "lookup": "lookup('every_other')",
}
OF_THE_SOURCE = {"blind", "alignment"}  # what they name is not in a target


@masks.register
def every_other(q: masks.TokenPosition, k: masks.TokenPosition):
    return (q.position + k.position) % 2 == 0


def batch_of(side: str) -> dict[str, torch.Tensor]:
    """Two examples; the second is padded on this side of both texts, unless `side` is "none"."""
    batch = {
        "input_ids": tokens(2, S),
        "attention_mask": torch.ones(2, S, dtype=torch.long),
        "decoder_input_ids": tokens(2, T, seed=1),
        "decoder_attention_mask": torch.ones(2, T, dtype=torch.long),
    }
    if side != "none":
        source, target = (slice(0, 2), slice(0, 1)) if side == "left" else (slice(S - 2, S), slice(T - 1, T))
        batch["attention_mask"][1, source] = batch["input_ids"][1, source] = 0
        batch["decoder_attention_mask"][1, target] = batch["decoder_input_ids"][1, target] = 0
    return batch


def one_pass(model, batch: dict, **given) -> torch.Tensor:
    return model(**batch, **given, use_cache=False).logits


def one_at_a_time(model, batch: dict, cached: bool, given_masks: bool, **given) -> torch.Tensor:
    """Logits of each target token, computed when it comes: with a cache, or by a pass over the tokens so far."""
    encoder_mask = given.pop("encoder_mask", None)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if not given_masks:
        source.pop("attention_mask")
    encoded = model.get_encoder()(**source, encoder_mask=encoder_mask)
    cache, found = None, []
    for end in range(1, T + 1):
        start = end - 1 if cached else 0
        out = model(
            encoder_outputs=encoded,
            attention_mask=source.get("attention_mask"),
            decoder_input_ids=batch["decoder_input_ids"][:, start:end],
            decoder_attention_mask=batch["decoder_attention_mask"][:, :end] if given_masks else None,
            past_key_values=cache,
            use_cache=cached,
            **given,
        )
        cache = out.past_key_values
        found.append(out.logits[:, -1:])
    return torch.cat(found, dim=1)


def check(backend: str, side: str, given: dict) -> None:
    model, batch = tiny_model(backend), batch_of(side)
    if "blind" in str(given):
        given["encoder_mask"] = given["cross_mask"] = next(iter(given.values()))
    with torch.no_grad():
        expected = one_pass(model, batch, **given)
        kept = batch["decoder_attention_mask"].bool()
        # Without padding the masks of padding may be left out, which is another way through the code.
        for cached, given_masks in (
            ((True, False), (True, True), (False, False)) if side == "none" else ((True, True),)
        ):
            found = one_at_a_time(model, batch, cached, given_masks, **given)
            torch.testing.assert_close(found[kept], expected[kept], atol=1e-4, rtol=1e-4)


pytestmark = pytest.mark.usefixtures("without_kernels")
each_side = pytest.mark.parametrize("side", ["none", "left"])
each_backend = pytest.mark.parametrize("backend", ["eager", "sdpa", "blockwise", "flex_attention"])


def test_no_rule_is_left_out():
    assert set(RULE_TEXTS) == set(RULES)


@each_side
@each_backend
@pytest.mark.parametrize("name", RULE_TEXTS)
def test_each_rule_across(name, backend, side):
    check(backend, side, {"cross_mask": RULE_TEXTS[name]})


@each_side
@each_backend
@pytest.mark.parametrize("name", sorted(set(RULE_TEXTS) - OF_THE_SOURCE))
def test_each_rule_in_the_decoder(name, backend, side):
    check(backend, side, {"decoder_mask": f"causal() & ({RULE_TEXTS[name]})"})


@pytest.mark.parametrize("name", sorted(set(RULE_TEXTS) - OF_THE_SOURCE))
def test_each_rule_in_the_encoder(name):
    """The source is encoded at once; what depends on its mask is each step that reads it."""
    check("blockwise", "left", {"encoder_mask": RULE_TEXTS[name]})


@pytest.mark.parametrize("backend", ["eager", "sdpa", "blockwise"])
@settings(randomised, max_examples=12)
@given(st.data())
def test_expressions_of_rules_in_all_scopes(backend, data):
    side = data.draw(st.sampled_from(["none", "left", "right"]))
    encoder, decoder, cross = (data.draw(expressions) for _ in range(3))
    never = ~masks.full()
    assume(never not in (encoder, decoder & masks.causal(), cross))
    check(backend, side, {"encoder_mask": encoder, "decoder_mask": decoder & masks.causal(), "cross_mask": cross})


@pytest.mark.parametrize("backend", ["eager", "blockwise"])
@pytest.mark.parametrize("name", ["causal", "window", "wait_k", "chunked", "heads", "lookup", "monotonic"])
@torch.no_grad()
def test_generation_does_not_depend_on_the_neighbours(name, backend):
    """A text alone, beside a shorter one, with and without cache, and in one beam: the same tokens."""
    model, batch, rule = tiny_model(backend), batch_of("right"), RULE_TEXTS[name]
    masked = {"cross_mask": rule, "decoder_mask": f"causal() & ({rule})"}
    settings = {**masked, "max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    together = model.generate(**source, **settings)
    assert model.generate(**source, **settings, use_cache=False).equal(together)
    assert model.generate(**source, **settings, cache_implementation="static", disable_compile=True).equal(together)
    assert model.generate(batch["input_ids"][:1], **settings)[0].equal(together[0])
    assert model.generate(batch["input_ids"][1:, : S - 2], **settings)[0].equal(together[1])
