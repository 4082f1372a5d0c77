"""What a bridge promises, on every family of causal language models and encoders that it was tried with."""

import copy

import pytest
import torch
from bridge_families import (
    DECODERS,
    ENCODERS,
    QUICK_DECODERS,
    QUICK_ENCODERS,
    bridge_of,
    decoder_of,
    ids,
    packed_and_alone,
)
from small_models import END, PAD, EndOneByOne
from transformers import AutoModelForSeq2SeqLM

pytestmark = pytest.mark.filterwarnings("ignore")

decoders = [pytest.param(f, marks=() if f in QUICK_DECODERS else pytest.mark.slow) for f in DECODERS]
encoders = [pytest.param(f, marks=() if f in QUICK_ENCODERS else pytest.mark.slow) for f in ENCODERS]
# What a family cannot; each is refused by name.
NO_DECODER_MASK = {"bloom", "lfm2"}
NO_HEADS = {"xglm"}
NO_PACKED_ENCODER = {"bart", "deberta-v2"}
NO_ENCODER_MASK = {"deberta-v2"}


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("gate", ["zero", "tanh"])
@pytest.mark.parametrize("family", decoders)
@torch.no_grad()
def test_a_new_bridge_is_the_decoder_alone_to_the_bit(family, gate, tmp_path):
    plain, source, target = decoder_of(family), ids(2, 7), ids(2, 6, seed=1)
    alone = plain(target).logits
    model = bridge_of(decoder=family, opened=False, gate=gate)
    assert torch.equal(model(input_ids=source, decoder_input_ids=target).logits, alone)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids=source, decoder_input_ids=target).logits, alone)
    new = type(model)(copy.deepcopy(model.config)).eval()
    new.decoder.load_state_dict(plain.state_dict())
    assert torch.equal(new(input_ids=source, decoder_input_ids=target).logits, alone)
    assert not torch.equal(bridge_of(decoder=family)(input_ids=source, decoder_input_ids=target).logits, alone)


@pytest.mark.parametrize("family", ["bert", "roberta", "bart", "mra", "nystromformer", "yoso"])
@torch.no_grad()
def test_a_source_has_the_positions_that_its_encoder_gives_it(family):
    """Most number tokens from 0, some from behind the padding's id, a few from 2."""
    model, source = bridge_of(encoder=family), ids(2, 7)
    alone = model.encoder(source)[0]
    for mask in (None, torch.ones_like(source)):
        assert torch.equal(model.encode(source, attention_mask=mask).last_hidden_state, alone)


@pytest.mark.parametrize("family", decoders)
@torch.no_grad()
def test_cached_uncached_and_beams(family):
    model, source = bridge_of(decoder=family, cross_mask="wait_k(2)"), ids(2, 11)
    options = {"max_new_tokens": 8, "eos_token_id": None}
    for search in ({}, {"num_beams": 3}):
        cached = model.generate(source, **options, **search)
        assert torch.equal(cached, model.generate(source, use_cache=False, **options, **search))
    assert torch.equal(
        model.generate(source, **options), model.generate(source, cache_implementation="static", **options)
    )
    rows = [model.generate(source[row : row + 1], num_beams=3, **options) for row in range(2)]
    assert torch.equal(model.generate(source, num_beams=3, **options), torch.cat(rows))


