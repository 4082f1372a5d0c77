"""Every rule, and expressions of all rules, one token at a time against one pass: every scope, every backend."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mask_cases import EXAMPLES, expressions, names_source_tokens, randomised, tiny_model, tokens

from crossmask import masks
from crossmask.attention.backends import BACKENDS

S, T = 7, 6


@masks.register
def every_other(q: masks.TokenPosition, k: masks.TokenPosition):
    return (q.position + k.position) % 2 == 0


# Every rule, as its docstring draws it, and what adds to that.
TEXTS = [
    *EXAMPLES,
    "window(left=1, right=2)",
    "monotonic(slope=1.1, width=1)",
    "lookup('every_other')",
]


TEXTS_OF_EITHER_SIDE = [text for text in TEXTS if not names_source_tokens(masks.parse(text))]


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
    try:
        compare(backend, side, given)
    except masks.MaskError as error:
        if backend == "eager" or "attn_implementation" not in str(error):
            raise
        pytest.skip(f"{backend} refuses this mask, and says what to use")


def compare(backend: str, side: str, given: dict) -> None:
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


def each_case(texts: list[str]) -> pytest.MarkDecorator:
    """Every rule on every backend, and each of the two on either side; the whole product is slow."""
    cases = []
    for row, text in enumerate(texts):
        for column, backend in enumerate(BACKENDS):
            for number, side in enumerate(("none", "left")):
                marks = pytest.mark.slow if (row + column + number) % 2 else ()
                cases.append(pytest.param(text, backend, side, marks=marks))
    return pytest.mark.parametrize(("text", "backend", "side"), cases)


@each_case(TEXTS)
def test_each_rule_across(text, backend, side):
    check(backend, side, {"cross_mask": text})


@each_case(TEXTS_OF_EITHER_SIDE)
def test_each_rule_in_the_decoder(text, backend, side):
    check(backend, side, {"decoder_mask": f"causal() & ({text})"})


@pytest.mark.parametrize("text", TEXTS_OF_EITHER_SIDE)
def test_each_rule_in_the_encoder(text):
    """The source is encoded at once; what depends on its mask is each step that reads it."""
    check("blockwise", "left", {"encoder_mask": text})


@pytest.mark.parametrize("backend", ["eager", "sdpa", "blockwise"])
@settings(randomised, max_examples=12, derandomize=True)
@given(st.data())
def test_expressions_of_rules_in_all_scopes(backend, data):
    side = data.draw(st.sampled_from(["none", "left", "right"]))
    encoder, decoder, cross = (data.draw(expressions) for _ in range(3))
    never = ~masks.full()
    assume(never not in (encoder, decoder & masks.causal(), cross))
    check(backend, side, {"encoder_mask": encoder, "decoder_mask": decoder & masks.causal(), "cross_mask": cross})


@pytest.mark.parametrize("backend", ["eager", "blockwise"])
@pytest.mark.parametrize("text", TEXTS_OF_EITHER_SIDE)
@torch.no_grad()
def test_generation_does_not_depend_on_the_neighbours(text, backend):
    """A text alone, beside a shorter one, with and without cache, and in one beam: the same tokens."""
    model, batch = tiny_model(backend), batch_of("right")
    masked = {"cross_mask": text, "decoder_mask": f"causal() & ({text})"}
    settings = {**masked, "max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    together = model.generate(**source, **settings)
    assert model.generate(**source, **settings, use_cache=False).equal(together)
    assert model.generate(**source, **settings, cache_implementation="static", disable_compile=True).equal(together)
    assert model.generate(batch["input_ids"][:1], **settings)[0].equal(together[0])
    assert model.generate(batch["input_ids"][1:, : S - 2], **settings)[0].equal(together[1])
