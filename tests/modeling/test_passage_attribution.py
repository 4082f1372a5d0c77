"""Several passages in one row: each encoded on its own, all read, and how much of each."""

import pytest
import torch
from small_models import END, PAD, pad, small_model, tokens

from crossmask import masks

PASSAGES = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 2, 2]])
NEW = 5


def model_of(**fields):
    return small_model(
        3, **{"attention": "eager", "encoder_mask": "passages()", "tie_word_embeddings": False, **fields}
    )


def generate(model, source, **given):
    wanted = {"output_attentions": True, "return_dict_in_generate": True}
    options = {"do_sample": False, "max_new_tokens": NEW, "suppress_tokens": [PAD]}
    return model.generate(source, **{**wanted, **options, **given})


def by_hand(model, source, sequence, numbers, **given) -> torch.Tensor:
    """(T, P) of one sequence, from a pass over the whole of it."""
    out = model(
        input_ids=source[None],
        decoder_input_ids=sequence[None, :-1],
        passage_ids=numbers[None],
        output_attentions=True,
        use_cache=False,
        **given,
    )
    weights = torch.stack(out.cross_attentions)[:, 0].mean(dim=(0, 1))
    return torch.stack([weights[:, numbers == n].sum(-1) for n in range(3)], dim=-1)