@pytest.mark.parametrize("family", decoders)
@torch.no_grad()
def test_texts_that_end_at_different_steps(family):
    model, source = bridge_of(decoder=family, cross_mask="wait_k(2)"), ids(4, 9)
    options = {"max_new_tokens": 12, "eos_token_id": END, "pad_token_id": PAD}
    for search in ({}, {"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True}):
        outputs = []
        for use_cache in (True, False):
            torch.manual_seed(0)
            ends = [EndOneByOne(len(source))]
            outputs.append(model.generate(source, use_cache=use_cache, logits_processor=ends, **options, **search))
        assert torch.equal(*outputs)


@pytest.mark.parametrize("family", decoders)
@torch.no_grad()
def test_padding_on_either_side_of_prompts_changes_nothing(family):
    model = bridge_of(decoder=family, cross_mask="wait_k(2)")
    source, short, long = ids(2, 7), ids(1, 3, seed=1), ids(1, 5, seed=2)
    short[:, 0] = long[:, 0] = model.config.decoder_start_token_id
    padded = torch.cat([torch.nn.functional.pad(short, (2, 0)), long])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    both = model(input_ids=source, decoder_input_ids=padded, decoder_attention_mask=mask).logits
    close(both[0, 2:], model(input_ids=source[:1], decoder_input_ids=short).logits[0])
    close(both[1], model(input_ids=source[1:], decoder_input_ids=long).logits[0])
    options = {"max_new_tokens": 4, "eos_token_id": None}
    written = model.generate(source, decoder_input_ids=padded, decoder_attention_mask=mask, **options)
    alone = model.generate(source[:1], decoder_input_ids=short, **options)
    assert torch.equal(written[0, 5:], alone[0, -4:])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", decoders)
@torch.no_grad()
def test_decoder_masks_hold_and_packed_rows_equal_examples_alone(family, attention):
    if attention == "sdpa" and not decoder_of(family)._supports_sdpa:
        pytest.skip("Transformers has no SDPA for this family")
    model, source, target = bridge_of(decoder=family, attention=attention), ids(2, 7), ids(2, 6, seed=1)
    if family in NO_DECODER_MASK:
        with pytest.raises(ValueError, match="decoder_mask must be causal"):
            model(input_ids=source, decoder_input_ids=target, decoder_mask="window(0)")
        return
    changed = target.clone()
    changed[:, 0] = 3
    for mask in ("window(0)", torch.eye(6, dtype=torch.bool).expand(2, 1 if family in NO_HEADS else 4, 6, 6)):
        given = {"input_ids": source, "decoder_mask": mask}
        before, after = (model(**given, decoder_input_ids=each).logits for each in (target, changed))
        close(before[:, 1:], after[:, 1:])
        assert (before[:, :1] - after[:, :1]).abs().max() > 1e-3
    if family not in NO_HEADS:
        given = {"input_ids": source, "decoder_mask": "heads({0: window(0), 'rest': full()})"}
        one_head = model(**given, decoder_input_ids=target).logits
        assert not torch.allclose(one_head, model(input_ids=source, decoder_input_ids=target).logits, atol=1e-3)
    options = {"max_new_tokens": 6, "eos_token_id": None, "decoder_mask": "window(1)"}
    assert torch.equal(model.generate(source, **options), model.generate(source, use_cache=False, **options))
    close(*packed_and_alone(model))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("family", decoders)
def test_gradients_are_the_same_with_checkpointing(family, reentrant):
    def gradients(model) -> dict[str, torch.Tensor]:
        model.train()
        losses = [model(input_ids=ids(2, 7, seed=n), labels=ids(2, 6, seed=n + 1)).loss for n in range(2)]
        sum(losses).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    model = bridge_of(decoder=family)
    plain = gradients(copy.deepcopy(model))
    assert {name for name in plain if name.startswith("bridge.")} == {
        f"bridge.{name}" for name, _ in model.bridge.named_parameters()
    }
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    checkpointed = gradients(model)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        close(checkpointed[name], gradient)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", encoders)
@torch.no_grad()
def test_encoders_under_padding_masks_and_packing(family, attention):
    model = bridge_of(encoder=family, attention=attention)
    short, long, target = ids(1, 4), ids(1, 7, seed=1), ids(2, 5, seed=2)
    padding = model.config.encoder.pad_token_id
    source = torch.cat([torch.nn.functional.pad(short, (0, 3), value=padding), long])
    mask = torch.tensor([[1] * 4 + [0] * 3, [1] * 7])
    both = model(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
    close(both[:1], model(input_ids=short, decoder_input_ids=target[:1]).logits)
    close(both[1:], model(input_ids=long, decoder_input_ids=target[1:]).logits)
    if family not in NO_ENCODER_MASK:
        blind = {"encoder_mask": "blind((2, 5))", "cross_mask": "blind((2, 5))"}
        changed = long.clone()
        changed[:, 2:5] = torch.tensor([padding, 3, 3])
        results = [model(input_ids=each, decoder_input_ids=target[1:], **blind).logits for each in (long, changed)]
        assert torch.equal(*results)
        assert not torch.equal(results[0], model(input_ids=long, decoder_input_ids=target[1:]).logits)
    if family in NO_PACKED_ENCODER | NO_ENCODER_MASK:
        return
    packed = model(
        input_ids=torch.cat([short, long], 1),
        segment_ids=torch.tensor([[1] * 4 + [2] * 7]),
        decoder_input_ids=target.view(1, -1),
        decoder_segment_ids=torch.tensor([[1] * 5 + [2] * 5]),
    ).logits
    close(packed.view(2, 5, -1), both)


class Everything(torch.nn.Module):
    """Drops all that it is given."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(states)


@pytest.mark.parametrize("family", decoders)
def test_decoder_dropout_reaches_embeddings_and_every_layer_while_training(family):
    source, target = ids(2, 7), ids(2, 6, seed=1)
    plain, dropping = (bridge_of(decoder=family, bridge_layers=[1], decoder_dropout=p) for p in (0.0, 0.5))
    before = plain(input_ids=source, decoder_input_ids=target).logits
    assert torch.equal(dropping(input_ids=source, decoder_input_ids=target).logits, before)  # in evaluation mode
    dropping.decoder.train()
    dropping.training = True
    dropping.decoder_dropout = torch.nn.Identity()
    close(dropping(input_ids=source, decoder_input_ids=target).logits, before)
    # With nothing but what the one block adds, no token of the target is seen.
    dropping.decoder_dropout = Everything()
    other = dropping(input_ids=source, decoder_input_ids=ids(2, 6, seed=2)).logits
    assert torch.equal(dropping(input_ids=source, decoder_input_ids=target).logits, other)
    assert not torch.equal(dropping(input_ids=ids(2, 7, seed=3), decoder_input_ids=target).logits, other)
