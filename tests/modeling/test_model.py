"""The network computes what the slow reference computes; what it returns; how it is resized, saved and loaded."""

import json
import logging
import re

import pytest
import torch
from reference_network import ReferenceNetwork, layout_of
from small_models import PAD, START, TIES, pad, small_config, small_model, tokens
from transformers import Trainer, TrainingArguments
from transformers.utils import find_labels

from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration, CrossMaskModel, InteractiveAttention, masks

BACKENDS = ("eager", "sdpa")
VARIANTS = {
    "plain": {"num_key_value_heads": 4},
    "grouped": {},
    "one key/value head, wide heads": {"num_key_value_heads": 1, "head_dim": 6},
    "flat attention": {"initializer_range": 0.02},
    "depths": {"encoder_layers": 3, "decoder_layers": 1, "hidden_act": "relu"},
    "factorised": {"embedding_size": 6},
    "factorised, activated": {"embedding_size": 24, "embedding_act": "gelu"},
    "memory": {"memory_length": 3},
    "additive": {"cross_attention_score": "additive"},
    "additive memory": {"cross_attention_score": "additive", "memory_length": 2},
    "tied embeddings": {"tie_word_embeddings": "embedding"},
    "tied head": {"tie_word_embeddings": "head"},
    "untied": {"tie_word_embeddings": False},
    "masks": {"encoder_mask": "window(1)", "decoder_mask": "causal() & window(2)", "cross_mask": "wait_k(2)"},
    "masks of layers": {
        "encoder_mask": {"0": "blocks(2)", "1": "full()"},
        "cross_mask": {"0": "~prefix(1)", "1": "causal() | prefix(1)"},
    },
}


