"""A stream says what `generate()` says of the whole source, sooner, and computes nothing twice."""

import random

import pytest
import torch
from small_models import END, pad, small_model, tokens

from crossmask.masks import causal, full, window
from crossmask.seq2seq.simultaneous.lookahead import ClosedPrefixes, Frontier
from crossmask.seq2seq.simultaneous.policies import AlignAtt, Policy, ReadAll

NEW = 9
MASKS = {
    "wait-1": {"encoder_mask": "causal()", "cross_mask": "wait_k(1)"},
    "wait-3": {"encoder_mask": "causal()", "cross_mask": "wait_k(3)"},
    "longer than any source": {"encoder_mask": "causal()", "cross_mask": "wait_k(30)"},
    "local": {
        "encoder_mask": "window(left=3, right=0)",
        "decoder_mask": "causal() & window(4)",
        "cross_mask": "wait_k(2) & window(left=3, right=9)",
    },
    "blocks": {"encoder_mask": "blocks(3) | causal()", "cross_mask": "wait_k(2)"},
    "chunks": {"encoder_mask": "chunked(2, 1)", "cross_mask": "monotonic(1.0, 2)"},
    "by head": {
        "encoder_mask": 'heads({0: "window(left=2, right=0)", "rest": "causal()"})',
        "cross_mask": 'heads({0: "wait_k(4)", "rest": "wait_k(1)"})',
    },
    "header": {"encoder_mask": "causal() | prefix(4)", "cross_mask": "wait_k(1) | prefix(3)"},
    "by layer": {
        "encoder_mask": {"0": "blocks(2)", "1": "causal()"},
        "cross_mask": {"0": "wait_k(4)", "rest": "wait_k(1)"},
    },
}
every_mask = pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS.keys())


def model_of(seed: int = 0, **fields):
    """Untied, so that outputs vary."""
    return small_model(seed, tie_word_embeddings=False, **fields)


def sources(lengths, seed: int = 0) -> list[list[int]]:
    return [[*tokens(n - 1, seed=seed + i).tolist(), END] for i, n in enumerate(lengths)]


def offline(model, source: list[int], **options) -> list[int]:
    out = model.generate(torch.tensor([source]), **{"do_sample": False, "max_new_tokens": NEW, **options})
    return out[0, 1:].tolist()


@every_mask
@torch.no_grad()
def test_a_stream_is_offline_greedy_decoding(masks):
    kinds = set()
    for seed, length in enumerate((1, 2, 3, 7, 11)):
        model, [source] = model_of(seed, **masks), sources([length], seed)
        expected = offline(model, source)
        assert list(model.stream(iter(source), max_new_tokens=NEW)) == expected
        kinds |= set(expected)
    assert len(kinds) > 5


@every_mask
@torch.no_grad()
def test_batches_of_several_lengths(masks):
    model, batch = model_of(4, **masks), sources([5, 1, 9, 2])
    streamed = [[] for _ in batch]
    for row, token in model.stream_batch(batch, max_new_tokens=NEW):
        streamed[row].append(token)
    assert streamed == [offline(model, source) for source in batch]
    ids, attention_mask = pad([torch.tensor(source) for source in batch], "left")
    together = model.generate(ids, attention_mask=attention_mask, do_sample=False, max_new_tokens=NEW)[:, 1:]
    assert [row[: len(tokens)] for row, tokens in zip(together.tolist(), streamed, strict=True)] == streamed


@every_mask
@torch.no_grad()
def test_tokens_that_arrive_in_any_portions(masks):
    """Streams that run ahead of one another leave holes, which are removed."""
    model, compacted = model_of(2, **masks), 0
    for seed in range(2):
        rng = random.Random(seed)
        batch = sources([rng.randint(1, 11) for _ in range(3)], seed)
        stream, left = model.open_stream(3, max_new_tokens=NEW), [list(source) for source in batch]
        written = [[] for _ in batch]
        while not all(stream.finished):
            favourite = rng.randrange(3)
            sizes = [rng.randint(1, 3) * (row == favourite) for row in range(3)]
            pushed = [[row.pop(0) for _ in range(min(size, len(row)))] for row, size in zip(left, sizes, strict=True)]
            for row, new in enumerate(stream.push(pushed, ended=[not row for row in left])):
                written[row] += new
        assert written == stream.targets == [offline(model, source) for source in batch]
        compacted += stream.target.filled.shape[1] < sum(map(len, written))
    assert compacted


@torch.no_grad()
def test_masks_of_the_call():
    model, [source] = model_of(3), sources([9])
    masks = {"encoder_mask": causal(), "decoder_mask": "window(3)", "cross_mask": "wait_k(2)"}
    assert list(model.stream(source, max_new_tokens=NEW, **masks)) == offline(model, source, **masks)
    assert offline(model, source, **masks) != offline(model, source)


