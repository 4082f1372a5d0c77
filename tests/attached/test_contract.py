"""What stays as it was on an attached model, and what works on it as on any model of Transformers."""

import copy
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from attached_families import attached, ids, plain
from transformers import AutoModelForSeq2SeqLM, Seq2SeqTrainer, Seq2SeqTrainingArguments

from crossmask import attach, audit, detach, masks
from crossmask.masks import MaskError

pytestmark = pytest.mark.filterwarnings("ignore")

FAMILIES = ["bart", "t5", "bert2gpt2"]
each_family = pytest.mark.parametrize("family", FAMILIES)
MASKS = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}
OPTIONS = {"max_new_tokens": 6, "eos_token_id": None, "do_sample": False}


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    return {"input_ids": ids(2, 9, seed=seed), "decoder_input_ids": ids(2, 6, seed=seed + 1)}


@each_family
def test_the_class_keeps_its_name_and_detach_gives_everything_back(family):
    model = plain(family)
    before_class, before_config, before = type(model), model.config.to_dict(), _state_of(model)
    assert attach(model, **MASKS) is model
    assert isinstance(model, before_class)
    for name in ("__name__", "__module__", "__qualname__", "__doc__"):
        assert getattr(type(model), name) == getattr(before_class, name)
    assert {"cross_mask", "encoder_mask", "decoder_mask"} <= set(inspect.signature(model.forward).parameters)
    model(**batch())
    assert detach(model) is model
    assert type(model) is before_class
    assert model.config.to_dict() == before_config
    assert _state_of(model) == before


def _state_of(model) -> list:
    """What a module has beside its weights, and the attention implementation of every config."""
    state = []
    for name, module in model.named_modules():
        hooks = [len(module._forward_hooks), len(module._forward_pre_hooks)]
        implementation = getattr(getattr(module, "config", None), "_attn_implementation", None)
        state.append((name, type(module), sorted(vars(module)), hooks, implementation))
    return state


def test_only_masks_that_were_given_are_in_the_config():
    model = attached("bart", cross_mask="wait_k(2)")
    fields = {name: value for name, value in model.config.to_dict().items() if name.endswith("_mask")}
    assert fields == {"cross_mask": "wait_k(2)"}
    model = plain("bart")
    model.config.cross_mask = "window(2)"
    attach(model, cross_mask="wait_k(3)")
    assert model.config.cross_mask == "wait_k(3)"
    detach(model)
    assert model.config.cross_mask == "window(2)"


@each_family
@torch.no_grad()
def test_saved_and_loaded_it_is_attached_again_by_its_config(family, tmp_path):
    model = attached(family, **MASKS)
    expected = model(**batch()).logits
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert not torch.equal(loaded(**batch()).logits, expected)
    assert torch.equal(attach(loaded)(**batch()).logits, expected)


@each_family
@torch.no_grad()
def test_copies_are_attached_and_independent(family):
    model = attached(family, **MASKS)
    expected = model(**batch()).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is type(model)
        assert torch.equal(other(**batch()).logits, expected)
        other.config.cross_mask = "window(0)"
        assert not torch.equal(other(**batch()).logits, expected)
        assert _state_of(detach(other)) == _state_of(plain(family))
    assert torch.equal(model(**batch()).logits, expected)


@each_family
@torch.no_grad()
def test_a_change_of_the_attention_implementation_keeps_the_masks(family):
    model = attached(family, **MASKS)
    expected = model(**batch()).logits
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        outputs = model(**batch(), output_attentions=True)
        torch.testing.assert_close(outputs.logits, expected, atol=2e-4, rtol=2e-4)
        assert bool(outputs.cross_attentions) == (implementation == "eager")
    refusal = "attn_implementation must be one of .* got 'flex_attention'|does not support .* flex_attention"
    with pytest.raises(ValueError, match=refusal):
        model.set_attn_implementation("flex_attention")
    assert torch.equal(model(**batch()).logits, outputs.logits)
    model.get_decoder().config._attn_implementation = "eager"
    with pytest.raises(MaskError, match=r"must be changed by model.set_attn_implementation"):
        model(**batch())


@torch.no_grad()
def test_attention_that_came_later_has_no_masks_or_is_refused():
    model = attached("bart")
    other = type(plain("bart"))(model.config).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(**batch()).logits, plain("bart")(**batch()).logits)
    layer = model.get_encoder().layers[0]
    layer.self_attn = other.get_encoder().layers[0].self_attn
    with pytest.raises(RuntimeError, match="got a new BartAttention; call crossmask"):
        model(**batch(), encoder_mask="causal()")


@each_family
@torch.no_grad()
def test_six_threads_with_different_masks_do_not_mix(family):
    model = attached(family)
    calls = [{}, MASKS, {"cross_mask": "window(1)"}, {"decoder_mask": "window(0)"}, {"encoder_mask": "window(1)"},
             {"cross_mask": torch.rand(2, 7, 9) > 0.5}]  # fmt: skip
    expected = [model.generate(batch()["input_ids"], **call, **OPTIONS) for call in calls]
    with ThreadPoolExecutor(6) as pool:
        jobs = [(index, pool.submit(_generate, model, calls[index])) for index in [*range(6)] * 4]
        assert all(torch.equal(job.result(), expected[index]) for index, job in jobs)


@torch.no_grad()
def _generate(model, call: dict) -> torch.Tensor:
    return model.generate(batch()["input_ids"], **call, **OPTIONS)


