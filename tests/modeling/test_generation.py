"""Every way of decoding gives what the plain forward pass says."""

import itertools

import pytest
import torch
from small_models import PAD, START, pad, small_model, tokens

from crossmask import masks
from crossmask.data.tokenizer_training import train_tokenizer

FIELDS = {
    "plain": {},
    "memory": {"memory_length": 3},
    "additive": {"cross_attention_score": "additive"},
    "factorised, untied": {"embedding_size": 8, "embedding_act": "relu", "tie_word_embeddings": False},
    "masks": {"encoder_mask": "causal()", "decoder_mask": "causal() & window(3)", "cross_mask": "wait_k(2)"},
}
every_model = pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS.keys())
NEW = 8


def steps(model, source: torch.Tensor, prefix: torch.Tensor, count: int = NEW, **given) -> torch.Tensor:
    """Greedy decoding by hand: a whole forward pass for each token, the end of sequence never chosen."""
    target = prefix
    for _ in range(count):
        logits = model(input_ids=source, decoder_input_ids=target, use_cache=False, **given).logits[:, -1]
        logits[:, model.config.eos_token_id] = -torch.inf
        target = torch.cat([target, logits.argmax(-1, keepdim=True)], dim=-1)
    return target


def generate(model, source: torch.Tensor, **options):
    lengths = {"min_new_tokens": NEW, "max_new_tokens": NEW}
    return model.generate(source, **{"do_sample": False, **lengths, **options})


@every_model
@torch.no_grad()
def test_greedy_with_each_cache(fields):
    model, source = small_model(**fields), tokens(3, 5)
    expected = steps(model, source, torch.full((3, 1), START))
    assert len(expected.unique()) > 3
    assert torch.equal(generate(model, source), expected)
    assert torch.equal(generate(model, source, use_cache=False), expected)
    assert torch.equal(generate(model, source, cache_implementation="static", disable_compile=True), expected)


@torch.no_grad()
def test_a_newest_token_that_sees_all_has_no_mask():
    """Where the decoder's mask is causal and nothing is padded, attention with a cache is not masked at all."""
    model, source, seen = small_model(), tokens(2, 5), []
    attention = model.get_decoder().layers[0].self_attn
    attention.register_forward_pre_hook(lambda module, args: seen.append(args[2]))
    generate(model, source)
    assert seen == [None] * NEW
    seen.clear()
    prefixes = torch.tensor([[PAD, START, 7], [START, 5, 6]])
    generate(model, source, decoder_input_ids=prefixes)
    assert [mask.shape[-1] for mask in seen] == [*range(3, 3 + NEW)]
    seen.clear()
    generate(model, source, decoder_mask="window(2)")
    assert None not in seen[1:]


@torch.no_grad()
def test_a_static_cache_hides_what_is_not_written():
    model, source = small_model(decoder_mask="full()"), tokens(2, 5)
    static = generate(model, source, cache_implementation="static", disable_compile=True)
    assert torch.equal(static, generate(model, source))