@torch.no_grad()
def test_end_of_sequence_in_the_middle():
    model, batch = model_of(2, encoder_mask="causal()", cross_mask="wait_k(2)"), sources([9, 4, 12])
    plain = [offline(model, source, eos_token_id=None) for source in batch]
    end = next(t for t in plain[0][1:-2] if t != plain[0][0])
    stream = model.open_stream(3, max_new_tokens=NEW, eos_token_id=[end, END])
    read = 0
    while not all(stream.finished):
        stream.push([source[read : read + 1] for source in batch], ended=[read >= len(source) for source in batch])
        read += 1
    assert stream.targets == [offline(model, source, eos_token_id=[end, END]) for source in batch]
    assert stream.targets[0][-1] == end
    assert len(stream.targets[0]) < NEW


@torch.no_grad()
def test_options_of_generation():
    model, [source] = model_of(1, encoder_mask="causal()", cross_mask="wait_k(2)"), sources([8])
    for options in (
        {},
        {"max_length": 6},
        {"min_new_tokens": 5},
        {"repetition_penalty": 3.0, "no_repeat_ngram_size": 2},
    ):
        expected = model.generate(torch.tensor([source]), do_sample=False, **options)[0, 1:].tolist()
        assert list(model.stream(source, **options)) == expected
    model.generation_config.update(max_new_tokens=4, num_beams=3)
    assert len(list(model.stream(source, eos_token_id=None))) == 4


@torch.no_grad()
def test_each_target_token_comes_as_soon_as_it_can():
    model, [source] = model_of(encoder_mask="causal()", cross_mask="wait_k(3)"), sources([6])
    asked = []

    def arriving():
        for token in source:
            asked.append(token)
            yield token

    stream = model.stream(arriving(), max_new_tokens=NEW, eos_token_id=None)
    assert [(next(stream), len(asked))[1] for _ in range(NEW)] == [3, 4, 5, 6, *[6] * (NEW - 4)]
    opened = model.open_stream(max_new_tokens=NEW, eos_token_id=None)
    for token in source:
        opened.push([[token]])
    opened.push([[]], ended=True)
    assert opened.delays == [[3, 4, 5, 6, *[6] * (NEW - 4)]]


@torch.no_grad()
def test_blocks_are_encoded_when_they_are_whole():
    model, [source] = model_of(encoder_mask="blocks(4) | causal()", cross_mask="wait_k(1)"), sources([6])
    stream = model.open_stream(max_new_tokens=NEW, eos_token_id=None)
    counts = [len(stream.push([[token]])[0]) for token in source]
    assert counts == [0, 0, 0, 4, 0, 0]
    assert len(stream.push([[]], ended=True)[0]) == NEW - 4


@pytest.mark.parametrize("batch", [1, 4])
@torch.no_grad()
def test_nothing_is_computed_twice(batch):
    model = model_of(encoder_mask="causal()", cross_mask="wait_k(3)")
    sizes = {"encoder": 0, "decoder": 0, "source keys": 0}

    def count(name):
        def hook(module, args, output):
            sizes[name] += args[0].shape[0] * args[0].shape[1]

        return hook

    model.model.encoder.layers[1].register_forward_hook(count("encoder"))
    model.model.decoder.layers[1].register_forward_hook(count("decoder"))
    model.model.decoder.layers[1].cross_attn.k_proj.register_forward_hook(count("source keys"))
    list(model.stream_batch(sources([9] * batch), max_new_tokens=NEW, eos_token_id=None))
    assert sizes == {"encoder": 9 * batch, "decoder": NEW * batch, "source keys": 9 * batch}


@torch.no_grad()
def test_the_encoder_goes_on_from_its_cache():
    from transformers.cache_utils import DynamicCache

    encoder = model_of(encoder_mask="causal() & window(5)").get_encoder()
    ids, attention_mask = pad([tokens(9, seed=1), tokens(6, seed=2)], "left")
    whole = encoder(input_ids=ids, attention_mask=attention_mask).last_hidden_state
    cache, read, pieces = DynamicCache(), 0, []
    for size in (4, 1, 3, 1):
        read += size
        piece = encoder(
            input_ids=ids[:, read - size : read], attention_mask=attention_mask[:, :read], past_key_values=cache
        )
        pieces.append(piece.last_hidden_state)
    together = torch.cat(pieces, dim=1)
    torch.testing.assert_close(together * attention_mask[..., None], whole * attention_mask[..., None])


LOOK_AHEAD = {
    "full": ({}, r"encoder_mask full\(\) looks ahead.*causal\(\)"),
    "a step ahead": ({"encoder_mask": "window(2)"}, r"encoder_mask window\(left=2\) looks ahead"),
    "one layer": ({"encoder_mask": {"0": "causal()", "1": "full()"}}, r"encoder_mask full\(\) looks ahead"),
    "cross": ({"encoder_mask": "causal()"}, r"cross_mask full\(\) lets the first target token.*wait_k\(3\)"),
    "memory": ({"memory_length": 3, "encoder_mask": "causal()"}, "memory_length must be None, got 3"),
}


@pytest.mark.parametrize(("fields", "message"), LOOK_AHEAD.values(), ids=LOOK_AHEAD.keys())
def test_masks_that_look_ahead_are_refused_at_once(fields, message):
    with pytest.raises(ValueError, match=message):
        model_of(**fields).stream(iter([5, 2]))


