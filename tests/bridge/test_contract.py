"""A bridge keeps the contract of the main model: generation, streams, copies, compilation, threads, adapters."""

import copy
import pickle
import threading

import pytest
import torch
from bridge_families import bridge_of, decoder_of, encoder_of, ids
from transformers import AutoModelForSeq2SeqLM, XLNetConfig, XLNetModel

from crossmask import CrossMaskBridgeForConditionalGeneration, audit, masks
from crossmask.seq2seq.simultaneous.policies import AlignAtt

pytestmark = pytest.mark.filterwarnings("ignore")
SOURCE, TARGET = ids(2, 7), ids(2, 5, seed=1)
UNTIL_LENGTH = {"eos_token_id": None}


@torch.no_grad()
def test_copies_and_saved_models_are_the_same(tmp_path):
    model = bridge_of(cross_mask="wait_k(2)", bridge_layers=[0, 2], gate="tanh")
    expected = model(input_ids=SOURCE, decoder_input_ids=TARGET).logits
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert torch.equal(other(input_ids=SOURCE, decoder_input_ids=TARGET).logits, expected)
        other.bridge[0].gate.zero_()
    assert torch.equal(model(input_ids=SOURCE, decoder_input_ids=TARGET).logits, expected)


def test_the_keys_of_the_parts_stay_their_own():
    model = bridge_of()
    keys = model.state_dict().keys()
    for name, part in (("encoder", model.encoder), ("decoder", model.decoder)):
        assert {key for key in keys if key.startswith(f"{name}.")} == {f"{name}.{key}" for key in part.state_dict()}
    assert type(model.decoder.model.layers[0]).__name__ == "LlamaDecoderLayer"


@torch.no_grad()
def test_the_decoder_by_itself_is_as_before():
    model = bridge_of()
    closed = bridge_of(opened=False)
    assert torch.equal(model.decoder(TARGET).logits, closed(input_ids=SOURCE, decoder_input_ids=TARGET).logits)


@pytest.mark.parametrize(
    "mask", ["wait_k(2)", "heads({0: window(1), 'rest': full()})", "layers({0: window(1), 'rest': full()})"]
)
@torch.no_grad()
def test_modes_of_decoding_agree(mask):
    model = bridge_of(cross_mask=mask)
    one = SOURCE[:1]
    greedy = model.generate(one, max_new_tokens=8)
    assert torch.equal(greedy, model.generate(one, max_new_tokens=8, num_beams=1, prompt_lookup_num_tokens=3))
    assert torch.equal(greedy, model.generate(one, max_new_tokens=8, assistant_model=bridge_of(bridge_layers=[1])))
    sampled = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        sampled.append(model.generate(SOURCE, do_sample=True, max_new_tokens=6, use_cache=use_cache))
    assert torch.equal(*sampled)
    first = model.generate(SOURCE, max_new_tokens=4, return_dict_in_generate=True, **UNTIL_LENGTH)
    more = {"decoder_input_ids": first.sequences, "past_key_values": first.past_key_values}
    longer = model.generate(SOURCE, max_new_tokens=8, **UNTIL_LENGTH)
    assert torch.equal(model.generate(SOURCE, **more, max_new_tokens=4, **UNTIL_LENGTH), longer)
    assert model.generate(SOURCE, num_beams=4, num_return_sequences=3, max_new_tokens=5, **UNTIL_LENGTH).shape == (
        6,
        6,
    )


@torch.no_grad()
def test_a_decoder_with_recurrent_layers_has_a_static_cache_and_no_streams():
    model = bridge_of(decoder="lfm2")
    for search in ({}, {"num_beams": 3}):
        dynamic, static = (
            model.generate(SOURCE, max_new_tokens=6, cache_implementation=cache, **search, **UNTIL_LENGTH)
            for cache in ("dynamic", "static")
        )
        assert torch.equal(dynamic, static)
    with pytest.raises(ValueError, match="whose layers are all attention, got Lfm2ForCausalLM"):
        model.open_stream(cross_mask="wait_k(2)")


@torch.no_grad()
def test_drafts_are_refused_where_the_decoder_cannot_take_them_back():
    decoder = decoder_of("llama")
    decoder._is_stateful = True
    model = CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained(encoder_of("bert"), decoder)
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        model.generate(SOURCE[:1], prompt_lookup_num_tokens=2, max_new_tokens=4)


@pytest.mark.parametrize("encoder", ["bert", "t5", "bart"])
@torch.no_grad()
def test_a_stream_writes_what_generate_does_where_the_encoder_does_not_look_ahead(encoder):
    model = bridge_of(encoder=encoder, decoder="gemma3_text", encoder_mask="causal()", cross_mask="wait_k(2)")
    sources, written = [SOURCE[0], SOURCE[1, :4]], ([], [])
    for row, token in model.stream_batch([iter(source.tolist()) for source in sources], max_new_tokens=8):
        written[row].append(token)
    for source, target in zip(sources, written, strict=True):
        assert target == model.generate(source[None], max_new_tokens=8)[0, 1:].tolist()
    eager = bridge_of(encoder=encoder, attention="eager")  # encodes anew, and looks at its weights
    assert list(eager.stream(iter(SOURCE[0].tolist()), policy=AlignAtt(f=1), max_new_tokens=4))


