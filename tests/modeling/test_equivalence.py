"""One result, whatever the form: alone, padded, packed, step by step with a cache, in beams."""

from functools import cache

import pytest
import torch
from mask_cases import tiny_model, tokens
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

RULES = ["full()", "causal()", "window(1)", "window(left=2, right=0)", "wait_k(2)", "prefix(2)", "blocks(2)"]
MIXED = ["~causal()", "causal() | prefix(2)", "wait_k(2) & window(left=1, right=9)", "~(blocks(2) | prefix(1))"]
SCOPES = {
    **{f"encoder {text}": {"encoder_mask": text} for text in RULES + MIXED},
    **{f"decoder {text}": {"decoder_mask": f"causal() & ({text})"} for text in RULES[:1] + RULES[2:] + MIXED[1:]},
    **{f"cross {text}": {"cross_mask": text} for text in RULES + MIXED},
    "all scopes": {
        "encoder_mask": "causal() & window(3)",
        "decoder_mask": "causal() & ~prefix(1) | blocks(1)",
        "cross_mask": "wait_k(2) & ~prefix(1)",
    },
    "layers": {
        "encoder_mask": {"0": "window(1)", "rest": "full()"},
        "decoder_mask": {"0": "causal()", "1": "causal() & window(2)"},
        "cross_mask": {"0": "wait_k(1)", "1": "prefix(3)"},
    },
    "memory": {"memory_length": 3, "encoder_mask": "window(2)"},
    "additive": {"cross_attention_score": "additive", "cross_mask": "wait_k(2)"},
    "factorised, untied": {"embedding_size": 12, "embedding_act": "gelu", "tie_word_embeddings": False},
}
# Sharp attention (initializer_range=0.5) magnifies rounding; a leak is a thousand times as large still.
SHARP = 2e-4
SOURCES, TARGETS = (5, 2, 7), (4, 6, 1)

each_scope = pytest.mark.parametrize("options", SCOPES.values(), ids=SCOPES.keys())


def each_scope_on(names: str, first: tuple, *others: tuple) -> pytest.MarkDecorator:
    """Every scope with the first values and with those of the others in turn; the whole product is slow."""
    cases = []
    for number, (scope, options) in enumerate(SCOPES.items()):
        for index, values in enumerate((first, *others), start=-1):
            marks = pytest.mark.slow if index >= 0 and number % len(others) != index else ()
            cases.append(pytest.param(options, *values, marks=marks, id="-".join(map(str, (scope, *values)))))
    return pytest.mark.parametrize(f"options, {names}", cases)


# generate() takes a hundred times as long as a pass: the masks that differ most.
TELLING = [name for name in SCOPES if " " not in name or "&" in name or "~causal" in name or "scopes" in name]
telling_scopes = pytest.mark.parametrize("options", [SCOPES[name] for name in TELLING], ids=TELLING)


@cache
def examples() -> list[tuple[torch.Tensor, torch.Tensor]]:
    pairs = enumerate(zip(SOURCES, TARGETS, strict=True))
    return [(tokens(1, s, seed=i), tokens(1, t, seed=9 + i)) for i, (s, t) in pairs]


def pad(rows: list[torch.Tensor], value: int, side: str) -> torch.Tensor:
    """(1, L) rows to (B, longest L)."""
    longest = max(row.shape[1] for row in rows)
    widths = [longest - row.shape[1] for row in rows]
    pads = [(0, width) if side == "right" else (width, 0) for width in widths]
    return torch.cat([torch.nn.functional.pad(row, p, value=value) for row, p in zip(rows, pads, strict=True)])


def padded(model, side: str) -> dict[str, torch.Tensor]:
    sources, targets = zip(*examples(), strict=True)
    inputs = [model.prepare_decoder_input_ids_from_labels(target) for target in targets]
    return {
        "input_ids": pad(sources, 0, side),
        "attention_mask": pad([torch.ones_like(row) for row in sources], 0, side),
        "decoder_input_ids": pad(inputs, 0, side),
        "decoder_attention_mask": pad([torch.ones_like(row) for row in inputs], 0, side),
        "labels": pad(targets, -100, side),
    }


