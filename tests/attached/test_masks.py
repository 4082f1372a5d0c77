"""Masks that speak of examples, passages and draws, in `generate()` and in training."""

import pytest
import torch
from attached_families import attached, ids, plain
from transformers.modeling_utils import AttentionInterface

from crossmask import masks
from crossmask.attached import side_masks

pytestmark = pytest.mark.filterwarnings("ignore")

each_family = pytest.mark.parametrize("family", ["bart", "t5", "bert2gpt2", "t5gemma2"])
OPTIONS = {"max_new_tokens": 6, "eos_token_id": None, "do_sample": False}
PASSAGES = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2, -1], [0, 0, 1, 1, 1, 1, 2, 2, 2]])


@each_family
@torch.no_grad()
def test_a_mask_for_each_example_holds_in_every_beam(family):
    model, source = attached(family), ids(2, 9)
    each = masks.keep(examples=(((0, 3),), ((4, 9),)))
    together = model.generate(source, cross_mask=each, num_beams=3, **OPTIONS)
    alone = [
        model.generate(source[row : row + 1], cross_mask=f"keep({span})", num_beams=3, **OPTIONS)
        for row, span in enumerate(("(0, 3)", "(4, 9)"))
    ]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together, model.generate(source, num_beams=3, **OPTIONS))


@each_family
@torch.no_grad()
def test_passages_that_are_read_apart_and_answered_from_one(family):
    model, source, target = attached(family), ids(2, 9), ids(2, 5, seed=1)
    given = {"passage_ids": PASSAGES, "encoder_mask": "passages()", "cross_mask": "keep(passages=(1,))"}
    changed = source.clone()
    changed[PASSAGES != 1] = 40
    results = [model(input_ids=each, decoder_input_ids=target, **given).logits for each in (source, changed)]
    assert torch.equal(*results)
    assert not torch.equal(results[0], model(input_ids=source, decoder_input_ids=target).logits)
    for beams in (1, 3):
        tokens = [model.generate(each, num_beams=beams, **given, **OPTIONS) for each in (source, changed)]
        assert torch.equal(*tokens)
        assert torch.equal(tokens[0], model.generate(source, num_beams=beams, use_cache=False, **given, **OPTIONS))


@each_family
@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_the_attention_mass_of_passages(family, beams):
    model = attached(family, "eager", cross_mask="keep(passages=(0, 2))")
    wanted = {"output_attentions": True, "return_dict_in_generate": True, "num_beams": beams, **OPTIONS}
    outputs = model.generate(ids(2, 9), passage_ids=PASSAGES, **wanted)
    mass = model.passage_mass(outputs, PASSAGES)
    assert mass.per_token.shape == (2, outputs.sequences.shape[1] - 1, 3)
    assert (mass.per_token[..., 1] == 0).all()
    if family != "t5gemma2":  # of whose attention the target's own tokens have a share
        torch.testing.assert_close(mass.per_token.sum(-1), torch.ones(mass.per_token.shape[:2]))


@each_family
def test_masks_that_draw_do_so_in_training_alone(family):
    model, source, target = attached(family), ids(2, 9), ids(2, 5, seed=1)
    given = {"input_ids": source, "decoder_input_ids": target}
    first, again, other = (model.train()(**given, cross_mask=masks.random(0.5, seed=n)).logits for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    model.eval()
    assert torch.equal(model(**given, cross_mask=masks.random(0.5, seed=1)).logits, model(**given).logits)


@each_family
def test_a_loss_under_masks_is_that_of_its_logits(family):
    model, labels = attached(family, cross_mask="wait_k(2)"), ids(2, 5, seed=1)
    outputs = model(input_ids=ids(2, 9), labels=labels)
    expected = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(outputs.loss, expected)
    outputs.loss.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
    assert not torch.equal(outputs.logits, model(input_ids=ids(2, 9), labels=labels, cross_mask="window(0)").logits)


@each_family
@torch.no_grad()
def test_prefixes_padded_on_the_left_count_from_their_first_token(family):
    model, source = attached(family), ids(2, 9)
    prefix = torch.tensor([[1, 1, 3, 20], [3, 21, 22, 23]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    given = {"decoder_attention_mask": mask, "cross_mask": "wait_k(1)", "encoder_mask": "causal()"}
    weights = attached(family, "eager")(
        input_ids=source, decoder_input_ids=prefix, output_attentions=True, **given
    ).cross_attentions[0]
    seen = (weights > 0).any(1).sum(-1)
    assert seen[:, :].tolist() == [[0, 0, 1, 2], [1, 2, 3, 4]]
    options = {**OPTIONS, **given, "decoder_input_ids": prefix}
    cached = model.generate(source, **options)
    assert torch.equal(cached, model.generate(source, use_cache=False, **options))
    assert torch.equal(cached, model.generate(source, cache_implementation="static", **options))


@each_family
@torch.no_grad()
def test_sources_padded_on_the_left_count_from_their_first_token(family):
    model, source = attached(family, "eager"), ids(1, 9)
    padding = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1]])
    given = {"input_ids": source, "attention_mask": padding, "decoder_input_ids": ids(1, 4)}
    given |= {"encoder_mask": "keep((0, 2))", "cross_mask": "keep((0, 2))", "output_attentions": True}
    outputs = model(**given)
    for weights in (outputs.encoder_attentions[0][:, :, 3:], outputs.cross_attentions[0]):
        assert (weights > 0).all(dim=(0, 1, 2)).nonzero().flatten().tolist() == [3, 4]


