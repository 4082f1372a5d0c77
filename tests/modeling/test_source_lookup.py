"""`prompt_lookup_num_tokens` takes drafts from the source; the output is that of greedy decoding."""

import pytest
import torch
from small_models import START, small_model, tokens

from crossmask.seq2seq.source_lookup import SourceLookup

SOURCE = [5, 6, 7, 8, 6, 9]


@pytest.mark.parametrize(
    ("target", "draft"),
    [
        ([START], []),
        ([START, 5], [6, 7, 8]),
        ([START, 6], [7, 8, 6]),  # where the source has it first
        ([START, 8, 6], [9]),  # the longer match
        ([START, 20, 6], [7, 8, 6]),
        ([START, 9], []),  # nothing follows
        ([START, *range(20, 25), 5], [6, 7]),  # one token is left for the model
        ([START, *range(20, 27), 5], []),
    ],
)
def test_what_follows_in_the_source_is_proposed(target, draft):
    lookup = SourceLookup(SOURCE, num_tokens=3, max_ngram=2, max_length=10)
    found, logits = lookup.get_candidates(torch.tensor([target]))
    assert found.tolist() == [target + draft]
    assert logits is None


@torch.no_grad()
def test_a_text_that_is_copied_takes_fewer_steps():
    model, source, steps = small_model(), tokens(1, 5), []
    options = {"max_new_tokens": 16, "min_new_tokens": 16, "do_sample": False}
    expected = model.generate(source, **options)
    model.lm_head.register_forward_hook(lambda *call: steps.append(1))
    assert torch.equal(model.generate(source, prompt_lookup_num_tokens=3, **options), expected)
    steps.clear()
    # The decoder reads the same source as before, and drafts are taken from what it writes.
    given = {"encoder_outputs": model.get_encoder()(source), "attention_mask": torch.ones_like(source)}
    copied = model.generate(expected[:, 1:], prompt_lookup_num_tokens=3, **given, **options)
    assert torch.equal(copied, expected)
    assert len(steps) < 12


@torch.no_grad()
def test_a_source_without_ids():
    model, source = small_model(), tokens(1, 5)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "prompt_lookup_num_tokens": 2}
    expected = model.generate(source, **options)
    for given in (
        {"encoder_outputs": model.get_encoder()(source)},
        {"inputs_embeds": model.get_input_embeddings()(source)},
    ):
        assert torch.equal(model.generate(**given, **options), expected)


@pytest.mark.parametrize("name", ["prompt_lookup_num_tokens", "max_matching_ngram_size"])
def test_numbers_that_are_not_positive(name):
    options = {"prompt_lookup_num_tokens": 2, name: -1}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got -1"):
        small_model().generate(tokens(1, 5), **options)
