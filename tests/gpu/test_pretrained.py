"""On a GPU masks on other people's models, bridges and heads give what they give on a processor."""

import copy

import pytest
import torch
from attached_families import attached
from attached_families import ids as attached_ids
from bridge_families import QUICK_DECODERS, QUICK_ENCODERS, bridge_of, ids
from gpu_device import DEVICE, assert_near, logits_and_gradients, on_gpu, to_device
from head_cases import HEADS, batch_of, head, labels_of
from small_models import small_model, tokens
from transformers import AutoModelForSeq2SeqLM

pytestmark = [*on_gpu, pytest.mark.filterwarnings("ignore")]
FAMILIES = ("bart", "marian", "mbart", "pegasus", "t5", "mt5", "m2m_100", "blenderbot", "bert2gpt2", "t5gemma2")
MASKS = {"encoder_mask": "window(3)", "decoder_mask": "causal() & window(4)", "cross_mask": "wait_k(2) & ~prefix(1)"}
OPTIONS = {"max_new_tokens": 6, "eos_token_id": None, "do_sample": False}


def assert_same_on_the_device(model, batch: dict, generate: bool = True) -> None:
    """Logits, gradients, greedy decoding and beams."""
    options = [{"num_beams": beams, **OPTIONS} for beams in (1, 3)] if generate else []
    names = ("input_ids", "attention_mask")
    results = []
    for device in ("cpu", DEVICE):
        moved = copy.deepcopy(model).to(device)
        given = batch if device == "cpu" else to_device(batch)
        source = {name: given[name] for name in names if name in given}
        sequences = [moved.generate(**source, **each).tolist() for each in options]
        results.append((logits_and_gradients(moved, given), sequences))
    assert_near(results[1][0], results[0][0])
    assert results[1][1] == results[0][1]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masks_on_encoder_decoders(family, implementation):
    batch = {"input_ids": attached_ids(2, 9), "labels": attached_ids(2, 5, seed=1)}
    batch["attention_mask"] = (torch.arange(9) < torch.tensor([[9], [6]])).long()
    assert_same_on_the_device(attached(family, implementation, **MASKS), batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_masks_on_encoder_decoders_in_half_precision(family, dtype):
    for length in (32, 64):
        model = attached(family, "sdpa", **MASKS).to(DEVICE, dtype)
        batch = {"input_ids": attached_ids(2, length), "labels": attached_ids(2, length // 2, seed=1)}
        batch["attention_mask"] = (torch.arange(length) < torch.tensor([[length], [length - 9]])).long()
        results = logits_and_gradients(model, to_device(batch))
        assert all(value.isfinite().all() for value in results.values()), length


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [*((encoder, "llama") for encoder in QUICK_ENCODERS), *(("bert", decoder) for decoder in QUICK_DECODERS)],
)
@pytest.mark.parametrize("fields", [{}, {"cross_mask": "wait_k(2)", "decoder_mask": "causal() & window(3)"}], ids=str)
def test_bridges(encoder, decoder, fields):
    batch = {"input_ids": ids(2, 9), "labels": ids(2, 5, seed=1)}
    batch["attention_mask"] = (torch.arange(9) < torch.tensor([[9], [6]])).long()
    assert_same_on_the_device(bridge_of(encoder, decoder, **fields), batch)


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    model = head(name)
    batch = batch_of(model)
    assert_same_on_the_device(model, {**batch, "labels": labels_of(model, batch)}, generate=False)


@torch.no_grad()
def test_a_model_is_loaded_onto_the_device(tmp_path):
    model, source = small_model(cross_mask="wait_k(2)"), tokens(2, 5)
    model.save_pretrained(tmp_path)
    expected = model.generate(source, **OPTIONS).tolist()
    for given in ({"device_map": str(DEVICE)}, {"device_map": "auto"}):
        loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, **given)
        assert loaded.generate(source.to(loaded.device), **OPTIONS).tolist() == expected
    halved = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, device_map=str(DEVICE), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in halved.parameters()} == {torch.bfloat16}


@torch.no_grad()
def test_layers_on_the_device_and_on_the_processor(tmp_path):
    model, source = small_model(cross_mask="wait_k(2)"), tokens(2, 5)
    model.save_pretrained(tmp_path)
    place = "cpu" if DEVICE.type == "cpu" else 0
    places = {"model.encoder": place, "model.decoder": "cpu", "head_proj": place, "lm_head": place}
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, device_map=places)
    assert loaded.generate(source.to(DEVICE), **OPTIONS).tolist() == model.generate(source, **OPTIONS).tolist()
