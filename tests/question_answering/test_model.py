import copy
import json

import pytest
import torch
from new_process import run_code
from peft import LoraConfig, get_peft_model
from question_cases import CONTEXT, LENGTH, QUESTION, batch_of, model_of, padded
from tiny_encoders import FAMILIES, base_model, encoder_config
from transformers import AutoConfig, AutoModelForQuestionAnswering, BertForMaskedLM
from transformers.modeling_outputs import BaseModelOutput

import crossmask
from crossmask import CrossMaskForQuestionAnswering, CrossMaskQuestionAnsweringConfig, masks
from crossmask.hub.registration import register

LOWEST = torch.finfo(torch.float32).min
NO_TOKEN_MASKS = ("deberta-v2",)
"""Families whose encoders take no mask from token to token."""

families = pytest.mark.parametrize("family", FAMILIES)


def pad_token(model) -> int:
    return model.config.encoder.pad_token_id


def scores(model, **inputs) -> torch.Tensor:
    """Start and end scores, (B, 2, S)."""
    with torch.no_grad():
        outputs = model(**inputs)
    return torch.stack((outputs.start_logits, outputs.end_logits), dim=1)


@families
def test_scores_are_those_of_the_context_alone(family):
    model, batch = model_of(family), batch_of()
    found = scores(model, **batch)
    assert found.shape == (2, 2, LENGTH)
    inside = (batch["passage_ids"] >= 0)[:, None].expand_as(found)
    assert (found[~inside] == LOWEST).all()
    assert found[inside].isfinite().all()
    assert (found[inside] > LOWEST / 2).all()
    assert found[:, 0][batch["passage_ids"] >= 0].std() > 1e-2


@families
def test_question_and_context_both_count(family):
    model, batch = model_of(family), batch_of()
    before = scores(model, **batch)
    for place in (1, LENGTH - 3):
        changed = batch["input_ids"].clone()
        changed[:, place] = 5 + (changed[:, place] - 4) % 50
        inside = batch["passage_ids"] >= 0
        difference = (scores(model, **{**batch, "input_ids": changed}) - before)[:, 0][inside]
        assert difference.abs().max() > 1e-3


@families
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_changes_nothing(family, attention):
    model, batch = model_of(family), batch_of()
    if attention == "sdpa" and not model.encoder._supports_sdpa:
        pytest.skip("the encoder has eager attention alone")
    model.set_attn_implementation(attention)
    assert model.encoder.config._attn_implementation == attention
    expected = scores(model, **batch)
    found = scores(model, **padded(batch, pad_token(model), right=5))
    torch.testing.assert_close(found[..., :LENGTH], expected, rtol=1e-4, atol=1e-4)
    assert (found[..., LENGTH:] == LOWEST).all()


@families
def test_saved_and_loaded_through_auto_class_it_scores_the_same(family, tmp_path):
    register()  # pytest has imported the package once more, by its folder's name
    model, batch = model_of(family, no_answer=True, cross_mask="drop((7, 8))"), batch_of()
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded, CrossMaskForQuestionAnswering)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert isinstance(AutoConfig.from_pretrained(tmp_path), CrossMaskQuestionAnsweringConfig)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(scores(loaded, **batch), scores(model, **batch))  # to rounding
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).no_answer_logits, model(**batch).no_answer_logits)


