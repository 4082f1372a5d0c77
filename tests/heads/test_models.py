"""What holds for every head, on every family of encoders."""

import copy

import pytest
import torch
from head_cases import (
    CLASSES,
    HEADS,
    LENGTH,
    NO_TOKEN_MASKS,
    POOLED,
    TAGGED,
    batch_of,
    changed,
    head,
    labels_of,
    logits,
    pad_token,
    padded,
)
from new_process import run_code
from tiny_encoders import base_model, encoder_config
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForSequenceClassification,
)

from crossmask import (
    CrossMaskForConditionalGeneration,
    CrossMaskForQuestionAnswering,
    CrossMaskForSequenceClassification,
    CrossMaskForTokenClassification,
    CrossMaskSequenceClassificationConfig,
    CrossMaskTokenClassificationConfig,
    masks,
)
from crossmask.hub.registration import register

heads = pytest.mark.parametrize("name", HEADS)
pooled = pytest.mark.parametrize("name", POOLED)
tagged = pytest.mark.parametrize("name", TAGGED)
CONFIGS = {
    CrossMaskForSequenceClassification: (CrossMaskSequenceClassificationConfig, AutoModelForSequenceClassification),
    CrossMaskForTokenClassification: (CrossMaskTokenClassificationConfig, AutoModelForTokenClassification),
}


def obeys_token_masks(model) -> bool:
    return model.config.encoder.model_type not in NO_TOKEN_MASKS


@heads
def test_scores_depend_on_the_tokens_and_not_on_the_batch(name):
    model = head(name)
    batch = batch_of(model)
    found = logits(model, batch)
    assert found.shape == ((2, CLASSES) if name in POOLED else (2, LENGTH, CLASSES))
    assert (logits(model, changed(batch, [3])) - found).abs().max() > 1e-3
    alone = logits(model, {name: tensor[1:] for name, tensor in batch.items()})
    torch.testing.assert_close(alone, found[1:], rtol=1e-4, atol=1e-4)


@heads
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_changes_nothing(name, attention):
    model = head(name)
    if attention == "sdpa" and not model.encoder._supports_sdpa:
        pytest.skip("the encoder has eager attention alone")
    model.set_attn_implementation(attention)
    batch = batch_of(model)
    expected = logits(model, batch)
    found = logits(model, padded(batch, pad_token(model), right=5))
    found = found if name in POOLED else found[:, :LENGTH]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@heads
def test_padding_on_the_left_changes_nothing_or_is_refused(name):
    model = head(name)
    batch = batch_of(model)
    shifted = padded(batch, pad_token(model), left=3)
    if name.startswith("bart"):  # which numbers positions by itself
        with pytest.raises(masks.MaskError, match=r"sources must not be padded on the left where .* encodes"):
            logits(model, shifted)
        return
    found = logits(model, shifted)
    found = found if name in POOLED else found[:, 3:]
    torch.testing.assert_close(found, logits(model, batch), rtol=1e-4, atol=1e-4)


@heads
def test_saved_and_loaded_through_its_auto_class_it_scores_the_same(name, tmp_path):
    register()  # pytest has imported the package once more, by its folder's name
    model = head(name, encoder_mask="window(40)" if obeys_token_masks(head(name)) else "full()")
    model.config.id2label = {0: "no", 1: "maybe", 2: "yes"}
    model.save_pretrained(tmp_path)
    config_class, auto_class = CONFIGS[type(model)]
    loaded, info = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is type(model)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, config_class)
    assert config.id2label[2] == "yes"
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    batch = batch_of(model)
    torch.testing.assert_close(logits(loaded, batch), logits(model, batch))  # to rounding


@heads
def test_every_parameter_learns_and_the_base_model_stays_as_it_was(name):
    family = HEADS[name][1]
    base = base_model(family)
    weights = copy.deepcopy(base.state_dict())
    model = type(head(name)).from_encoder_pretrained(base, num_labels=CLASSES, **HEADS[name][2]).train()
    batch = batch_of(model)
    model(**batch, labels=labels_of(model, batch)).loss.backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not idle - {"encoder.embeddings.token_type_embeddings.weight"}, idle
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    for key, tensor in base.state_dict().items():
        assert torch.equal(tensor, weights[key]), key