def batch(side: str) -> dict[str, torch.Tensor]:
    """Two examples, uneven on both sides."""
    source, attention_mask = pad([tokens(6, seed=1), tokens(4, seed=2)], side)
    start = torch.tensor([START])
    target, decoder_mask = pad([torch.cat([start, tokens(n, seed=n)]) for n in (2, 4)], side)
    return {
        "input_ids": source,
        "attention_mask": attention_mask,
        "decoder_input_ids": target,
        "decoder_attention_mask": decoder_mask,
    }


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` of the largest value."""
    atol = tolerance * max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=0, atol=atol)


@pytest.mark.parametrize("attention", BACKENDS)
@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
def test_logits_are_the_reference_networks(fields, attention):
    model = small_model(attention=attention, **fields)
    for side in ("left", "right"):
        inputs = batch(side)
        expected = ReferenceNetwork(model).logits(
            inputs["input_ids"],
            layout_of(inputs["attention_mask"].tolist()),
            inputs["decoder_input_ids"],
            layout_of(inputs["decoder_attention_mask"].tolist()),
        )
        with torch.no_grad():
            close(model(**inputs).logits, expected)


@pytest.mark.parametrize("fields", [{}, {"memory_length": 2}], ids=["source", "memory"])
def test_packed_rows_are_the_reference_networks(fields):
    model = small_model(**fields)
    segments, target_segments = [[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 2, 3, 3]], [[1, 1, 2, 2, 0], [1, 2, 2, 3, 3]]
    source, target = tokens(2, 7), tokens(2, 5, seed=1)
    expected = ReferenceNetwork(model).logits(source, layout_of(segments), target, layout_of(target_segments))
    with torch.no_grad():
        actual = model(
            input_ids=source,
            decoder_input_ids=target,
            segment_ids=torch.tensor(segments),
            decoder_segment_ids=torch.tensor(target_segments),
        ).logits
    close(actual, expected)


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
@torch.no_grad()
def test_the_output_depends_on_the_source(fields):
    model = small_model(**fields)
    inputs = {"input_ids": tokens(1, 5), "decoder_input_ids": tokens(1, 3)}
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, 1] += 1
    assert (model(**inputs).logits - model(**changed).logits).abs().max() > 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", BACKENDS)
@torch.no_grad()
def test_padding_changes_nothing(side, attention):
    model = small_model(attention=attention)
    inputs = batch(side)
    logits = model(**inputs).logits
    scrambled = {**inputs}
    for ids, mask in (("input_ids", "attention_mask"), ("decoder_input_ids", "decoder_attention_mask")):
        scrambled[ids] = inputs[ids].masked_fill(inputs[mask] == 0, 9)
    other = model(**scrambled).logits
    for row in range(2):
        kept = inputs["decoder_attention_mask"][row].bool()
        alone = model(
            input_ids=inputs["input_ids"][row][inputs["attention_mask"][row].bool()][None],
            decoder_input_ids=inputs["decoder_input_ids"][row][kept][None],
        ).logits[0]
        close(logits[row][kept], alone)
        close(other[row][kept], alone)


@torch.no_grad()
def test_rotary_scaling_changes_attention():
    model, inputs = small_model(), batch("right")
    scaled = small_model(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0})
    assert (model(**inputs).logits - scaled(**inputs).logits).abs().max() > 1e-3


@pytest.mark.parametrize("memory_length", [None, 3])
def test_outputs_have_their_shapes_and_names(memory_length):
    model = small_model(attention="eager", memory_length=memory_length, encoder_layers=3)
    out = model(**batch("right"), output_hidden_states=True, output_attentions=True)
    seen = memory_length or 6
    assert out.logits.shape == (2, 5, 40)
    assert [h.shape for h in out.encoder_hidden_states] == [(2, 6, 16)] * 3 + [(2, seen, 16)]
    assert [h.shape for h in out.decoder_hidden_states] == [(2, 5, 16)] * 3
    assert [a.shape for a in out.encoder_attentions] == [(2, 4, 6, 6)] * 3
    assert [a.shape for a in out.decoder_attentions] == [(2, 4, 5, 5)] * 2
    assert [a.shape for a in out.cross_attentions] == [(2, 4, 5, seen)] * 2
    assert out.encoder_last_hidden_state.shape == (2, seen, 16)
    close(out.cross_attentions[0].sum(-1)[0, :, :3], torch.ones(4, 3))
    values = model(**batch("right"), output_hidden_states=True, output_attentions=True, return_dict=False)
    assert isinstance(values, tuple)
    assert torch.equal(values[0], out.logits)


@torch.no_grad()
def test_embeddings_and_encoder_outputs_replace_ids():
    model, inputs = small_model(tie_word_embeddings=False), batch("right")
    out = model(**inputs)
    kept = {name: inputs[name] for name in ("attention_mask", "decoder_attention_mask")}
    embedded = {
        "inputs_embeds": model.get_encoder().embed_tokens(inputs["input_ids"]),
        "decoder_inputs_embeds": model.get_decoder().embed_tokens(inputs["decoder_input_ids"]),
    }
    close(model(**embedded, **kept).logits, out.logits)
    encoded = model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    for given in (encoded, encoded.to_tuple()):
        again = model(encoder_outputs=given, decoder_input_ids=inputs["decoder_input_ids"], **kept)
        close(again.logits, out.logits)
    with pytest.raises(ValueError, match="either ids or embeddings"):
        model(**inputs, inputs_embeds=embedded["inputs_embeds"])
    with pytest.raises(ValueError, match="the source must have at most 64 tokens"):
        model(input_ids=tokens(1, 65), decoder_input_ids=tokens(1, 2))
    cached = model(input_ids=tokens(1, 5), decoder_input_ids=tokens(1, 64), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="at most 64 tokens, which is what the model takes, got 65; truncate it"):
        model(input_ids=tokens(1, 5), decoder_input_ids=tokens(1, 1), past_key_values=cached)


@torch.no_grad()
def test_logits_to_keep():
    model, inputs = small_model(), batch("right")
    logits = model(**inputs).logits
    close(model(**inputs, logits_to_keep=2).logits, logits[:, -2:])
    close(model(**inputs, logits_to_keep=torch.tensor([0, 3])).logits, logits[:, [0, 3]])


@torch.no_grad()
@pytest.mark.parametrize("attention", BACKENDS)
def test_bf16_is_near_fp32(attention):
    model, inputs = small_model(attention=attention, initializer_range=0.1), batch("left")
    expected = model(**inputs).logits
    out = model.to(torch.bfloat16)(**inputs)
    assert out.logits.dtype == torch.bfloat16
    assert (out.logits.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant):
    model, inputs = small_model(memory_length=2).train(), {**batch("left"), "labels": tokens(2, 5, seed=5)}

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(**inputs).loss.backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters()}

    expected = gradients()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    assert model.model.encoder.layers[0].gradient_checkpointing
    for name, gradient in gradients().items():
        close(gradient, expected[name])


@pytest.mark.parametrize(
    ("attention", "fields"),
    [
        ("eager", {"cross_mask": "wait_k(2)", "encoder_layers": 1, "decoder_layers": 1}),
        ("sdpa", {"memory_length": 2, "encoder_layers": 1, "decoder_layers": 1}),
        ("sdpa", {"cross_attention_score": "additive", **VARIANTS["masks of layers"]}),
    ],
)
def test_compiled_without_graph_breaks(attention, fields):
    model, inputs = small_model(attention=attention, **fields), {**batch("left"), "labels": tokens(2, 5)}
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    expected, out = model(**inputs), compiled(**inputs)
    close(out.logits, expected.logits)
    close(out.loss, expected.loss)


def test_compiled_with_gradients():
    model = small_model(encoder_layers=1, decoder_layers=1)
    inputs = {**batch("left"), "labels": tokens(2, 5), "cross_mask": masks.wait_k(1)}
    torch._dynamo.reset()
    model(**inputs).loss.backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs).loss.backward()
    for name, weight in model.named_parameters():
        close(weight.grad, expected[name])


@torch.no_grad()
def test_compiled_before_any_other_call():
    inputs = batch("left")
    compiled, model = small_model(cross_mask="wait_k(2)"), small_model(cross_mask="wait_k(2)")
    torch._dynamo.reset()
    close(torch.compile(compiled, fullgraph=True, backend="eager")(**inputs).logits, model(**inputs).logits)


@pytest.mark.slow
@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
@torch.no_grad()
def test_compiled_by_inductor(fields):
    model, inputs = small_model(**fields), batch("left")
    torch._dynamo.reset()
    close(torch.compile(model, fullgraph=True)(**inputs).logits, model(**inputs).logits)


def shared(model) -> tuple[bool, bool, bool]:
    """Whether the encoder and decoder embeddings, the encoder embedding and head, the decoder's and head are one."""
    encoder, decoder = model.get_encoder().embed_tokens.weight, model.get_decoder().embed_tokens.weight
    head = model.lm_head.weight
    return encoder is decoder, encoder is head, decoder is head


SHARED = dict(zip(TIES, [(True, True, True), (True, False, False), (False, False, True), (False,) * 3], strict=True))


@pytest.mark.parametrize("embedding_size", [None, 6])
@pytest.mark.parametrize("tie", TIES)
def test_ties_survive_saving_and_loading(tie, embedding_size, tmp_path):
    model, inputs = small_model(tie_word_embeddings=tie, embedding_size=embedding_size), batch("left")
    assert shared(model) == SHARED[tie]
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] == tie
    loaded, info = CrossMaskForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert shared(loaded) == SHARED[tie]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    for name, buffer in model.named_buffers():  # not saved, so made anew after the model stood on the meta device
        assert torch.equal(buffer, dict(loaded.named_buffers())[name]), name
    assert torch.equal(model(**inputs).logits, loaded.eval()(**inputs).logits)
    base = CrossMaskModel.from_pretrained(tmp_path).eval()
    assert torch.equal(base(**inputs).last_hidden_state, model.model(**inputs).last_hidden_state)


def test_trainer_finds_one_kind_of_labels():
    assert find_labels(CrossMaskForConditionalGeneration) == ["labels"]


def test_trainer_takes_no_tied_weight_of_the_best_checkpoint_for_missing(tmp_path, caplog):
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    data = [{"input_ids": tokens(5), "labels": tokens(3)}]
    trainer = Trainer(small_model(), arguments, train_dataset=data, eval_dataset=data)
    logging.getLogger("transformers").addHandler(caplog.handler)
    trainer.train()
    assert trainer.state.best_model_checkpoint
    assert "missing keys" not in caplog.text


@pytest.mark.parametrize("tie", TIES)
def test_resized_embeddings(tie):
    model, inputs = small_model(tie_word_embeddings=tie), batch("left")
    before = model(**inputs).logits.detach()
    for size in (47, 43):
        model.resize_token_embeddings(size, mean_resizing=False)
        assert shared(model) == SHARED[tie]
        assert model.config.vocab_size == size
        assert model.get_encoder().embed_tokens.weight.shape == (size, 16)
        assert model.get_decoder().embed_tokens.weight.shape == (size, 16)
        out = model(**inputs, labels=torch.full((2, 5), size - 1))
        assert out.logits.shape == (2, 5, size)
        close(out.logits[..., :40], before)
        out.loss.backward()
        model.zero_grad()
        del out  # its graph remembers the old shape, as gradients do
    assert model.get_input_embeddings().padding_idx == PAD


def test_every_weight_learns():
    for fields in VARIANTS.values():
        model = small_model(**fields).train()
        model(**batch("right"), labels=tokens(2, 5)).loss.backward()
        assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]


def test_tensor_parallel_plans_name_what_is_there():
    model = small_model()
    names = {re.sub(r"\.\d+", ".*", name) for name, _ in model.named_modules()}
    assert set(model.tp_plan) <= names
    assert set(model.fsdp_plan) <= names
    assert model.tp_plan["model.decoder.layers.*.cross_attn.k_proj"] == "colwise"


@pytest.mark.parametrize("change", [{"hidden_size": 32}, {"vocab_size": 50}])
def test_a_checkpoint_of_another_shape_is_refused(change, tmp_path, caplog):
    small_model().save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        CrossMaskForConditionalGeneration.from_pretrained(tmp_path, config=small_config(**change))
    assert "model.encoder.embed_tokens.weight" in caplog.text
    assert "torch.Size([40, 16])" in caplog.text


class TestInteractiveAttention:
    @pytest.fixture(params=["dot", "additive"])
    def layer(self, request) -> InteractiveAttention:
        torch.manual_seed(0)
        config = CrossMaskConfig(
            hidden_size=16, num_attention_heads=4, num_key_value_heads=2, cross_attention_score=request.param
        )
        return InteractiveAttention(config)

    def test_masks_of_each_shape_agree(self, layer):
        target, source = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
        row = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 1, 0]], dtype=torch.bool)
        expected, weights = layer(target, source, row)
        assert weights.shape == (2, 4, 3, 5)
        assert not weights.masked_select(~row[:, None, None]).any()
        close(weights.sum(-1), torch.ones(2, 4, 3))
        for allowed in (row[:, None].expand(2, 3, 5), row[:, None, None], row[:, None, None].expand(2, 4, 3, 5)):
            close(layer(target, source, allowed)[0], expected)
        for index in range(2):  # what is not allowed is not there
            alone, _ = layer(target[index : index + 1], source[index : index + 1, row[index]])
            close(alone[0], expected[index])

    def test_a_target_with_nothing_to_see_gets_zero(self, layer):
        target, source = torch.randn(2, 3, 16), torch.randn(2, 5, 16, requires_grad=True)
        allowed = torch.ones(2, 3, 5, dtype=torch.bool)
        allowed[0, 1] = False
        output, weights = layer(target, source, allowed)
        assert not output[0, 1].any()
        assert not weights[0, :, 1].any()
        output[0, 1].sum().backward()
        assert not source.grad.any()
        assert all(torch.isfinite(weight.grad).all() for weight in layer.parameters() if weight.grad is not None)

    def test_a_mask_of_numbers_is_refused_unless_they_are_zeros_and_ones(self, layer):
        query, source = torch.randn(1, 2, 16), torch.randn(1, 3, 16)
        with pytest.raises(ValueError, match="must be boolean with True = allowed"):
            layer(query, source, torch.ones(1, 3))
        with pytest.raises(ValueError, match="must hold 0 and 1 only"):
            layer(query, source, torch.full((1, 3), 2))


@pytest.mark.parametrize("attention", BACKENDS)
def test_a_model_whose_masks_leave_nothing_is_finite(attention):
    model = small_model(attention=attention, cross_mask="prefix(0)").train()
    out = model(**batch("left"), labels=tokens(2, 5))
    out.loss.backward()
    assert torch.isfinite(out.logits).all()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)
    other = batch("left")
    other["input_ids"] = other["input_ids"] + 1
    assert torch.equal(model(**other).logits, out.logits)


@pytest.mark.parametrize("attention", BACKENDS)
@pytest.mark.parametrize("fields", [{}, {"memory_length": 3}, {"cross_attention_score": "additive"}])
def test_a_source_that_is_all_padding_tells_nothing(fields, attention):
    model, source, labels = small_model(attention=attention, **fields), tokens(2, 5), tokens(2, 3, seed=1)
    attention_mask = torch.tensor([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    out = model(input_ids=source, attention_mask=attention_mask, labels=labels)
    out.loss.backward()
    assert torch.isfinite(out.logits).all()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())
    other = torch.cat([source[:1], tokens(1, 5, seed=2)])
    changed = model(input_ids=other, attention_mask=attention_mask, labels=labels)
    close(changed.logits, out.logits)
    generated = model.generate(source, attention_mask=attention_mask, num_beams=2, max_new_tokens=4)
    assert generated.shape[0] == 2


@pytest.mark.parametrize(
    ("source", "target", "side"),
    [((2, 0), (2, 3), "Encoder"), ((2, 3), (2, 0), "Decoder"), ((0, 3), (0, 3), "Encoder")],
)
def test_inputs_without_tokens_are_refused(source, target, side):
    message = f"{side}: an input of shape .* has no tokens; leave empty batches out"
    with pytest.raises(ValueError, match=message):
        small_model()(input_ids=tokens(*source), decoder_input_ids=tokens(*target))
    if 0 in source:
        with pytest.raises(ValueError, match=message):
            small_model().generate(tokens(*source))