@every_model
@torch.no_grad()
def test_cached_logits_are_those_of_the_whole_pass(fields):
    model, source, target = small_model(**fields), tokens(2, 5), tokens(2, 7, seed=1)
    expected = model(input_ids=source, decoder_input_ids=target).logits
    cache, pieces = None, []
    for piece in target.split([3, 1, 2, 1], dim=1):
        out = model(input_ids=source, decoder_input_ids=piece, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        pieces.append(out.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_stops_at_the_end_of_sequence():
    model, source = small_model(), tokens(3, 5)
    plain = generate(model, source)
    end = int(plain[0, 4])
    stopped = generate(model, source, eos_token_id=end, min_new_tokens=0)
    kept = [row[: row.index(end) + 1] if end in row else row for row in plain.tolist()]
    assert [row[: len(k)] for row, k in zip(stopped.tolist(), kept, strict=True)] == kept
    assert all(set(row[len(k) :]) <= {PAD} for row, k in zip(stopped.tolist(), kept, strict=True))


@every_model
@torch.no_grad()
def test_beams_find_the_best_of_all(fields):
    """Over two steps, a beam for every word leaves nothing out, so brute force is the judge."""
    words, source = 12, tokens(2, 5, vocab_size=12)
    model = small_model(vocab_size=words, **fields)
    firsts, best = [word for word in range(words) if word != 2], []
    targets = torch.tensor([[START, first] for first in firsts])
    for row in source:
        logits = model(input_ids=row.expand(len(firsts), -1), decoder_input_ids=targets).logits
        logits[:, :, 2] = -torch.inf
        chances = logits.log_softmax(-1)
        scores = {
            (first, second): float(chances[index, 0, first] + chances[index, 1, second])
            for (index, first), second in itertools.product(enumerate(firsts), firsts)
        }
        best.append([START, *max(scores, key=scores.get)])
    options = {"min_new_tokens": 2, "max_new_tokens": 2, "num_beams": words - 1, "renormalize_logits": True}
    assert generate(model, source, **options).tolist() == best
    assert generate(model, source, use_cache=False, **options).tolist() == best


@every_model
@torch.no_grad()
def test_beams_do_not_mix_examples(fields):
    model = small_model(**fields)
    rows = [tokens(6, seed=1), tokens(3, seed=2), tokens(4, seed=3)]
    for side in ("left", "right"):
        source, attention_mask = pad(rows, side)
        for options in ({"num_beams": 3}, {"num_beams": 1}):
            together = generate(model, source, attention_mask=attention_mask, **options)
            for row, alone in enumerate(rows):
                assert torch.equal(together[row : row + 1], generate(model, alone[None], **options))


@every_model
@torch.no_grad()
def test_sampling(fields):
    model, source = small_model(**fields), tokens(2, 5)

    def sample(seed: int, **options) -> torch.Tensor:
        torch.manual_seed(seed)
        return generate(model, source, do_sample=True, temperature=3.0, top_k=0, num_return_sequences=3, **options)

    first = sample(0)
    assert first.shape == (6, NEW + 1)
    assert torch.equal(first, sample(0))
    assert torch.equal(first, sample(0, use_cache=False))
    assert not torch.equal(first, sample(1))
    assert len(first[:3].unique(dim=0)) == 3
    greedy = generate(model, source)
    assert torch.equal(generate(model, source, do_sample=True, top_k=1), greedy)
    assert sample(0, num_beams=4).shape == (6, NEW + 1)


@every_model
@torch.no_grad()
def test_assisted_decoding_is_greedy_decoding(fields):
    model, assistant = small_model(**fields), small_model(seed=3, encoder_layers=1, decoder_layers=1)
    source = tokens(1, 5)
    expected = generate(model, source, min_new_tokens=20, max_new_tokens=20)
    for helper in (assistant, small_model(**fields)):  # one that mostly errs, one that never does
        assisted = generate(model, source, min_new_tokens=20, max_new_tokens=20, assistant_model=helper)
        assert torch.equal(assisted, expected)


AHEAD = ["full()", "window(3)", "causal() | prefix(4)", "blocks(3)", "heads({0: causal(), 'rest': full()})"]


@pytest.mark.parametrize("rule", [*AHEAD, "tensor"])
@pytest.mark.parametrize("prompt", [1, 3])
@torch.no_grad()
def test_no_way_of_decoding_lets_a_token_see_a_later_one(rule, prompt):
    """Under a mask that looks ahead, what is read at once, drafts or all tokens again, sees what a cache has."""
    model, helper = small_model(), small_model(seed=3, encoder_layers=1, decoder_layers=1)
    mask = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.2 if rule == "tensor" else rule
    given = {"decoder_input_ids": torch.cat([torch.ones(1, 1).long(), tokens(1, prompt - 1)], 1), "decoder_mask": mask}
    given |= {"max_new_tokens": 12, "min_new_tokens": 12}
    source = tokens(1, 5)
    expected = model.generate(source, **given)
    for way in ({"use_cache": False}, {"assistant_model": helper}, {"prompt_lookup_num_tokens": 2}):
        assert torch.equal(model.generate(source, **given, **way), expected), way
    beams = model.generate(source, **given, num_beams=3)
    assert torch.equal(model.generate(source, **given, num_beams=3, use_cache=False), beams)


@torch.no_grad()
def test_prompts_of_several_lengths_are_closed_one_by_one():
    model, source = small_model(), tokens(2, 5)
    given = {"decoder_input_ids": torch.tensor([[0, 0, 1], [1, 7, 9]]), "decoder_mask": "full()", "max_new_tokens": 6}
    for beams in (1, 3):
        expected = model.generate(source, num_beams=beams, **given)
        assert torch.equal(model.generate(source, num_beams=beams, use_cache=False, **given), expected)


@pytest.mark.parametrize("name", ["cross_mask", "decoder_mask"])
@torch.no_grad()
def test_a_draft_may_run_past_a_mask_that_what_is_accepted_keeps_within(name):
    model, assistant = small_model(), small_model(seed=3, encoder_layers=1, decoder_layers=1)
    source = tokens(1, 5)
    allowed = torch.rand(1, NEW, 5 if name == "cross_mask" else NEW, generator=torch.Generator().manual_seed(0)) > 0.4
    rows = {name: allowed}
    expected = generate(model, source, **rows)
    assert not torch.equal(expected, generate(model, source))
    end = {"eos_token_id": int(expected[0, -1]), "min_new_tokens": 0, "max_new_tokens": 30}
    stopped = generate(model, source, **rows, **end)
    repeated = {name: masks.tensor(allowed, repeat_last=True)}
    longer = generate(model, source, min_new_tokens=20, max_new_tokens=20, **repeated)
    for helper in ({"assistant_model": assistant}, {"assistant_model": model}, {"prompt_lookup_num_tokens": 4}):
        assert torch.equal(generate(model, source, **rows, **helper), expected)
        assert torch.equal(generate(model, source, **rows, **end, **helper), stopped)
        assisted = generate(model, source, min_new_tokens=20, max_new_tokens=20, **repeated, **helper)
        assert torch.equal(assisted, longer)
        with pytest.raises(masks.MaskError, match=f"{name} must have a row for each of .* decoder tokens, got 8"):
            generate(model, source, min_new_tokens=NEW + 1, max_new_tokens=NEW + 1, **rows, **helper)


@torch.no_grad()
def test_a_draft_goes_on_from_its_cache():
    model, source = small_model(), tokens(1, 5)
    helper, fed = small_model(), []
    helper.model.decoder.register_forward_pre_hook(
        lambda module, args, given: fed.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    generate(model, source, min_new_tokens=30, max_new_tokens=30, assistant_model=helper)
    assert max(fed) <= 2
    assert len(fed) <= 30  # a draft that knows what was accepted never errs here


@every_model
@torch.no_grad()
def test_prefixes_of_one_length(fields):
    model, source = small_model(**fields), tokens(2, 5)
    prefix = torch.cat([torch.full((2, 1), START), tokens(2, 3, seed=9)], dim=-1)
    expected = steps(model, source, prefix)
    assert torch.equal(generate(model, source, decoder_input_ids=prefix), expected)
    alone = torch.cat(
        [generate(model, s[None], decoder_input_ids=p[None]) for s, p in zip(source, prefix, strict=True)]
    )
    assert torch.equal(alone, expected)


@pytest.mark.parametrize("beams", [1, 3])
@every_model
@torch.no_grad()
def test_prefixes_of_several_lengths(fields, beams):
    model, sources = small_model(**fields), [tokens(n, seed=n) for n in (5, 3, 6)]
    prefixes = [torch.cat([torch.tensor([START]), tokens(n, seed=9 + n)]) for n in (3, 1, 0)]
    source, attention_mask = pad(sources, "right")
    prefix, decoder_attention_mask = pad(prefixes, "left")
    given = {"decoder_input_ids": prefix, "decoder_attention_mask": decoder_attention_mask, "num_beams": beams}
    together = generate(model, source, attention_mask=attention_mask, **given)
    static = {"cache_implementation": "static", "disable_compile": True} if beams == 1 else {"use_cache": False}
    other = generate(model, source, attention_mask=attention_mask, **given, **static)
    for row in range(3):
        alone = generate(model, sources[row][None], decoder_input_ids=prefixes[row][None], num_beams=beams)
        length = alone.shape[1]
        assert torch.equal(together[row, -length:], alone[0])
        assert torch.equal(other[row, -length:], alone[0])


@torch.no_grad()
def test_encoder_outputs_and_embeddings_of_the_source():
    model, source = small_model(), tokens(2, 5)
    expected = generate(model, source)
    for options in ({}, {"num_beams": 2}):
        expected = generate(model, source, **options)
        encoded = model.get_encoder()(input_ids=source)
        assert torch.equal(generate(model, None, encoder_outputs=encoded, **options), expected)
        embeddings = model.get_encoder().embed_tokens(source)
        assert torch.equal(generate(model, None, inputs_embeds=embeddings, **options), expected)


@torch.no_grad()
def test_scores_and_attentions_of_each_step():
    model, source = small_model(attention="eager"), tokens(2, 5)
    out = generate(
        model, source, return_dict_in_generate=True, output_logits=True, output_attentions=True, output_scores=True
    )
    expected = model(input_ids=source, decoder_input_ids=out.sequences[:, :-1], output_attentions=True)
    torch.testing.assert_close(torch.stack(out.logits, dim=1), expected.logits, rtol=1e-4, atol=1e-4)
    for step, attentions in enumerate(out.cross_attentions):
        assert attentions[1].shape == (2, 4, 1, 5)
        torch.testing.assert_close(attentions[1][:, :, 0], expected.cross_attentions[1][:, :, step])


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_static_cache():
    model, source = small_model(), tokens(3, 5)
    model.generation_config.compile_config = None
    step = torch.compile(model.forward, fullgraph=True)
    expected = generate(model, source)
    model.forward = step
    assert torch.equal(generate(model, source, cache_implementation="static"), expected)


@torch.no_grad()
def test_generation_in_bf16_keeps_to_the_model():
    model, source = small_model().to(torch.bfloat16), tokens(2, 5)
    out = generate(model, source)
    assert out.shape == (2, NEW + 1)
    assert torch.equal(out, steps(model, source, torch.full((2, 1), START)))


@pytest.mark.parametrize("width", [4, 6])
@pytest.mark.parametrize("with_mask", [False, True])
def test_left_padded_prefixes_need_no_mask(width, with_mask):
    """Prefixes of several lengths, padded on the left, go on as each does alone, though each may have padding."""
    model = small_model()
    source = tokens(3, 7)
    prefixes = [torch.tensor([START, 7]), torch.tensor([START, 8, 9]), torch.tensor([START, 5, 6, 7])]
    padded = torch.stack([torch.cat([torch.full((width - len(p),), PAD), p]) for p in prefixes])
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    mask = {"decoder_attention_mask": (padded != PAD).long()} if with_mask else {}
    together = model.generate(source, decoder_input_ids=padded, **mask, **options)
    for row, prefix in enumerate(prefixes):
        alone = model.generate(source[row : row + 1], decoder_input_ids=prefix[None], **options)
        assert together[row, width - len(prefix) :].tolist() == alone[0].tolist()


@pytest.mark.parametrize("decoder_mask", ["causal() & drop((1, 2))", "causal() & keep((0, 2), (5, 30))"])
@torch.no_grad()
def test_spans_of_a_target_that_still_grows(decoder_mask):
    """A rule may speak of target tokens that are not there yet."""
    model, source = small_model(decoder_mask=decoder_mask), tokens(2, 5)
    expected = steps(model, source, torch.full((2, 1), START))
    assert torch.equal(generate(model, source), expected)
    assert torch.equal(generate(model, source, use_cache=False), expected)
    assert not torch.equal(steps(small_model(), source, torch.full((2, 1), START)), expected)


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"num_beams": 3}])
@torch.no_grad()
def test_positions_of_a_prefix_go_on_in_what_follows_it(options):
    model, source = small_model(cross_mask="wait_k(1)"), tokens(2, 8)
    prefix = torch.cat([torch.full((2, 1), START), tokens(2, 1, seed=9)], dim=-1)
    expected = prefix
    for length in range(2, 6):  # the prefix stands at positions 2 and 3
        positions = torch.arange(2, 2 + length).expand(2, -1)
        out = model(input_ids=source, decoder_input_ids=expected, decoder_position_ids=positions, use_cache=False)
        out.logits[:, -1, model.config.eos_token_id] = -torch.inf
        expected = torch.cat([expected, out.logits[:, -1].argmax(-1, keepdim=True)], dim=-1)
    given = {"decoder_input_ids": prefix, "decoder_position_ids": torch.tensor([[2, 3]] * 2), **options}
    lengths = {"min_new_tokens": 4, "max_new_tokens": 4}
    found = generate(model, source, **given, **lengths)
    plain = generate(model, source, decoder_input_ids=prefix, **options, **lengths)
    assert not torch.equal(found, plain)
    if "num_beams" not in options:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["segment_ids", "decoder_segment_ids"])