@families
def test_building_on_a_model_leaves_it_as_it_was(family):
    base = base_model(family)
    config, weights = copy.deepcopy(base.config), copy.deepcopy(base.state_dict())
    attention = base.config._attn_implementation
    model = CrossMaskForQuestionAnswering.from_encoder_pretrained(base)
    model.set_attn_implementation("eager")
    model.train()
    model(**batch_of(), start_positions=torch.tensor([7, 8]), end_positions=torch.tensor([8, 8])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert base.config.to_dict() == config.to_dict()
    assert base.config._attn_implementation == attention
    assert not base.training
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert all(parameter.grad is None for parameter in base.parameters())


@families
def test_every_parameter_learns(family):
    model = model_of(family, no_answer=True).train()
    positions = torch.tensor([7, -1])
    model(**batch_of(), start_positions=positions, end_positions=positions).loss.backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not idle - {"encoder.embeddings.token_type_embeddings.weight"}, idle


@families
def test_gradient_checkpointing_gives_the_same_gradients(family):
    model, positions = model_of(family).train(), torch.tensor([7, 8])
    if not model.supports_gradient_checkpointing:
        pytest.skip("the encoder has none")
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        model(**batch_of(), start_positions=positions, end_positions=positions).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@families
def test_a_blind_span_is_read_by_nothing(family):
    model, batch = model_of(family, no_answer=True), batch_of()
    changed = batch["input_ids"].clone()
    changed[:, 8:10] = torch.tensor([[11, pad_token(model)], [pad_token(model), 14]])
    hidden = masks.blind((8, 10))

    def everything(input_ids, **call_masks):
        model.zero_grad()
        positions = torch.tensor([7, 11])
        inputs = {**batch, "input_ids": input_ids, "start_positions": positions, "end_positions": positions}
        outputs = model(**inputs, **call_masks)
        outputs.loss.backward()
        gradient = model.pointer.k_proj.weight.grad.clone()
        return outputs.start_logits, outputs.end_logits, outputs.no_answer_logits, outputs.loss, gradient

    for call_masks in ({"cross_mask": hidden}, {"cross_mask": "blind((8, 10))"}):
        before, after = everything(batch["input_ids"], **call_masks), everything(changed, **call_masks)
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
        assert (before[0][:, 8:10] == LOWEST).all()
    assert not torch.equal(everything(batch["input_ids"])[0], everything(changed)[0])


@families
def test_encoder_mask_is_obeyed_or_refused_by_name(family):
    model, batch = model_of(family), batch_of(passages=3)
    call = {"encoder_mask": "window(2)"}
    if family in NO_TOKEN_MASKS:
        with pytest.raises(masks.MaskError, match=r"encoder_mask must be full.*DebertaV2Model encodes"):
            model(**batch, **call)
        return
    attentions = ("eager", "sdpa")
    found = []
    for attention in attentions:
        model.set_attn_implementation(attention)
        found.append(scores(model, **batch, **call))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[0], scores(model, **batch), atol=1e-3)
    # Two layers carry a token no further than four to either side; the pointer reads the question alone.
    changed = batch["input_ids"].clone()
    changed[:, -2] = 5 + (changed[:, -2] - 4) % 50
    after = scores(model, **{**batch, "input_ids": changed}, **call)
    reached = after != found[1]
    assert not reached[..., : LENGTH - 6].any()
    assert reached[..., LENGTH - 6 : -1].any()
    # A tensor of the same meaning.
    place = torch.arange(LENGTH)
    near = (place[:, None] - place).abs() <= 2
    tensor = near[None].expand(2, -1, -1)
    torch.testing.assert_close(scores(model, **batch, encoder_mask=tensor), found[1])


@families
def test_an_encoder_mask_that_allows_all_changes_nothing(family):
    if family in NO_TOKEN_MASKS:
        pytest.skip("no mask from token to token")
    model = model_of(family)
    batch = padded(batch_of(), pad_token(model), right=3)
    torch.testing.assert_close(scores(model, **batch, encoder_mask="full()"), scores(model, **batch))


@families
def test_what_a_token_without_keys_knows_is_itself(family):
    if family in (*NO_TOKEN_MASKS, "crossmask"):
        pytest.skip("no mask from token to token, or zero for such a token")
    model, batch = model_of(family), batch_of()
    changed = batch["input_ids"].clone()
    changed[:, -2] = 5 + (changed[:, -2] - 4) % 50
    nothing = torch.zeros(2, LENGTH, LENGTH, dtype=torch.bool)
    before = scores(model, **batch, encoder_mask=nothing)
    after = scores(model, **{**batch, "input_ids": changed}, encoder_mask=nothing)
    assert (before != after).any(1).sum() == 2
    assert (before != after)[..., -2].all()