@pytest.mark.parametrize(
    "scope",
    ["none", "cross_mask", *(pytest.param(f"{part}_mask", marks=pytest.mark.slow) for part in ("encoder", "decoder"))],
)
@torch.no_grad()
def test_it_compiles_as_one_graph(scope):
    torch.compiler.reset()
    model = bridge_of(cross_mask="wait_k(2)")
    given = {"input_ids": SOURCE, "decoder_input_ids": TARGET, "use_cache": False}
    if scope != "none":
        given[scope] = masks.causal() if scope == "encoder_mask" else masks.window(1)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**given).logits, model(**given).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_threads_with_different_masks_do_not_mix():
    model, wrong = bridge_of(), []
    given = {"input_ids": SOURCE, "decoder_input_ids": TARGET}
    expected = {k: model(**given, cross_mask=f"wait_k({k})").logits for k in range(1, 7)}

    @torch.no_grad()
    def run(k: int) -> None:
        wrong.extend(not torch.equal(model(**given, cross_mask=f"wait_k({k})").logits, expected[k]) for _ in range(10))

    threads = [threading.Thread(target=run, args=(k,)) for k in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 60


@pytest.mark.parametrize(
    ("targets", "saved", "trained"),
    [
        (r"bridge\..*\.(q_proj|o_proj)", None, 12),
        (r"decoder\..*\.q_proj", ["bridge.0", "bridge.1", "bridge.2"], 6 + 15),
    ],
    ids=["blocks", "decoder-and-whole-blocks"],
)
def test_adapters_train_on_either_side(targets, saved, trained):
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(target_modules=targets, modules_to_save=saved, init_lora_weights=False)
    model = peft.get_peft_model(bridge_of(), settings)
    model(input_ids=SOURCE, labels=TARGET).loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert len(gradients) == trained
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_the_loss_is_exact_under_accumulation():
    model = bridge_of()
    labels = TARGET.clone()
    labels[1, 3:] = -100
    whole = model(input_ids=SOURCE, labels=labels).loss
    count = torch.tensor(8)
    parts = [
        model(input_ids=SOURCE[n : n + 1], labels=labels[n : n + 1], num_items_in_batch=count).loss for n in range(2)
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_the_audit_holds_and_finds_a_leak():
    model = bridge_of(attention="eager", encoder_mask="causal()", cross_mask="wait_k(2)")
    given = {"input_ids": SOURCE, "decoder_input_ids": TARGET}
    assert not audit(model, given).leaks
    model.cross_masks.rules = lambda *args, **kwargs: ((masks.full(),), (0,) * 3)  # as if the mask were lost
    assert audit(model, given).leaks


def test_the_audit_refuses_an_encoder_that_embeds_something_else_than_the_source():
    encoder = XLNetModel(
        XLNetConfig(vocab_size=60, d_model=32, n_layer=2, n_head=4, d_inner=48)
    )  # it embeds (S, B) ids
    model = CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained(encoder, decoder_of("llama"))
    with pytest.raises(ValueError, match=r"must embed the source as it is given, \(2, 7\), got \(7, 2\) from XLNet"):
        audit(model, {"input_ids": SOURCE, "decoder_input_ids": TARGET})


@torch.no_grad()
def test_attention_mass_by_passage():
    model = bridge_of(attention="eager", bridge_layers=[0, 2])
    passages = torch.tensor([[0] * 3 + [1] * 4] * 2)
    outputs = model.generate(
        SOURCE,
        passage_ids=passages,
        encoder_mask="passages()",
        cross_mask="keep(passages=(1,))",
        num_beams=3,
        max_new_tokens=4,
        output_attentions=True,
        return_dict_in_generate=True,
    )
    assert len(outputs.cross_attentions[0]) == 2
    torch.testing.assert_close(model.passage_mass(outputs, passages).overall, torch.tensor([[0.0, 1.0]] * 2))


@pytest.mark.parametrize("name", ["output_attentions", "output_hidden_states"])
def test_the_config_may_ask_for_more_outputs(name):
    model, inputs = bridge_of(attention="eager"), {"input_ids": SOURCE, "decoder_input_ids": TARGET}
    expected = model(**inputs, **{name: True})
    setattr(model.config, name, True)
    actual = model(**inputs)
    assert list(actual) == list(expected)
    assert len(model(**inputs, **{name: False})) < len(expected)
    torch.testing.assert_close(actual.to_tuple()[2:], expected.to_tuple()[2:], rtol=0, atol=0)