def test_packed_rows_are_refused(name):
    with pytest.raises(ValueError, match=f"one example a row, so it has no use for {name}: give every example a row"):
        small_model().generate(tokens(1, 4), **{name: torch.tensor([[1, 1, 2, 2]])})


def test_labels_of_another_length_are_named():
    model = small_model()
    with pytest.raises(
        ValueError, match=r"labels must be \(2, 4\), one for each of the decoder's inputs, got \(2, 3\)"
    ):
        model(input_ids=tokens(2, 5), decoder_input_ids=tokens(2, 4), labels=tokens(2, 3))


@pytest.mark.parametrize("beams", [1, 3])
def test_strings_that_stop(beams):
    tokenizer = train_tokenizer(["abcdef"], vocab_size=40, byte_fallback=False)
    source, options = tokens(2, 5), {"num_beams": beams, "tokenizer": tokenizer}
    model = small_model(vocab_size=len(tokenizer), tie_word_embeddings=False)
    source = source % len(tokenizer)
    plain = model.generate(source, num_beams=beams, max_new_tokens=NEW)
    stop = tokenizer.decode(plain[0, 2])
    stopped = generate(model, source[:1], min_new_tokens=0, stop_strings=[stop], **options)
    assert stopped.shape[1] < plain.shape[1]
    assert stop in tokenizer.decode(stopped[0])