@families
def test_a_blind_span_of_the_question_is_read_by_nothing(family):
    model, batch = model_of(family, no_answer=True), batch_of()
    changed = batch["input_ids"].clone()
    changed[:, 2:4] = torch.tensor([[11, 12], [13, 14]])
    for call_masks in ({"cross_mask": "blind((2, 4))"}, {"encoder_mask": "blind((2, 4))"}):
        with torch.no_grad():
            before, after = (
                model(**{**batch, "input_ids": ids}, **call_masks) for ids in (batch["input_ids"], changed)
            )
        assert torch.equal(before.start_logits, after.start_logits)
        assert torch.equal(before.no_answer_logits, after.no_answer_logits)


@families
def test_a_blind_span_stays_hidden_beside_an_encoder_mask(family):
    if family in NO_TOKEN_MASKS:
        pytest.skip("no mask from token to token")
    model, batch = model_of(family), batch_of()
    changed = batch["input_ids"].clone()
    changed[:, 8:10] = 11
    tensor = torch.ones(2, LENGTH, LENGTH, dtype=torch.bool).tril(3)
    for encoder_mask in ("window(3)", tensor, "window(3) & blind((8, 10))"):
        call = {"encoder_mask": encoder_mask, "cross_mask": "blind((8, 10))"}
        before, after = scores(model, **batch, **call), scores(model, **{**batch, "input_ids": changed}, **call)
        assert torch.equal(before, after)


def test_masks_of_config_and_call_are_joined():
    batch = batch_of(passages=3)
    model = model_of("bert", cross_mask="keep(passages=(0, 1))")
    outside = batch["passage_ids"][0] == 2
    assert (scores(model, **batch)[..., outside] == LOWEST).all()
    kept = scores(model, **batch, cross_mask=masks.keep(passages=(1, 2)))
    assert torch.equal((kept > LOWEST)[0, 0], batch["passage_ids"][0] == 1)


def test_a_mask_over_the_context_leaves_the_question_readable():
    model, batch = model_of("bert"), batch_of(passages=3)
    kept = scores(model, **batch, cross_mask="keep(passages=(1,))")
    inside = batch["passage_ids"] == 1
    assert torch.equal(kept[:, 0][inside], scores(model, **batch)[:, 0][inside])


@pytest.mark.parametrize("kind", ["two", "three", "four dimensions", "one row", "rule"])
def test_tensor_masks(kind):
    model, batch = model_of("bert"), batch_of()
    allowed = torch.zeros(2, LENGTH, dtype=torch.bool)
    allowed[:, 9:12] = True
    given = {
        "two": allowed,
        "three": allowed[:, None].expand(-1, 2, -1),
        "four dimensions": allowed[:, None, None],
        "one row": allowed[:1],
        "rule": "keep((9, 12))",
    }[kind]
    found = scores(model, **batch, cross_mask=given)
    assert torch.equal(found > LOWEST, allowed[:, None].expand(-1, 2, -1))
    ends = torch.stack((allowed, allowed.roll(1, -1)), dim=1)
    assert torch.equal(scores(model, **batch, cross_mask=ends) > LOWEST, ends)


def test_positions_in_masks_are_counted_from_the_first_token_that_is_not_padding():
    model, batch = model_of("crossmask"), batch_of()
    expected = scores(model, **batch, cross_mask="keep((8, 10))")
    found = scores(model, **padded(batch, 0, left=3), cross_mask="keep((8, 10))")
    assert torch.equal(found[..., 3:] > LOWEST, expected > LOWEST)


