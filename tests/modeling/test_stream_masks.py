"""Masks that speak of single tokens and examples, in streams: right before those have come, held to what came."""

import random

import pytest
import torch
from small_models import END, pad, small_model, tokens

from crossmask import masks

NEW = 9
BASE = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}
SOURCES = [[*tokens(n - 1, seed=n).tolist(), END] for n in (5, 8, 3)]
SPANS = {
    "keep": ([[(0, 2)], [(1, 3), (5, 8)], [(2, 3)]], masks.keep),
    "drop": ([[(1, 2)], [(0, 1), (4, 8)], []], masks.drop),
    "blind": ([[(1, 3)], [(2, 4)], [(0, 1)]], masks.blind),
}
points = [[min(q, length - 1) for q in range(NEW)] for length in (5, 8, 3)]


def model_of(seed: int = 2, **fields):
    return small_model(seed, tie_word_embeddings=False, **{**BASE, **fields})


def offline(model, source: list[int], **options) -> list[int]:
    out = model.generate(torch.tensor([source]), do_sample=False, max_new_tokens=NEW, **options)
    return out[0, 1:].tolist()


def per_example(kind: str) -> tuple[dict, list[dict]]:
    """The masks of all streams, and those that each would have alone."""
    if kind == "alignment":
        return (
            {"cross_mask": masks.alignment(examples=points, width=1)},
            [{"cross_mask": masks.alignment(tuple(row), width=1)} for row in points],
        )
    spans, build = SPANS[kind]
    names = ("encoder_mask", "cross_mask") if kind == "blind" else ("cross_mask",)
    together, alone = build(examples=spans), [build(*row) for row in spans]
    return dict.fromkeys(names, together), [dict.fromkeys(names, mask) for mask in alone]


@pytest.mark.parametrize("kind", [*SPANS, "alignment"])
@torch.no_grad()
def test_each_stream_has_its_own_mask(kind):
    """In whatever portions tokens come; as in a batch of generate(), and as each stream alone."""
    model = model_of()
    given, alone = per_example(kind)
    expected = [offline(model, source, **own) for source, own in zip(SOURCES, alone, strict=True)]
    ids, attention_mask = pad([torch.tensor(source) for source in SOURCES], "left")
    batch = model.generate(ids, attention_mask=attention_mask, do_sample=False, max_new_tokens=NEW, **given)[:, 1:]
    assert [row[: len(own)] for row, own in zip(batch.tolist(), expected, strict=True)] == expected
    assert expected != [offline(model, source) for source in SOURCES]
    for source, own, wanted in zip(SOURCES, alone, expected, strict=True):
        assert list(model.stream(source, max_new_tokens=NEW, **own)) == wanted
    for seed in range(3):
        rng, left = random.Random(seed), [list(source) for source in SOURCES]
        stream = model.open_stream(3, max_new_tokens=NEW, **given)
        while not all(stream.finished):
            sizes = [rng.randint(0, 2) for _ in left]
            pushed = [[row.pop(0) for _ in range(min(size, len(row)))] for row, size in zip(left, sizes, strict=True)]
            stream.push(pushed, ended=[not row for row in left])
        assert stream.targets == expected


@torch.no_grad()
def test_spans_of_the_encoder_that_have_not_come_yet():
    model, source = model_of(), SOURCES[1]
    for given in ({"encoder_mask": "drop((2, 7))"}, {"encoder_mask": "~prefix(3) | window(0)"}):
        assert list(model.stream(source, max_new_tokens=NEW, **given)) == offline(model, source, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"cross_mask": "keep((0, 6))"},
            "cross_mask: keep: a span must end within the 5 tokens to attend to, got a span that ends at 6",
        ),
        (
            {"cross_mask": "drop((1, 9))"},
            "cross_mask: keep: a span must end within the 5 tokens to attend to, got a span that ends at 9",
        ),
        (
            {"encoder_mask": "drop((5, 6))"},
            "encoder_mask: keep: a span must end within the 5 tokens to attend to, got a span that ends at 6",
        ),
        (
            {"encoder_mask": "blind((4, 6))", "cross_mask": "blind((4, 6))"},
            "encoder_mask: blind: a span must end within the 5 tokens to attend to, got a span that ends at 6",
        ),
        (
            {"cross_mask": masks.alignment((0, 1, 2, 5) * 3)},
            "cross_mask: alignment: a point must be inside of the source, which has 5 tokens, got 5",
        ),
    ],
    ids=str,
)
@torch.no_grad()
def test_a_source_that_ends_before_a_span_is_refused_as_offline(given, message):
    """Where it ends, and no sooner; the tokens are not taken, so a stream may go on."""
    model, source = model_of(), SOURCES[0]
    with pytest.raises(masks.MaskError) as error:
        offline(model, source, **given)
    assert message in str(error.value)
    stream = model.open_stream(2, max_new_tokens=NEW, eos_token_id=None, **given)
    stream.push([source[:2], source[:4]])
    with pytest.raises(masks.MaskError) as error:
        stream.push([source[2:], [2]], ended=True)
    assert message in str(error.value)
    assert (stream.arrived, stream.ended) == ([source[:2], source[:4]], [False, False])
    stream.push([tokens(7).tolist()] * 2, ended=True)
    assert all(stream.finished)