def packed(model, order: str) -> dict[str, torch.Tensor]:
    """All examples in one row with padding behind them; shuffled, tokens of one example keep their order."""
    sources, targets = zip(*examples(), strict=True)
    inputs = [model.prepare_decoder_input_ids_from_labels(target) for target in targets]
    nothing = torch.zeros(1, 2, dtype=torch.long)

    def segments(rows):
        return torch.cat([torch.full_like(row, i + 1) for i, row in enumerate(rows)] + [nothing], dim=1)

    batch = {
        "input_ids": torch.cat([*sources, nothing], dim=1),
        "segment_ids": segments(sources),
        "decoder_input_ids": torch.cat([*inputs, nothing], dim=1),
        "decoder_segment_ids": segments(inputs),
        "labels": torch.cat([*targets, nothing - 100], dim=1),
    }
    if order == "shuffled":
        for ids, *others in (("segment_ids", "input_ids"), ("decoder_segment_ids", "decoder_input_ids", "labels")):
            mixed = batch[ids][:, torch.randperm(batch[ids].shape[1], generator=torch.Generator().manual_seed(3))]
            home = mixed.argsort(dim=1, stable=True).argsort(dim=1)
            # The packed row has its padding last, a stable sort has it first.
            by_segment = batch[ids].argsort(dim=1, stable=True)
            for name in (ids, *others):
                batch[name] = batch[name].gather(1, by_segment).gather(1, home)
            assert batch[ids].equal(mixed)
    return batch


def result(model, batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Loss over all labels, gradients of every parameter, and logits where a label counts, example by example."""
    model.zero_grad(set_to_none=True)
    losses, logits = [], []
    for batch in batches:
        output = model(**batch, num_items_in_batch=torch.tensor(sum(TARGETS)))
        output.loss.backward()
        losses.append(output.loss.detach())
        segments = batch.get("decoder_segment_ids")
        counts = batch["labels"] != -100
        if segments is None:
            logits.append(output.logits[counts].detach())
        else:
            logits += [output.logits[segments == i].detach() for i in range(1, len(TARGETS) + 1)]
    grads = {name: p.grad for name, p in model.named_parameters()}
    missing = [name for name, grad in grads.items() if grad is None]
    assert not missing, f"no gradient for {missing}"
    return {"loss": sum(losses), "logits": torch.cat(logits), **grads}


def assert_same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    """Equal, relative to each tensor's own scale."""
    for name, value in wanted.items():
        scale = value.abs().max().clamp(min=1e-6)
        error = ((got[name] - value).abs().max() / scale).item()
        assert error <= tolerance, f"{name} differs by {error:.1e} of its scale"


@each_scope_on("backend, initializer_range", ("eager", 0.5), ("sdpa", 0.02), ("blockwise", 0.02))
def test_padded_and_packed_equal_alone(options, backend, initializer_range):
    model = tiny_model(backend, **{"initializer_range": initializer_range, **options})
    alone = result(model, [{"input_ids": source, "labels": target} for source, target in examples()])
    assert alone["logits"].std() > 1e-3 * initializer_range
    tolerance = 2e-5 if initializer_range < 0.1 else SHARP
    for batch in (padded(model, "right"), padded(model, "left"), packed(model, "in turn"), packed(model, "shuffled")):
        assert_same(result(model, [batch]), alone, tolerance)


@each_scope
def test_backends_agree(options):
    model = tiny_model("eager", **options)
    eager = result(model, [padded(model, "left")])
    model.set_attn_implementation("sdpa")
    assert_same(result(model, [padded(model, "left")]), eager, SHARP)


def test_rows_of_a_packed_batch_may_hold_different_numbers_of_examples():
    for options in ({}, {"memory_length": 2}):
        model = tiny_model(**options)
        (first, _), (second, _), (third, _) = examples()
        targets = [tokens(1, 3, seed=i) for i in range(3)]
        alone = [
            model(input_ids=s, decoder_input_ids=t).logits
            for s, t in zip((first, second, third), targets, strict=True)
        ]
        together = model(
            input_ids=torch.cat([torch.cat([first, second], dim=1), third], dim=0),
            segment_ids=torch.tensor([[1] * 5 + [2] * 2, [1] * 7]),
            decoder_input_ids=torch.cat([torch.cat(targets[:2], dim=1), torch.cat([targets[2]] * 2, dim=1)]),
            decoder_segment_ids=torch.tensor([[1, 1, 1, 2, 2, 2], [1, 1, 1, 0, 0, 0]]),
        ).logits
        got = [together[:1, :3], together[:1, 3:], together[1:, :3]]
        for one, expected in zip(got, alone, strict=True):
            torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-5)


def test_segment_numbers_have_no_meaning():
    model = tiny_model(decoder_mask="causal()", cross_mask="wait_k(2)")
    batch = packed(model, "in turn")
    wanted = model(**batch).loss
    renumbered = torch.tensor([0, 5, 1, 9])
    for name in ("segment_ids", "decoder_segment_ids"):
        batch[name] = renumbered[batch[name]]
    torch.testing.assert_close(model(**batch).loss, wanted, atol=1e-6, rtol=1e-6)


def new_cache(model, kind: str) -> EncoderDecoderCache:
    if kind == "dynamic":
        return EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache())
    return EncoderDecoderCache(
        StaticCache(config=model.config, max_cache_len=9), StaticCache(config=model.config, max_cache_len=max(SOURCES))
    )