def test_token_types_stand_for_passages_and_leave_the_last_separator_out():
    model, batch = model_of("bert"), batch_of()
    types = torch.zeros_like(batch["input_ids"])
    types[:, QUESTION + 2 :] = 1
    del batch["passage_ids"]
    batch = padded({**batch, "token_type_ids": types}, 0, right=2)
    found = scores(model, **batch)
    allowed = torch.zeros(LENGTH + 2, dtype=torch.bool)
    allowed[QUESTION + 2 : QUESTION + 2 + CONTEXT] = True
    assert torch.equal((found > LOWEST)[0, 0], allowed)
    batch["attention_mask"] = None
    assert torch.equal((scores(model, **batch) > LOWEST)[0, 0], allowed)


def test_token_types_reach_encoders_that_read_them_and_no_others():
    for family, reads in (("bert", True), ("roberta", False), ("distilbert", False)):
        model, batch = model_of(family), batch_of()
        types = (batch["passage_ids"] >= 0).long()
        same = torch.equal(scores(model, **batch, token_type_ids=types), scores(model, **batch))
        assert same != reads, family


def test_no_answer_reads_what_may_be_the_answer_and_no_more():
    model, batch = model_of("crossmask", no_answer=True, pointer_layers=2), batch_of(passages=3)
    # The states of tokens that see themselves alone.
    model.encoder.forward = lambda input_ids, **_: BaseModelOutput(model.encoder.embed_tokens(input_ids))

    def none(place=None, **call_masks):
        changed = batch["input_ids"].clone()
        if place is not None:
            changed[:, place] = 5 + (changed[:, place] - 4) % 50
        with torch.no_grad():
            return model(**{**batch, "input_ids": changed}, **call_masks).no_answer_logits

    assert none().shape == (2,)
    assert not torch.equal(none(), none(8))
    kept = {"cross_mask": "keep(passages=(1,))"}
    assert torch.equal(none(**kept), none(8, **kept))
    assert not torch.equal(none(**kept), none(10, **kept))
    assert not torch.equal(none(**kept), none(2, **kept))


def test_a_pointer_without_layers_points_by_two_queries_that_read_nothing():
    model, batch = model_of("bert", pointer_layers=0), batch_of()
    start, end = scores(model, **batch).unbind(1)
    states = model.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    pointer = model.pointer
    queries = pointer.q_proj(pointer.norm(pointer.queries))
    expected = pointer.k_proj(states) @ queries.T * pointer.scaling
    allowed = start > torch.finfo(start.dtype).min
    torch.testing.assert_close(start[allowed], expected[..., 0][allowed])
    torch.testing.assert_close(end[allowed], expected[..., 1][allowed])
    assert (allowed == (batch["passage_ids"] >= 0)).all()
    assert model.set_attn_implementation("eager") is None
    assert model(**batch, output_attentions=True).pointer_attentions == ()