@heads
def test_the_loss_is_a_mean_or_a_sum_over_what_the_caller_counts(name):
    model = head(name)
    batch = batch_of(model, rows=4)
    labels = labels_of(model, batch)
    with torch.no_grad():
        whole = model(**batch, labels=labels).loss
        count = (labels != -100).sum()
        parts = [
            model(
                **{key: tensor[rows] for key, tensor in batch.items()}, labels=labels[rows], num_items_in_batch=count
            ).loss
            for rows in (slice(0, 1), slice(1, 4))
        ]
    torch.testing.assert_close(sum(parts), whole)
    ignored = torch.full_like(labels, -100)
    assert model(**batch, labels=ignored).loss == 0


@heads
def test_a_blind_span_is_read_by_nothing(name):
    model = head(name)
    batch = batch_of(model)
    other = changed(batch, [5, 6])
    call = {"encoder_mask": "blind((5, 7))"} if name in TAGGED else {"cross_mask": masks.blind((5, 7))}
    before, after = logits(model, batch, **call), logits(model, other, **call)
    if name in TAGGED:  # a hidden token reads itself
        before, after = (torch.cat((found[:, :5], found[:, 7:]), dim=1) for found in (before, after))
    assert torch.equal(before, after)
    assert not torch.equal(logits(model, batch), logits(model, other))


@heads
def test_an_encoder_mask_in_config_and_call_is_obeyed_or_refused_by_name(name):
    model = head(name, encoder_mask="window(2)")
    batch = batch_of(model)
    if not obeys_token_masks(model):
        with pytest.raises(masks.MaskError, match=r"encoder_mask must be full.*DebertaV2Model encodes"):
            logits(model, batch)
        return
    plain = head(name)
    expected = logits(plain, batch, encoder_mask="window(2)")
    torch.testing.assert_close(logits(model, batch), expected)
    assert not torch.allclose(expected, logits(plain, batch), atol=1e-3)
    # Of the call and of the config: both hold.
    joined = logits(plain, batch, encoder_mask="window(2) & causal()")
    earlier = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    torch.testing.assert_close(logits(model, batch, encoder_mask="causal()"), joined)
    torch.testing.assert_close(logits(model, batch, encoder_mask=earlier[None].expand(2, -1, -1)), joined)
    assert not torch.allclose(joined, expected, atol=1e-3)


@pooled
def test_a_cross_mask_says_what_is_pooled(name):
    model = head(name)
    batch = batch_of(model)
    allowed = torch.zeros(2, LENGTH, dtype=torch.bool)
    allowed[:, 2:5] = True
    with torch.no_grad():
        outputs = model(**batch, cross_mask="keep((2, 5))")
    assert not torch.allclose(outputs.logits, logits(model, batch), atol=1e-3)
    torch.testing.assert_close(logits(model, batch, cross_mask=allowed), outputs.logits)
    torch.testing.assert_close(logits(head(name, cross_mask="keep((2, 5))"), batch), outputs.logits)
    shifted = padded(batch, pad_token(model), left=2) if name.startswith("crossmask") else None
    if shifted is not None:  # positions are counted without padding
        torch.testing.assert_close(logits(model, shifted, cross_mask="keep((2, 5))"), outputs.logits)
    if "mean" in name:
        states = model.encoder(**batch).last_hidden_state
        torch.testing.assert_close(outputs.pooler_output, states[:, 2:5].mean(1))
    nothing = model(**batch, cross_mask=torch.zeros_like(allowed))
    assert nothing.logits.isfinite().all()
    torch.testing.assert_close(nothing.logits[0], nothing.logits[1])


@pooled
def test_the_weights_of_the_pooling_query_are_returned(name):
    model = head(name)
    model.set_attn_implementation("eager")
    outputs = model(**batch_of(model), cross_mask="keep((2, 5))", output_attentions=True, output_hidden_states=True)
    assert outputs.pooler_output.shape == (2, 32)
    if "attention" not in name:
        assert outputs.pooler_attentions is None
    else:
        assert outputs.pooler_attentions.shape == (2, 4, 1, LENGTH)
        assert outputs.pooler_attentions[..., 5:].sum() == 0
        torch.testing.assert_close(outputs.pooler_attentions.sum(-1), torch.ones(2, 4, 1))
    assert len(outputs.attentions) == 2
    assert len(outputs.hidden_states) == 3