@each_scope_on(
    "backend, kind, side", ("eager", "dynamic", "left"), ("sdpa", "dynamic", "right"), ("sdpa", "static", "left")
)
@torch.no_grad()
def test_step_by_step_equals_at_once(options, backend, kind, side):
    model = tiny_model(backend, **options)
    batch = padded(model, side)
    batch.pop("labels")
    at_once = model(**batch).logits
    kept = batch["decoder_attention_mask"].bool()
    ids, target_mask = batch.pop("decoder_input_ids"), batch.pop("decoder_attention_mask")
    encoded = model.get_encoder()(input_ids=batch.pop("input_ids"), attention_mask=batch["attention_mask"])
    if kind == "static" and model.config.memory_length:
        pytest.skip("a static cross cache of another length than the source is made by generate()")
    for chunks in ([1] * 6, [3, 1, 2]):
        past, logits, start = new_cache(model, kind), [], 0
        for size in chunks:
            end = start + size
            output = model(
                **batch,
                encoder_outputs=encoded,
                decoder_input_ids=ids[:, start:end],
                decoder_attention_mask=target_mask[:, :end],
                past_key_values=past,
                use_cache=True,
            )
            logits.append(output.logits)
            start = end
        assert_same({"logits": torch.cat(logits, dim=1)[kept]}, {"logits": at_once[kept]})


def greedy(model, batch: dict, steps: int) -> torch.Tensor:
    """(B, 1 + steps) tokens by the most obvious loop: a whole forward pass for each."""
    ids = torch.full((len(batch["input_ids"]), 1), model.config.decoder_start_token_id)
    for _ in range(steps):
        logits = model(**batch, decoder_input_ids=ids).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids


@pytest.mark.parametrize(("backend", "side"), [("eager", "left"), ("sdpa", "right")])
@telling_scopes
@torch.no_grad()
def test_generated_tokens_are_those_of_whole_passes(options, backend, side):
    model = tiny_model(backend, eos_token_id=None, **options)
    model.generation_config.pad_token_id = 0
    batch = {name: padded(model, side)[name] for name in ("input_ids", "attention_mask")}
    expected = greedy(model, batch, 5)
    settings = {"max_new_tokens": 5, "do_sample": False}
    assert model.generate(**batch, **settings).equal(expected)
    assert model.generate(**batch, **settings, use_cache=False).equal(expected)
    assert model.generate(**batch, **settings, cache_implementation="static").equal(expected)
    for row, (source, _) in zip(expected, examples(), strict=True):
        assert model.generate(source, **settings)[0].equal(row)


@pytest.mark.parametrize("implementation", [None, "static"])
@telling_scopes
@torch.no_grad()
def test_beam_scores_are_those_of_whole_passes(options, implementation):
    model = tiny_model("sdpa", eos_token_id=None, **{"initializer_range": 0.1, **options})
    batch = {name: padded(model, "left")[name] for name in ("input_ids", "attention_mask")}
    output = model.generate(
        **batch,
        max_new_tokens=5,
        num_beams=3,
        num_return_sequences=3,
        do_sample=False,
        length_penalty=0.0,
        output_scores=True,
        return_dict_in_generate=True,
        cache_implementation=implementation,
    )
    repeated = {name: value.repeat_interleave(3, dim=0) for name, value in batch.items()}
    logits = model(**repeated, decoder_input_ids=output.sequences[:, :-1]).logits
    chosen = logits.log_softmax(-1).gather(-1, output.sequences[:, 1:, None]).squeeze(-1).sum(-1)
    torch.testing.assert_close(output.sequences_scores, chosen, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("target_mask", [[[0, 0, 1], [1, 1, 1]], [[1, 1, 1], [0, 1, 1]]])
@telling_scopes
@torch.no_grad()
def test_prefixes_of_several_lengths(options, target_mask):
    """Left-padded decoder prefixes go on as each of them does alone."""
    model = tiny_model("sdpa", eos_token_id=None, **options)
    target_mask = torch.tensor(target_mask)
    prefixes = tokens(2, 3, seed=5).masked_fill(target_mask == 0, 0)
    sources = torch.cat([tokens(1, 5), tokens(1, 5, seed=1)])
    settings = {"max_new_tokens": 5, "do_sample": False}
    together = model.generate(sources, decoder_input_ids=prefixes, decoder_attention_mask=target_mask, **settings)[
        :, -5:
    ]
    for source, prefix, mask, got in zip(sources, prefixes, target_mask, together, strict=True):
        alone = model.generate(source[None], decoder_input_ids=prefix[mask.bool()][None], **settings)[0]
        assert got.equal(alone[-5:])