@torch.no_grad()
def test_one_of_several_sources_ends_before_its_span():
    stream = model_of().open_stream(2, cross_mask=masks.keep(examples=[[(0, 2)], [(0, 4)]]))
    stream.push([[5, 2], [5]], ended=[True, False])
    with pytest.raises(
        masks.MaskError,
        match="cross_mask: keep: a span must end within the 3 tokens to attend to, got a span that ends at 4",
    ):
        stream.push([[], [6, 2]], ended=[True, True])
    stream.push([[], [6, 7, 2]], ended=True)


@torch.no_grad()
def test_a_stream_that_stops_before_its_source_ends():
    """It never asks for the tokens that it did not read."""
    model, source = model_of(), SOURCES[1]
    given = {"cross_mask": masks.keep((0, 2), (7, 8)), "max_new_tokens": NEW}
    first = next(model.stream(source, eos_token_id=None, **given))
    stream = model.open_stream(2, eos_token_id=first, **given)
    written = stream.push([source[:3], source[:1]])
    assert (written, stream.finished) == ([[first], []], [True, False])
    stream.push([[], source[1:]], ended=True)
    assert stream.targets == [[first]] * 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"cross_mask": masks.keep(examples=[[(0, 1)]] * 3)},
            "cross_mask: keep: examples must have a tuple for each of the 2 examples of the batch, got 3",
        ),
        (
            {"encoder_mask": masks.drop(examples=[[]] * 4)},
            "encoder_mask: keep: examples must have a tuple for each of the 2 examples of the batch, got 4",
        ),
        (
            {"cross_mask": masks.alignment(examples=[(0, 1)] * 3)},
            "alignment: examples must have a tuple for each of the 2 examples of the batch, got 3",
        ),
        (
            {"cross_mask": "keep((0, 65))"},
            "cross_mask: keep: a span must end within the 64 tokens to attend to, got a span that ends at 65",
        ),
        (
            {"cross_mask": masks.alignment((0, 64))},
            "a point must be inside of the source, which has 64 tokens, got 64",
        ),
        (
            {"encoder_mask": "heads({5: window(3), 'rest': causal()})"},
            "a head must be a number from 0 to 3, since there are 4, got head 5",
        ),
        ({"cross_mask": "keep(passages=(1,))"}, "a passage must be from 0 to 0, as in the batch, got 1"),
        ({"cross_mask": "blind((0, 1))"}, "encoder_mask must have blind((0, 1)) in every layer and head"),
        ({"encoder_mask": "blind((0, 1))"}, "cross_mask must have blind((0, 1)) in every layer and head"),
    ],
    ids=str,
)
def test_what_can_never_fit_is_refused_at_once(given, message):
    with pytest.raises(masks.MaskError) as error:
        model_of().open_stream(2, **given)
    assert message in str(error.value)


@torch.no_grad()
def test_an_alignment_that_is_shorter_than_the_target():
    model, given = model_of(), {"cross_mask": masks.alignment((0, 1, 2), width=1), "eos_token_id": None}
    for call in (
        lambda: offline(model, SOURCES[0], **given),
        lambda: list(model.stream(SOURCES[0], max_new_tokens=NEW, **given)),
    ):
        with pytest.raises(
            masks.MaskError, match="cross_mask: alignment: there must be a point for each of 4 target positions, got 3"
        ):
            call()
    assert len(list(model.stream(SOURCES[0], max_new_tokens=3, **given))) == 3
    several = {"cross_mask": masks.alignment(examples=[(0, 1, 2, 2), (0, 1)]), "eos_token_id": None}
    with pytest.raises(masks.MaskError, match="a point for each of 3 target positions, got 2"):
        list(model.stream_batch([SOURCES[0], SOURCES[2]], max_new_tokens=4, **several))


@pytest.mark.parametrize("attention", ["eager", "sdpa", "blockwise"])
@torch.no_grad()
def test_a_stream_is_blind_to_the_bit(attention):
    """Logits, tokens and delays, whatever stands under the spans, in streams that go at paces of their own."""
    given, _ = per_example("blind")
    seen = []
    for change in (0, 11):
        model, logits = model_of(attention=attention), []
        model.lm_head.register_forward_hook(lambda module, args, output, kept=logits: kept.append(output))
        left = [list(source) for source in SOURCES]
        for row, spans in zip(left, SPANS["blind"][0], strict=True):
            for first, last in spans:
                row[first:last] = [(token - 4 + change) % 36 + 4 for token in row[first:last]]
        stream = model.open_stream(3, max_new_tokens=NEW, eos_token_id=None, **given)
        rng = random.Random(3)
        while not all(stream.finished):
            pushed = [[row.pop(0) for _ in range(min(rng.randint(0, 2), len(row)))] for row in left]
            stream.push(pushed, ended=[not row for row in left])
        seen.append((stream.arrived, stream.targets, stream.delays, torch.stack(logits)))
    (one, *tokens_one, logits_one), (other, *tokens_other, logits_other) = seen
    assert one != other
    assert tokens_one == tokens_other
    assert torch.equal(logits_one, logits_other)