@tagged
def test_marks_tell_tokens_apart_and_no_mark_is_none(name):
    model = head(name)
    batch = batch_of(model)
    marked = logits(model, batch)
    unmarked = {key: tensor for key, tensor in batch.items() if key != "marker_ids"}
    other = {**batch, "marker_ids": batch["marker_ids"].roll(1, -1)}
    assert (logits(model, other) - marked).abs().max() > 1e-3
    zeros = {**batch, "marker_ids": torch.zeros_like(batch["marker_ids"])}
    torch.testing.assert_close(logits(model, zeros), logits(model, unmarked), rtol=1e-4, atol=1e-4)
    assert (logits(model, zeros) - marked).abs().max() > 1e-3


@heads
def test_gradient_checkpointing_gives_the_same_gradients(name):
    model = head(name).train()
    if not model.supports_gradient_checkpointing:
        pytest.skip("the encoder has none")
    batch = batch_of(model)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        model(**batch, labels=labels_of(model, batch)).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, msg=key)


def test_saved_models_load_where_crossmask_is_not(tmp_path):
    for name in ("bert, attention", "crossmask, decoder", "bert, tags"):
        model = head(name, encoder_mask="window(9)")
        model.save_pretrained(tmp_path / name)
        batch = batch_of(model)
        torch.save({"batch": batch, "expected": logits(model, batch)}, tmp_path / name / "case.pt")
    program = """
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
for folder in sys.argv[1:]:
    auto_class = AutoModelForTokenClassification if "tags" in folder else AutoModelForSequenceClassification
    model = auto_class.from_pretrained(folder, trust_remote_code=True).eval()
    case = torch.load(folder + "/case.pt")
    with torch.no_grad():
        torch.testing.assert_close(model(**case["batch"]).logits, case["expected"])
"""
    run_code(program, *tmp_path.iterdir(), cwd=tmp_path)


@pytest.mark.parametrize("name", ["bert, attention", "t5, mean", "crossmask, decoder", "bert, tags"])
def test_it_compiles_as_one_graph(name):
    torch.compiler.reset()
    model = head(name)
    batch = batch_of(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(logits(compiled, batch), logits(model, batch))


def test_the_head_has_the_attention_that_the_encoder_was_loaded_with():
    base = base_model("bert")
    for attention in ("eager", "sdpa"):
        base.set_attn_implementation(attention)
        model = CrossMaskForSequenceClassification.from_encoder_pretrained(base, pooling="attention")
        found = {model.config._attn_implementation, model.pooler.layer.attn.config._attn_implementation}
        assert found | {model.encoder.config._attn_implementation} == {attention}


def test_the_decoder_of_a_saved_network_comes_along():
    base = base_model("crossmask")
    model = CrossMaskForSequenceClassification.from_encoder_pretrained(base, pooling="decoder")
    batch = batch_of(model)
    with torch.no_grad():
        expected = base(
            input_ids=batch["input_ids"], decoder_input_ids=batch["input_ids"], use_cache=False
        ).last_hidden_state[:, -1]
        torch.testing.assert_close(model(**batch).pooler_output, expected)


@pytest.mark.parametrize("kind", ["regression", "several numbers", "several labels", "one label"])
def test_the_loss_of_each_kind_of_problem_is_that_of_transformers(kind):
    classes, labels = {
        "regression": (1, torch.tensor([0.5, -1.0])),
        "several numbers": (2, torch.tensor([[0.5, -1.0], [2.0, 0.0]])),
        "several labels": (2, torch.tensor([[1.0, 0.0], [1.0, 1.0]])),
        "one label": (2, torch.tensor([1, 0])),
    }[kind]
    problem = "regression" if kind == "several numbers" else None
    model = head("bert, mean", num_labels=classes, problem_type=problem)
    batch = batch_of(model)
    outputs = model(**batch, labels=labels)
    config = copy.deepcopy(model.config.encoder)
    config.problem_type, config.num_labels = problem, classes
    other = BertForSequenceClassification(config)
    expected = other.loss_function(labels=labels, pooled_logits=outputs.logits, config=other.config)
    torch.testing.assert_close(outputs.loss, expected)
    doubled = model(**batch, labels=labels, num_items_in_batch=2 * labels.numel()).loss
    torch.testing.assert_close(doubled, expected / 2)


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("bert, mean", {"input_ids": None}, ValueError, "give either input_ids or inputs_embeds"),
        ("bert, mean", {"input_id": None}, TypeError, "no argument is called input_id; did you mean input_ids"),
        ("bert, mean", {"labels": torch.tensor([0, 3])}, ValueError, "labels must be from 0 to 2, .* got 3"),
        ("bert, mean", {"labels": torch.tensor([0])}, ValueError, r"labels must be \(2,\), one for each text"),
        ("bert, mean", {"labels": torch.tensor([0.0, 1])}, ValueError, r"labels must be \(2, 3\), a number for each"),
        ("bert, mean", {"cross_mask": torch.ones(2, 3)}, masks.MaskError, "cross_mask: a tensor mask must be boolean"),
        (
            "bert, mean",
            {"cross_mask": torch.ones(2, 3, dtype=torch.bool)},
            masks.MaskError,
            r"cross_mask must be \(2, 12\), which tokens are pooled, got \(2, 3\)",
        ),
        ("bert, mean", {"cross_mask": "keep((9, 20))"}, masks.MaskError, "cross_mask: keep: a span must end within"),
        ("bert, mean", {"cross_mask": "blind((2, 3)) | keep((3, 4))"}, masks.MaskError, "could be read; join it by &"),
        ("bert, tags", {"cross_mask": "full()"}, TypeError, "no argument is called cross_mask"),
        (
            "bert, tags",
            {"marker_ids": torch.full((2, LENGTH), 3)},
            ValueError,
            "marker_ids must be from 0, no mark, to 2, got 3",
        ),
        ("bert, tags", {"marker_ids": torch.ones(2, 3).long()}, ValueError, r"marker_ids must be \(2, 12\), got"),
        ("bert, tags", {"labels": torch.full((2, LENGTH), 3)}, ValueError, "labels must be from 0 to 2"),
    ],
)
def test_bad_calls(name, change, error, message):
    model = head(name)
    with pytest.raises(error, match=message):
        model(**{**batch_of(model), **change})