def test_weights_of_the_pointer_are_returned_and_rest_on_the_question():
    model, batch = model_of("bert", pointer_layers=2), batch_of()
    model.set_attn_implementation("eager")
    outputs = model(**batch, output_attentions=True, output_hidden_states=True)
    assert len(outputs.pointer_attentions) == 2
    assert outputs.pointer_attentions[0].shape == (2, 4, 2, LENGTH)
    assert (outputs.pointer_attentions[0][..., batch["passage_ids"][0] >= 0] == 0).all()
    assert len(outputs.attentions) == 2
    assert len(outputs.hidden_states) == 3
    assert model(**batch, return_dict=False)[0].shape == (2, LENGTH)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"passage_ids": None}, ValueError, "passage_ids must say which tokens are the context"),
        ({"passages": None}, TypeError, "no argument is called passages; did you mean passage_ids"),
        ({"input_ids": None}, ValueError, "give either input_ids or inputs_embeds"),
        (
            {"input_ids": torch.ones(2, 0, dtype=torch.long)},
            ValueError,
            r"must be \(batch, length\) with at least one",
        ),
        ({"input_ids": torch.ones(1, 70, dtype=torch.long)}, ValueError, "at most 64 tokens, .* got 70"),
        ({"start_positions": torch.tensor([7, 7])}, ValueError, "give both start_positions and end_positions"),
        ({"cross_mask": torch.ones(2, 3)}, masks.MaskError, "cross_mask: a tensor mask must be boolean"),
        (
            {"cross_mask": torch.ones(2, 3, dtype=torch.bool)},
            masks.MaskError,
            r"cross_mask must be \(2, 16\), or \(2, 2, 16\) with a row for .* got \(2, 3\)",
        ),
        (
            {"cross_mask": torch.ones(2, 5, LENGTH, dtype=torch.bool)},
            masks.MaskError,
            r"cross_mask must be .*got \(2, 5, 16\)",
        ),
        ({"cross_mask": "keep((20, 21))"}, masks.MaskError, "cross_mask: keep: a span must end within the 16 tokens"),
        ({"cross_mask": "blind((8, 9)) | keep((3, 4))"}, masks.MaskError, "could be read; join it by &"),
        ({"encoder_mask": "~blind((8, 9))"}, masks.MaskError, "encoder_mask: blind.* could be read"),
        ({"encoder_mask": torch.ones(2, 3, 3, dtype=torch.bool)}, masks.MaskError, "encoder_mask"),
        (
            {"encoder_mask": 'layers({"0": "window(1)", "rest": "full()"})'},
            masks.MaskError,
            "encoder_mask must be the same in every layer",
        ),
    ],
)
def test_bad_calls(change, error, message):
    with pytest.raises(error, match=message):
        model_of("bert")(**{**batch_of(), **change})


def test_roberta_counts_positions_from_behind_its_padding_index():
    batch = batch_of()
    with pytest.raises(ValueError, match="at most 64 tokens, which is what the encoder takes, got 65"):
        model_of("roberta")(**padded(batch, 1, right=65 - LENGTH))
    model_of("roberta")(**padded(batch, 1, right=64 - LENGTH))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder": 3}, "encoder must be a config, or a dictionary with model_type, got 3"),
        ({"encoder": {"hidden_size": 3}}, "encoder must be a config, or a dictionary with model_type"),
        ({"hidden_size": 32}, "hidden_size must be given in encoder, whose it is"),
        ({"pointer_layers": -1}, "pointer_layers must be at least 0, got -1"),
        ({"pointer_layers": 0, "no_answer": True}, "at least 1 with no_answer, whose query has to read, got 0"),
        ({"num_attention_heads": 5}, "num_attention_heads must divide the encoder's hidden_size of 768, got 5"),
        ({"attention_dropout": 1.0}, "attention_dropout must be from 0 to less than 1"),
        ({"initializer_range": 0.0}, "initializer_range must be a finite number of more than 0"),
        ({"cross_mask": "nothing()"}, "cross_mask: .*nothing"),
        ({"cross_mask": {"1": "full()"}}, "cross_mask: '1' names layer 1, but there are 1 layers"),
        ({"cross_mask": 'heads({"0": "full()", "1": "window(2)"})'}, "cross_mask: .*head"),
        ({"cross_mask": "random(p=0.1, seed=1)"}, "cross_mask: random.* would forbid the same pairs at every step"),
    ],
)
def test_bad_configs(fields, message):
    with pytest.raises(Exception, match=message):
        CrossMaskQuestionAnsweringConfig(**fields)


def test_config_copies_the_encoder_and_keeps_its_attention():
    given = encoder_config("bert")
    given._attn_implementation = "eager"
    config = CrossMaskQuestionAnsweringConfig(encoder=given)
    assert config.encoder is not given
    assert config.encoder._attn_implementation == "eager"
    assert given._attn_implementation == "eager"
    again = CrossMaskQuestionAnsweringConfig.from_dict(json.loads(config.to_json_string()))
    assert again.to_dict() == config.to_dict()
    assert (config.hidden_size, config.vocab_size, config.num_hidden_layers) == (32, 60, 2)


def test_options_for_a_model_that_is_loaded_already_are_refused():
    with pytest.raises(ValueError, match=r"encoder_kwargs .* have no effect on a model that is loaded"):
        CrossMaskForQuestionAnswering.from_encoder_pretrained(
            base_model("bert"), encoder_kwargs={"dtype": torch.bfloat16}
        )


