"""On a GPU every way of decoding gives what greedy decoding, or the same draw, gives on a processor."""

import threading

import pytest
import torch
from gpu_device import DEVICE, on_gpu
from small_models import END, PAD, START, pad, small_model, tokens

from crossmask import audit
from crossmask.seq2seq.simultaneous.policies import AlignAtt

pytestmark = on_gpu
FIELDS = {
    "plain": {},
    "memory": {"memory_length": 3},
    "additive": {"cross_attention_score": "additive"},
    "masks": {"encoder_mask": "causal()", "decoder_mask": "causal() & window(3)", "cross_mask": "wait_k(2)"},
    "queries without keys": {"encoder_mask": "window(2) & ~prefix(2)", "cross_mask": "~prefix(3)"},
}
every_model = pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
NEW = 12
ALL = {"do_sample": False, "min_new_tokens": NEW, "max_new_tokens": NEW}


def sources() -> tuple[torch.Tensor, torch.Tensor]:
    """Three sources of other lengths, padded on the left."""
    return pad([tokens(length, seed=length) for length in (9, 4, 6)], "left")


def generate(model, **options) -> list[list[int]]:
    ids, attention_mask = (tensor.to(model.device) for tensor in sources())
    return model.generate(ids, attention_mask=attention_mask, **ALL, **options).tolist()


@every_model
@pytest.mark.parametrize("name", ["eager", "sdpa", "blockwise", "flex_attention"])
def test_each_cache(fields, name):
    expected = generate(small_model(**fields))
    model = small_model(attention=name, **fields).to(DEVICE)
    assert generate(model) == expected
    assert generate(model, use_cache=False) == expected
    if name in ("eager", "sdpa"):
        assert generate(model, cache_implementation="static", disable_compile=True) == expected


@every_model
def test_a_compiled_step(fields):
    """Which Transformers compiles by itself on a GPU; the second batch runs the graph of the first."""
    expected, model = generate(small_model(**fields)), small_model(**fields).to(DEVICE)
    for _ in range(2):
        assert generate(model, cache_implementation="static") == expected


@every_model
def test_beams(fields):
    for options in ({"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.7}):
        expected = generate(small_model(**fields), **options)
        assert generate(small_model(**fields).to(DEVICE), **options) == expected


@every_model
def test_draws_do_not_depend_on_the_cache(fields):
    model, drawn = small_model(**fields).to(DEVICE), []
    ids, attention_mask = (tensor.to(DEVICE) for tensor in sources())
    options = {**ALL, "do_sample": True, "top_k": 5, "num_return_sequences": 2}
    for use_cache in (True, False):
        torch.manual_seed(1)
        drawn.append(model.generate(ids, attention_mask=attention_mask, use_cache=use_cache, **options).tolist())
    assert drawn[0] == drawn[1]


@every_model
def test_assisted_decoding(fields):
    model, draft = (small_model(seed, **fields).to(DEVICE) for seed in (0, 1))
    source = tokens(1, 7)
    expected = small_model(**fields).generate(source, **ALL).tolist()
    assert model.generate(source.to(DEVICE), assistant_model=draft, **ALL).tolist() == expected
    assert model.generate(source.to(DEVICE), prompt_lookup_num_tokens=3, **ALL).tolist() == expected


def test_prompts_of_several_lengths():
    prompts, prompt_mask = pad([torch.tensor([START, *tokens(n, seed=n).tolist()]) for n in (1, 3, 2)], "left")
    results = []
    for device in ("cpu", DEVICE):
        prompt = {"decoder_input_ids": prompts.to(device), "decoder_attention_mask": prompt_mask.to(device)}
        results.append(generate(small_model(**FIELDS["masks"]).to(device), **prompt))
    assert results[0] == results[1]
    assert PAD in results[0][0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_model
@torch.no_grad()
def test_half_precision(fields, dtype):
    """Tokens may differ by rounding; chances may not by much, and rows that are padded are as alone."""
    model = small_model(**{"initializer_range": 0.1, **fields})
    ids, mask = sources()
    targets = torch.nn.functional.pad(tokens(3, 6, seed=1), (1, 0), value=START)
    expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=targets).logits.log_softmax(-1)
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": targets}
    given = {name: tensor.to(DEVICE) for name, tensor in given.items()}
    chances = model.to(DEVICE, dtype)(**given).logits.float().log_softmax(-1).cpu()
    torch.testing.assert_close(chances, expected, rtol=0, atol=0.1)
    assert len(generate(model)) == 3


@torch.no_grad()
def test_streams():
    masks = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}
    model = small_model(tie_word_embeddings=False, attention="eager", **masks)
    source = [*tokens(9).tolist(), END]
    options = {"do_sample": False, "max_new_tokens": NEW}
    expected = model.generate(torch.tensor([source]), **options)[0, 1:].tolist()
    policy_says = list(model.stream(iter(source), max_new_tokens=NEW, policy=AlignAtt(1)))
    model.to(DEVICE)
    assert list(model.stream(iter(source), max_new_tokens=NEW)) == expected
    assert list(model.stream(iter(source), max_new_tokens=NEW, policy=AlignAtt(1))) == policy_says


def test_threads():
    model = small_model(**FIELDS["masks"]).to(DEVICE)
    expected, results = generate(model), {}

    def work(number: int) -> None:
        results[number] = generate(model)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), expected)


@pytest.mark.parametrize("method", ["gradient", "perturbation"])
def test_the_audit(method):
    batch = {"input_ids": tokens(2, 7).to(DEVICE), "decoder_input_ids": tokens(2, 5, seed=1).to(DEVICE)}
    report = audit(small_model(**FIELDS["masks"]).to(DEVICE), batch, method=method)
    assert report.ok, report


@torch.no_grad()
def test_the_attention_mass_of_passages():
    masses = []
    for device in ("cpu", DEVICE):
        model = small_model(attention="eager", cross_mask="~prefix(1)").to(device)
        passages = torch.tensor([[0, 0, 0, 1, 1, 2, 2]] * 2, device=device)
        wanted = {"passage_ids": passages, "output_attentions": True, "return_dict_in_generate": True, **ALL}
        outputs = model.generate(tokens(2, 7).to(device), **wanted)
        masses.append(model.passage_mass(outputs, passages).per_token.cpu())
    torch.testing.assert_close(*masses, rtol=1e-4, atol=1e-5)
