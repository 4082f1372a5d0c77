"""Bridges in training, in the formats and on the devices of others."""

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from bridge_families import bridge_of, decoder_of, encoder_of, ids, open_blocks
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from crossmask.bridge import CrossMaskBridgeForConditionalGeneration

pytestmark = pytest.mark.filterwarnings("ignore")
SOURCE, TARGET = ids(2, 7), ids(2, 5, seed=1)
BATCH = {"input_ids": SOURCE, "decoder_input_ids": TARGET}
EXAMPLES = [{"input_ids": ids(6, seed=n).tolist(), "labels": ids(4, seed=n).tolist()} for n in range(8)]


class Collate:
    def __call__(self, examples):
        return {name: torch.tensor([example[name] for example in examples]) for name in ("input_ids", "labels")}


def trainer_of(folder, model=None, **options) -> Seq2SeqTrainer:
    settings = {"max_steps": 8, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1}
    settings |= {"save_strategy": "steps", "save_steps": 4, "report_to": "none", "use_cpu": True, **options}
    torch.manual_seed(0)
    model = model or bridge_of(cross_mask="wait_k(2)")
    arguments = Seq2SeqTrainingArguments(str(folder), **settings)
    return Seq2SeqTrainer(model, arguments, Collate(), train_dataset=EXAMPLES, eval_dataset=EXAMPLES[:2])


def losses(trainer: Seq2SeqTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.slow
def test_the_trainer_learns_generates_and_resumes_bit_for_bit(tmp_path):
    options = {"predict_with_generate": True, "generation_max_length": 6}
    trainer = trainer_of(tmp_path, **options)
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    assert trainer.predict(EXAMPLES[:2]).predictions.shape[0] == 2
    resumed = trainer_of(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert torch.equal(weights(resumed.model), weights(trainer.model))


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    """One step of plain descent, so that the weights say what the gradient was."""
    options = {"max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0, "save_strategy": "no"}
    trained = []
    for size, accumulated in ((4, 1), (1, 4)):
        trainer = trainer_of(
            tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=accumulated, **options
        )
        trainer.train()
        trained.append(weights(trainer.model))
    torch.testing.assert_close(*trained, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [False, True])
def test_the_trainer_checkpoints_gradients(tmp_path, reentrant):
    options = {"max_steps": 2, "save_strategy": "no"}
    plain = trainer_of(tmp_path, **options)
    plain.train()
    options |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    checkpointed = trainer_of(tmp_path, **options)
    checkpointed.train()
    torch.testing.assert_close(losses(checkpointed), losses(plain))


def test_no_gradient_is_computed_for_a_frozen_encoder():
    model = bridge_of()
    model.encoder.requires_grad_(False)
    output = model(input_ids=SOURCE, labels=TARGET)
    assert not output.encoder_last_hidden_state.requires_grad
    output.loss.backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert all(parameter.grad is not None for parameter in model.bridge.parameters())


@torch.no_grad()
def test_adapters_are_saved_and_loaded(tmp_path):
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(target_modules=r"bridge\..*\.(q_proj|o_proj)", init_lora_weights=False)
    model = peft.get_peft_model(bridge_of(), settings).eval()
    expected = model(**BATCH).logits
    assert not torch.equal(expected, bridge_of()(**BATCH).logits)
    model.save_pretrained(tmp_path)
    assert torch.equal(peft.PeftModel.from_pretrained(bridge_of(), tmp_path).eval()(**BATCH).logits, expected)


@torch.no_grad()
def test_half_precision_saved_and_loaded(tmp_path):
    # Loaded, as `to` would round the rotary frequencies too.
    bridge_of(cross_mask="wait_k(2)").save_pretrained(tmp_path / "float32")
    load = CrossMaskBridgeForConditionalGeneration.from_pretrained
    model = load(tmp_path / "float32", dtype=torch.bfloat16)
    logits = model(**BATCH, decoder_mask="window(1)").logits
    assert logits.dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "bfloat16")
    loaded = load(tmp_path / "bfloat16", dtype=torch.bfloat16)
    assert torch.equal(loaded(**BATCH, decoder_mask="window(1)").logits, logits)


@torch.no_grad()
def test_parts_offloaded_to_memory_and_disk(tmp_path):
    expected = bridge_of()(**BATCH).logits
    assert torch.equal(cpu_offload(bridge_of(), execution_device="cpu")(**BATCH).logits, expected)
    places = {"encoder": "cpu", "decoder": "disk", "bridge": "cpu"}
    model = dispatch_model(bridge_of(), places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    assert torch.equal(model(**BATCH).logits, expected)
    assert model.generate(SOURCE, max_new_tokens=4).shape[0] == 2


@torch.no_grad()
def test_eight_bit_dynamic_quantisation():
    model = bridge_of()
    expected = model(**BATCH).logits
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    assert any("quantized" in type(module).__module__ for module in quantized.modules())
    logits = quantized(**BATCH).logits
    assert not torch.equal(logits, expected)
    assert torch.nn.functional.cosine_similarity(logits.flatten(), expected.flatten(), dim=0) > 0.9


def test_second_derivatives():
    model = bridge_of(attention="eager", bridge_layers=[1])
    weight = model.bridge[0].cross_attn.o_proj.weight
    gradient = torch.autograd.grad(model(input_ids=SOURCE, labels=TARGET).loss, weight, create_graph=True)[0]
    second = torch.autograd.grad(gradient.square().sum(), weight)[0]
    assert second.isfinite().all()
    assert second.abs().max() > 0


@torch.no_grad()
def test_an_encoder_may_serve_two_bridges():
    encoder = encoder_of("bert")
    models = [
        open_blocks(
            CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained(encoder, decoder_of(family))
        )
        for family in ("llama", "gpt2")
    ]
    for model, family in zip(models, ("llama", "gpt2"), strict=True):
        assert torch.equal(model(**BATCH).logits, bridge_of(decoder=family)(**BATCH).logits)


@pytest.mark.slow
@torch.no_grad()
def test_it_is_exported_as_a_graph():
    model = bridge_of(cross_mask="wait_k(2)")
    given = {**BATCH, "use_cache": False}
    program = torch.export.export(model, (), given, strict=False)
    torch.testing.assert_close(program.module()(**given).logits, model(**given).logits, atol=1e-5, rtol=1e-5)