MODES = {
    "greedy": {},
    "without a cache": {"use_cache": False},
    "beams": {"num_beams": 3},
    "sequences": {"num_beams": 4, "num_return_sequences": 3},
    "sampled": {"do_sample": True, "num_return_sequences": 2},
    "restricted": {"num_beams": 2, "cross_mask": masks.keep(passages=[0, 2])},
    "ending": {"num_beams": 3, "num_return_sequences": 3, "eos_token_id": [4, 17]},
    "ending, greedy": {"eos_token_id": [29]},
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@torch.no_grad()
def test_mass_is_that_of_a_pass_over_what_was_written(mode):
    model, source = model_of(), tokens(2, 7)
    torch.manual_seed(0)
    out = generate(model, source, passage_ids=PASSAGES, **mode)
    mass = model.passage_mass(out, PASSAGES)
    several = len(out.sequences) // 2
    assert mass.per_token.shape == (len(out.sequences), out.sequences.shape[1] - 1, 3)
    assert mass.overall.shape == (len(out.sequences), 3)
    given = {"cross_mask": mode["cross_mask"]} if "cross_mask" in mode else {}
    lengths, ends = set(), mode.get("eos_token_id", [END])
    for row, sequence in enumerate(out.sequences):
        end = 2 + next((i for i, token in enumerate(sequence[1:].tolist()) if token in ends), NEW - 1)
        lengths.add(end)
        expected = by_hand(model, source[row // several], sequence[:end], PASSAGES[row // several], **given)
        torch.testing.assert_close(mass.per_token[row, : end - 1], expected, rtol=1e-4, atol=1e-5)
        assert (mass.per_token[row, end - 1 :] == 0).all()
        torch.testing.assert_close(mass.overall[row], expected.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mass.overall[row].sum(), torch.tensor(1.0))
    if "eos_token_id" in mode:
        assert len(lengths) > 1
    if given:
        assert (mass.per_token[:, :, 1] == 0).all()


@pytest.mark.parametrize(
    "mode", [{"prompt_lookup_num_tokens": 3}, {"cache_implementation": "static"}, {"num_beams": 2}], ids=str
)
@torch.no_grad()
def test_mass_after_a_prefix(mode):
    """Of what was generated, not of the prefix."""
    model, source, numbers = model_of(), tokens(1, 7), PASSAGES[:1]
    prefix = torch.tensor([[1, 9, 8]])
    out = generate(model, source, passage_ids=numbers, decoder_input_ids=prefix, **mode)
    expected = by_hand(model, source[0], out.sequences[0], numbers[0])[2:]
    torch.testing.assert_close(model.passage_mass(out, numbers).per_token[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_mass_of_a_forward_pass_with_padding():
    """Padding of either side, and tokens that are in no passage, count nowhere."""
    model = model_of()
    source, attention_mask = pad([tokens(7, seed=1), tokens(4, seed=2)], "left")
    numbers = torch.tensor([[-1, 0, 0, 1, 1, 2, 2], [1, 1, 1, 0, 0, 1, 1]])
    target = torch.ones(2, 4).long()
    target[1, 2:] = 0
    out = model(
        input_ids=source,
        attention_mask=attention_mask,
        passage_ids=numbers,
        decoder_input_ids=tokens(2, 4, seed=3),
        decoder_attention_mask=target,
        output_attentions=True,
    )
    mass = model.passage_mass(out, numbers)
    weights = torch.stack(out.cross_attentions).mean(dim=(0, 2))
    torch.testing.assert_close(mass.per_token[0].sum(-1), 1 - weights[0, :, 0])
    torch.testing.assert_close(mass.per_token[1, :2].sum(-1), torch.ones(2))
    assert (mass.per_token[1, 2:] == 0).all()
    torch.testing.assert_close(mass.overall[1], mass.per_token[1, :2].mean(0))
    one = model.passage_mass(out, numbers, layers=1, heads=[0, 3])
    torch.testing.assert_close(one.per_token[0, :, 1], out.cross_attentions[1][0, [0, 3]].mean(0)[:, 3:5].sum(-1))


@torch.no_grad()
def test_what_gives_no_mass_is_named():
    model, source, numbers = model_of(), tokens(2, 7), PASSAGES
    out = generate(model, source, passage_ids=numbers)
    for given, message in (
        ((model.generate(source, max_new_tokens=2), numbers), "got Tensor; pass return_dict_in_generate=True"),
        ((generate(model, source, output_attentions=False), numbers), "pass output_attentions=True"),
        ((out, numbers[:, 1:]), r"passage_ids are \(2, 6\), but there are 2 sequences that read 7 source tokens"),
        ((out, numbers[:1].expand(3, -1)), r"passage_ids are \(3, 7\), but there are 2 sequences"),
    ):
        with pytest.raises(ValueError, match=message):
            model.passage_mass(*given)
    for options, message in (
        ({"layers": 2}, "no layer 2, but 2 of them"),
        ({"heads": [0, 9]}, "no head 9, but 4 of them"),
        ({"heads": []}, "heads: none are named"),
    ):
        with pytest.raises(ValueError, match=message):
            model.passage_mass(out, numbers, **options)
    for name in ("sdpa", "blockwise"):
        other = model_of(attention=name)
        for outputs in (
            generate(other, source, passage_ids=numbers),
            other(input_ids=source, decoder_input_ids=source, passage_ids=numbers, output_attentions=True),
        ):
            with pytest.raises(ValueError, match=rf"no attention weights; .*\(\"eager\"\) \(it is '{name}'\), and"):
                other.passage_mass(outputs, numbers)
    pooled = model_of(memory_length=2, encoder_mask="full()")
    with pytest.raises(
        ValueError, match="memory_length must be None, got 2: the decoder reads a memory without passages"
    ):
        pooled.passage_mass(generate(pooled, source), numbers)


@pytest.mark.usefixtures("without_kernels")
@pytest.mark.parametrize("name", ["eager", "sdpa", "blockwise", "flex_attention"])
@torch.no_grad()
def test_a_passage_is_encoded_as_if_there_were_no_other(name):
    encoder = model_of(attention=name, max_position_embeddings=400).get_encoder()
    numbers = torch.arange(300)[None] // 100
    source = tokens(1, 300)
    other = source.clone()
    other[:, 100:200] = tokens(1, 100, seed=9)
    one, two = (encoder(input_ids=ids, passage_ids=numbers).last_hidden_state for ids in (source, other))
    assert torch.equal(one[:, :100], two[:, :100])
    assert torch.equal(one[:, 200:], two[:, 200:])
    assert not torch.equal(one[:, 100:200], two[:, 100:200])
    alone = encoder(input_ids=source[:, 200:]).last_hidden_state
    torch.testing.assert_close(one[:, 200:], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("without_kernels")
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ["eager", "sdpa", "blockwise", "flex_attention"])
@torch.no_grad()
def test_an_answer_from_one_passage_on_every_backend(name, beams):
    model, source = model_of(attention=name), tokens(2, 7)
    chosen = {"passage_ids": PASSAGES, "cross_mask": "keep(passages=(2,))", "num_beams": beams}
    options = {"do_sample": False, "max_new_tokens": NEW, "output_scores": True, "return_dict_in_generate": True}
    other = source.clone()
    other[:, :5] = tokens(2, 5, seed=6)
    one, two = (model.generate(ids, **chosen, **options) for ids in (source, other))
    assert torch.equal(one.sequences, two.sequences)
    assert all(torch.equal(a, b) for a, b in zip(one.scores, two.scores, strict=True))
    alone = small_model(3, attention=name, tie_word_embeddings=False)
    assert torch.equal(one.sequences, alone.generate(source[:, 5:], num_beams=beams, **options).sequences)


@pytest.mark.parametrize("mode", [{}, {"use_cache": False}, {"num_beams": 3}, {"do_sample": True}], ids=str)
@torch.no_grad()
def test_the_padding_and_the_ends_of_a_call_count(mode):
    """A call's own padding and ends, which the config does not know, bound what was written."""
    model, source = model_of(), tokens(2, 7)
    torch.manual_seed(0)
    free = generate(model, source, passage_ids=PASSAGES, eos_token_id=None, **mode)
    end = int(free.sequences[0, 2])  # the first sequence ends after two tokens
    torch.manual_seed(0)
    out = generate(model, source, passage_ids=PASSAGES, eos_token_id=end, pad_token_id=39, **mode)
    mass = model.passage_mass(out, PASSAGES)
    written = [row.tolist().index(end) if end in row else len(row) - 1 for row in out.sequences]
    assert min(written) < NEW
    for row, length in enumerate(written):
        assert (mass.per_token[row, :length].sum(-1) > 0.99).all()
        assert not mass.per_token[row, length:].any()
        torch.testing.assert_close(mass.overall[row], mass.per_token[row, :length].mean(0))