def test_misuse_is_named():
    model = model_of(encoder_mask="causal()", cross_mask="wait_k(2)")
    for options, message in (
        ({"num_beams": 4}, "num_beams=4"),
        ({"do_sample": True}, "greedily"),
        ({"max_tokens": 4}, "no option 'max_tokens'"),
        ({"policy": 3}, "policy must be"),
        ({"cross_mask": torch.ones(1, 4, 4, dtype=torch.bool)}, "cross_mask: .* give a rule"),
        ({"policy": AlignAtt(2, layer=5)}, "no decoder layer 5"),
    ):
        with pytest.raises(ValueError, match=message):
            small_model(attention="eager", encoder_mask="causal()", cross_mask="wait_k(2)").stream([5, 2], **options)
    with pytest.raises(ValueError, match=r'AlignAtt\(f=2.*sdpa.*set_attn_implementation\("eager"\)'):
        small_model(attention="sdpa", encoder_mask="causal()").stream([5, 2], policy=AlignAtt(2))
    with pytest.raises(ValueError, match="f must be an integer"):
        AlignAtt(-1)
    stream = model.open_stream(2)
    with pytest.raises(ValueError, match="stream 1 ended without a token"):
        stream.push([[5], []], ended=True)
    with pytest.raises(ValueError, match="1 lists of tokens and 2 ends for 2 streams"):
        stream.push([[5]])
    with pytest.raises(
        ValueError, match="the source must have at most 64 tokens, which is what the model takes, got 65"
    ):
        stream.push([[5] * 65, [5]])
    stream = model.open_stream(max_new_tokens=2)
    stream.push([[5, 2]], ended=True)
    with pytest.raises(ValueError, match="stream 0 has ended"):
        stream.push([[5]])


def test_the_frontier_of_any_mask():
    assert [Frontier([causal(), window(1, 2)], keys=50)(q) for q in (0, 7, 40)] == [3, 10, 43]
    assert Frontier([full()], keys=50)(0) == 50
    assert Frontier([~full()], keys=50)(4) == 0
    closed = ClosedPrefixes(Frontier([causal()], keys=50))
    assert (closed.first(), closed.longest(7)) == (1, 7)
    assert ClosedPrefixes(Frontier([window(0, 1)], keys=50)).first() is None


class Hurried(Policy):
    """Writes a token for each that it reads, whatever the masks say."""

    def ready(self, written, read, needed):
        return written < read


@torch.no_grad()
def test_policies_of_all_kinds():
    model, [source] = model_of(encoder_mask="causal()"), sources([7])
    options = {"max_new_tokens": NEW, "eos_token_id": None}
    delays = {}
    for policy in (ReadAll(), Hurried()):
        stream = model.open_stream(policy=policy, **options)
        for index, token in enumerate(source):
            stream.push([[token]], ended=index == 6)
        delays[policy] = stream.delays[0]
        if policy == ReadAll():
            assert stream.targets == [offline(model, source, eos_token_id=None)]
    assert list(delays.values()) == [[7] * NEW, [1, 2, 3, 4, 5, 6, *[7] * (NEW - 6)]]


def align_att_by_hand(model, source: list[int], f: int, limit: int) -> list[tuple[int, int]]:
    """Each token with its delay. Without a cache: what was written saw the source that was there when it was."""
    written, rows = [], []
    for read in range(1, len(source) + 1):
        over = read == len(source)
        while len(written) < limit:
            mask = torch.zeros(len(rows) + 1, len(source), dtype=torch.bool)
            for index, seen in enumerate([*rows, read]):
                mask[index, :seen] = True
            out = model(
                input_ids=torch.tensor([source]),
                decoder_input_ids=torch.tensor([[1, *[token for token, _ in written]]]),
                cross_mask=mask[None],
                output_attentions=True,
            )
            attention = torch.stack(out.cross_attentions)[:, 0, :, -1].mean(dim=(0, 1))
            if not over and int(attention.argmax()) >= read - f:
                break
            written.append((int(out.logits[0, -1].argmax()), read))
            rows.append(read)
    return written


@pytest.mark.parametrize("f", [0, 1, 3])
@torch.no_grad()
def test_align_att_stops_near_the_frontier(f):
    model = model_of(1, attention="eager", encoder_mask="causal()")
    batch, delays = sources([10, 4, 13]), set()
    stream = model.open_stream(3, policy=AlignAtt(f), max_new_tokens=NEW, eos_token_id=None)
    for step in range(13):
        ended = [step + 1 >= len(source) for source in batch]
        stream.push([source[step : step + 1] for source in batch], ended=ended)
    for row, source in enumerate(batch):
        expected = align_att_by_hand(model, source, f, NEW)
        assert list(zip(stream.targets[row], stream.delays[row], strict=True)) == expected
        delays |= set(stream.delays[row])
    assert (len(delays) > 1) == (f > 0)


@torch.no_grad()
def test_a_saved_model_streams_without_the_package(tmp_path):
    """The stream's modules travel with the weights."""
    model = model_of(encoder_mask="causal()", cross_mask="wait_k(2)")
    model.save_pretrained(tmp_path)
    assert "class TranslationStream" in (tmp_path / "modeling_crossmask.py").read_text()