@torch.no_grad()
def test_a_draft_model_without_masks():
    model, source = attached("bart"), ids(1, 9)
    expected = model.generate(source, cross_mask="wait_k(2)", **OPTIONS)
    assert torch.equal(
        model.generate(source, cross_mask="wait_k(2)", assistant_model=plain("bart"), **OPTIONS), expected
    )


@torch.no_grad()
def test_a_cache_does_not_keep_what_was_hidden_in_the_step_before():
    """The layout of a source is kept from step to step, but not when its padding changes, be it in place."""
    model, source, target = attached("bart", cross_mask="wait_k(2)"), ids(1, 9), ids(1, 3)
    padding = torch.ones_like(source)
    given = {"encoder_outputs": model.get_encoder()(source), "attention_mask": padding}
    cache = model(**given, decoder_input_ids=target[:, :1]).past_key_values
    model(**given, decoder_input_ids=target[:, 1:2], past_key_values=cache)
    padding[:, :4] = 0  # so that positions begin later
    found = model(**given, decoder_input_ids=target[:, 2:], past_key_values=cache).logits
    cache.crossmask_source = None
    cache.self_attention_cache.crop(-1)
    expected = model(**given, decoder_input_ids=target[:, 2:], past_key_values=cache).logits
    assert torch.equal(found, expected)


def test_masks_that_the_config_gets_later_are_in_force():
    model, source, target = attached("bart"), ids(1, 9), ids(1, 6)
    given = {"input_ids": source, "decoder_input_ids": target}
    untouched = model(**given).logits
    model.config.cross_mask = "window(1)"
    masked = model(**given).logits
    assert not torch.equal(masked, untouched)
    model.config.cross_mask = "full()"
    assert torch.equal(model(**given).logits, untouched)


@each_family
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_no_kernel_of_an_accelerator_is_given_a_query_without_keys(family, implementation, monkeypatch):
    """Of which some make NaN; what is done about it there is done here on CPU."""
    given = {"input_ids": ids(2, 9), "labels": ids(2, 5, seed=1), "cross_mask": "wait_k(2) & ~prefix(4)"}
    given |= {"encoder_mask": "window(2)", "attention_mask": (torch.arange(9) < torch.tensor([[9], [6]])).long()}
    model = attached(family, implementation)

    def numbers():
        outputs = model(**given)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return outputs.logits, *torch.autograd.grad(outputs.loss, parameters, allow_unused=True)

    expected, seen = numbers(), []
    open_empty_rows = side_masks.open_empty_rows
    monkeypatch.setattr(side_masks, "open_empty_rows", lambda mask, _: open_empty_rows(mask, torch.device("cuda")))
    monkeypatch.setattr(AttentionInterface, "_global_mapping", dict(AttentionInterface._global_mapping))
    plain_sdpa = AttentionInterface()["sdpa"]

    def kernel(module, query, key, value, mask, **kwargs):
        lowest = torch.finfo(query.dtype).min / 2
        seen.append(mask is None or bool((mask if mask.dtype == torch.bool else mask > lowest).any(-1).all()))
        return plain_sdpa(module, query, key, value, mask, **kwargs)

    AttentionInterface.register("sdpa", kernel)
    for got, wanted in zip(numbers(), expected, strict=True):
        assert (got is None) == (wanted is None)
        if got is not None:
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert all(seen)
    assert seen or implementation == "eager"