def test_an_encoder_with_a_memory_is_refused():
    config = encoder_config("crossmask")
    config.memory_length = 4
    message = "memory_length=4, which leaves no states of tokens"
    with pytest.raises(ValueError, match=message):
        CrossMaskForQuestionAnswering(CrossMaskQuestionAnsweringConfig(encoder=config))


def test_it_is_built_on_a_folder_and_on_a_model_with_a_head(tmp_path):
    torch.manual_seed(0)
    with_head = BertForMaskedLM(encoder_config("bert")).eval()
    with_head.save_pretrained(tmp_path)
    models = [
        CrossMaskForQuestionAnswering.from_encoder_pretrained(given) for given in (str(tmp_path), tmp_path, with_head)
    ]
    batch = batch_of()
    del batch["passage_ids"]
    expected = with_head.bert(**batch).last_hidden_state
    for model in models:
        assert torch.equal(model.encoder(**batch).last_hidden_state, expected)
        assert model.config.encoder.name_or_path == ""


def test_resized_embeddings_are_saved_with_their_size(tmp_path):
    for family in ("bert", "t5", "crossmask"):
        model = model_of(family)
        model.resize_token_embeddings(70)
        model.save_pretrained(tmp_path / family)
        loaded = AutoModelForQuestionAnswering.from_pretrained(tmp_path / family)
        assert loaded.get_input_embeddings().weight.shape == (70, 32)
        assert loaded.config.vocab_size == 70


LOADED = """
import torch
from transformers import AutoModelForQuestionAnswering
for folder in sys.argv[1:]:
    model = AutoModelForQuestionAnswering.from_pretrained(folder, trust_remote_code=True).eval()
    case = torch.load(folder + "/case.pt")
    with torch.no_grad():
        outputs = model(**case["batch"])
    found = torch.stack((outputs.start_logits, outputs.end_logits), dim=1)
    torch.testing.assert_close(found, case["expected"])
    model(**case["batch"], cross_mask="blind((8, 10))")
"""


def test_code_files_load_where_crossmask_is_not_installed(tmp_path):
    folders = [tmp_path / family for family in ("bert", "t5", "crossmask")]
    for folder in folders:
        model, batch = model_of(folder.name, no_answer=True), batch_of()
        model.save_pretrained(folder)
        torch.save({"batch": batch, "expected": scores(model, **batch)}, folder / "case.pt")
    run_code(LOADED, *folders, cwd=tmp_path)


def test_it_compiles_as_one_graph():
    for family in ("bert", "t5", "crossmask"):
        torch.compiler.reset()
        model, batch = model_of(family, no_answer=True, cross_mask="keep(passages=(0, 1))"), batch_of(passages=3)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(scores(compiled, **batch), scores(model, **batch))


def test_a_mask_of_the_config_may_change():
    model, batch = model_of("bert"), batch_of(passages=3)
    scores(model, **batch)
    model.config.cross_mask = masks.keep(passages=(2,))
    assert torch.equal((scores(model, **batch) > LOWEST)[0, 0], batch["passage_ids"][0] == 2)


def test_adapters_of_peft_learn():
    model = model_of("bert").train()
    adapted = get_peft_model(model, LoraConfig(target_modules=["query", "value"], modules_to_save=["pointer"], r=2))
    positions = torch.tensor([7, 8])
    adapted(**batch_of(), start_positions=positions, end_positions=positions).loss.backward()
    for name, parameter in adapted.named_parameters():
        # The first of an adapter's two matrices learns once the second is no longer zero.
        learns = parameter.requires_grad and "lora_A" not in name
        assert learns == bool(parameter.grad is not None and parameter.grad.any()), name


def test_the_package_exports_it():
    assert crossmask.CrossMaskForQuestionAnswering is CrossMaskForQuestionAnswering