@each_family
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_are_the_same_with_checkpointing(family, reentrant):
    if reentrant and family == "bart":
        pytest.skip("wrong in the untouched model already")

    def gradients(model) -> list[torch.Tensor]:
        model.train()
        given = {"cross_mask": "wait_k(2)", "encoder_mask": "window(2)", "decoder_mask": "window(1)"}
        model(**batch(), **given).logits.square().mean().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    model = attached(family)
    expected = gradients(copy.deepcopy(model))
    before = copy.deepcopy(detach(copy.deepcopy(model)))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    for checkpointed in (model, attach(_checkpointing(before, reentrant))):
        found = gradients(checkpointed)
        assert len(found) == len(expected)
        for gradient, other in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, other, atol=1e-4, rtol=1e-3)


def _checkpointing(model, reentrant: bool):
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    return model


def test_no_gradient_passes_a_query_with_nothing_to_see():
    model = attached("t5")
    closed = torch.zeros(2, 6, 9, dtype=torch.bool)
    embeddings = model.get_input_embeddings()(batch()["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=embeddings, decoder_input_ids=batch()["decoder_input_ids"], cross_mask=closed).logits
    logits.sum().backward()
    assert embeddings.grad.isfinite().all()
    assert (embeddings.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_half_precision_is_zero_too_where_nothing_is_seen(dtype, attention):
    model = attached("bart", attention).to(dtype)
    closed = torch.ones(2, 6, 9, dtype=torch.bool)
    closed[:, 2] = False
    inputs = []
    for module in model.attachment.attentions.cross:
        module.out_proj.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    assert model(**batch(), cross_mask=closed).logits.isfinite().all()
    assert all((states[:, 2] == 0).all() for states in inputs)


@each_family
def test_lora_learns_under_masks(family):
    peft = pytest.importorskip("peft")
    model = attached(family, **MASKS)
    expected = model(**batch()).logits
    targets = {"bart": ["q_proj"], "t5": ["q"], "bert2gpt2": ["query"]}[family]
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets))
    outputs = adapted(**batch())
    torch.testing.assert_close(outputs.logits, expected)
    outputs.logits.sum().backward()
    assert any(parameter.grad is not None for parameter in adapted.parameters())
    tokens = adapted.generate(input_ids=batch()["input_ids"], cross_mask="window(1)", **OPTIONS)
    assert torch.equal(tokens, model.generate(batch()["input_ids"], cross_mask="window(1)", **OPTIONS))


def test_trainer_keeps_a_column_of_masks_and_generates_under_it(tmp_path):
    model = attached("bart")
    seen = []
    rows = [
        {"input_ids": ids(9, seed=n), "labels": ids(6, seed=n + 9), "cross_mask": torch.ones(6, 9) > 0}
        for n in range(4)
    ]

    def collate(examples: list[dict]) -> dict[str, torch.Tensor]:
        seen.append(set(examples[0]))
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    arguments = Seq2SeqTrainingArguments(
        tmp_path, max_steps=1, per_device_train_batch_size=2, predict_with_generate=True, report_to=[], use_cpu=True,
        generation_max_length=6, disable_tqdm=True,
    )  # fmt: skip
    trainer = Seq2SeqTrainer(model, arguments, train_dataset=rows, eval_dataset=rows, data_collator=collate)
    trainer.train()
    assert trainer.predict(rows).predictions.shape[0] == 4
    assert all("cross_mask" in names for names in seen)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_an_audit_finds_a_planted_leak(family):
    model = attached(family, **MASKS)
    assert audit(model, batch()).ok
    assert audit(model, {**batch(), "cross_mask": "window(2)", "decoder_mask": "window(1)"}).ok
    model.get_decoder().register_forward_pre_hook(_plant, with_kwargs=True)
    leaks = audit(model, batch()).leaks
    assert {(leak.target, leak.position) for leak in leaks} == {(t, s) for t in range(6) for s in range(2 + t, 9)}


def _plant(module, args, kwargs):
    """The mean of the source, added to the state of its first token."""
    states = kwargs["encoder_hidden_states"].clone()
    states[:, 0] += kwargs["encoder_hidden_states"].mean(1)
    return args, {**kwargs, "encoder_hidden_states": states}


@torch.no_grad()
def test_parts_called_by_themselves_are_masked():
    for family in FAMILIES:
        model = attached(family, **MASKS)
        whole = model(**batch())
        encoded = model.get_encoder()(batch()["input_ids"])
        decoded = model.get_decoder()(
            input_ids=batch()["decoder_input_ids"],
            encoder_hidden_states=encoded.last_hidden_state,
            output_hidden_states=True,
        )
        assert torch.equal(encoded.last_hidden_state, whole.encoder_last_hidden_state)
        states = model(**batch(), output_hidden_states=True).decoder_hidden_states[-1]
        assert torch.equal(decoded.hidden_states[-1], states)
        given = model.get_encoder()(batch()["input_ids"], encoder_mask="window(1)")
        expected = model(**batch(), encoder_mask="window(1)").logits
        assert torch.equal(
            model(encoder_outputs=given, decoder_input_ids=batch()["decoder_input_ids"]).logits, expected
        )


@pytest.mark.slow
@each_family
@torch.no_grad()
def test_compiled_into_one_graph(family):
    torch.compiler.reset()
    model = attached(family, **MASKS)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    padded = {"attention_mask": torch.arange(9) < torch.tensor([[9], [6]])}
    for call in ({}, {"cross_mask": masks.window(2)}, {"cross_mask": torch.rand(2, 6, 9) > 0.5}, padded):
        expected = model(**batch(), use_cache=False, **call).logits
        torch.testing.assert_close(compiled(**batch(), use_cache=False, **call).logits, expected)