def test_marks_for_a_model_without_marks_are_refused():
    model = head("bert, tags", marker_vocab_size=0)
    with pytest.raises(
        ValueError, match="marker_ids must be left out of a model without marks; set marker_vocab_size"
    ):
        model(**batch_of(model))


@pytest.mark.parametrize(
    ("config_class", "fields", "message"),
    [
        (CrossMaskSequenceClassificationConfig, {"pooling": "decoder"}, "pooling must be attention or mean on an enc"),
        (CrossMaskSequenceClassificationConfig, {"pooling": "max"}, "pooling"),
        (CrossMaskSequenceClassificationConfig, {"classifier_dropout": 1.0}, "classifier_dropout must be from 0 to"),
        (CrossMaskSequenceClassificationConfig, {"hidden_size": 8}, "hidden_size must be given in encoder"),
        (CrossMaskSequenceClassificationConfig, {"cross_mask": "nothing()"}, "cross_mask: .*nothing"),
        (
            CrossMaskTokenClassificationConfig,
            {"marker_vocab_size": -1},
            "marker_vocab_size must be at least 0, got -1",
        ),
        (CrossMaskTokenClassificationConfig, {"encoder_mask": {"1": "full()"}}, "encoder_mask: '1' names layer 1"),
        (CrossMaskTokenClassificationConfig, {"encoder": 3}, "encoder must be a config, or a dictionary"),
    ],
)
def test_bad_configs(config_class, fields, message):
    with pytest.raises(Exception, match=message):
        config_class(**fields)


@pytest.mark.parametrize("model_class", [*CONFIGS, CrossMaskForConditionalGeneration])
def test_the_checkpoint_of_another_class_is_refused(model_class, tmp_path):
    """Also where it has a config of the wanted type within its own."""
    others = [other for other in (*CONFIGS, CrossMaskForQuestionAnswering) if other is not model_class]
    for other in others:
        other.from_encoder_pretrained(base_model("crossmask")).save_pretrained(tmp_path)
        wanted, found = (one.config_class.model_type for one in (model_class, other))
        message = f"must be a model of type {wanted}, got {found}; load it by {other.__name__}.from_pretrained"
        with pytest.raises(ValueError, match=message):
            model_class.from_pretrained(tmp_path)
    base_model("bert").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"got bert; load it by BertModel\.from_pretrained"):
        model_class.from_pretrained(tmp_path)


def test_an_encoder_with_a_memory_is_refused():
    config = encoder_config("crossmask")
    config.memory_length = 4
    with pytest.raises(ValueError, match="memory_length=4, which leaves no states of tokens"):
        CrossMaskForSequenceClassification(CrossMaskSequenceClassificationConfig(encoder=config))
