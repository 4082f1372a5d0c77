"""Planted leaks are found where they are, by either method, and nothing is found in the sound batch beside them."""

import re

import pytest
import torch
from audit_cases import CASES, PACKED
from small_models import pad, small_model, tokens
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from crossmask import audit, masks
from crossmask.seq2seq import mask_compiler

METHODS = ("gradient", "perturbation")
BATCH = {"input_ids": tokens(2, 5), "labels": tokens(2, 4, seed=1)}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_method = pytest.mark.parametrize("method", METHODS)


def found(report, side: str = "source") -> set[tuple[int, int, int]]:
    return {(leak.row, leak.target, leak.position) for leak in report.leaks if leak.side == side}


@each_case
def test_planted_leaks_are_found_where_they_are_and_nowhere_else(case):
    case = case()
    reports = [audit(case.model, case.leaking, method=method, **case.should) for method in METHODS]
    for report in reports:
        assert not report.ok
        assert found(report) == case.leaks
        assert report.cause.startswith(case.cause)
    for side in ("source", "target"):
        one, other = (getattr(report, side) for report in reports)
        assert one.measured.equal(other.measured)
    for method in METHODS:
        sound = audit(case.model, case.sound, method=method, **case.should)
        assert sound.ok
        assert sound.cause is None
    assert audit(case.model, case.sound).ok


def test_leaks_from_the_target_and_their_kinds():
    case = CASES["packed_without_segments"]()
    report = audit(case.model, case.leaking, **case.should)
    assert found(report, "target") == {(0, t, u) for t in (2, 3, 4) for u in (0, 1)}
    assert {leak.kind for leak in report.leaks} == {"segment", "padding"}
    report = audit(small_model(decoder_mask="full()"), BATCH, decoder_mask="causal()")
    assert found(report, "target") == {(row, t, u) for row in range(2) for t in range(4) for u in range(t + 1, 4)}
    assert {leak.kind for leak in report.leaks} == {"mask"}


@pytest.mark.parametrize(
    ("scope", "cause"),
    [
        ("cross", "every leak is the one source position after what is allowed: a mask that is off by one"),
        ("encoder", "the model reads as if encoder_mask window(left=0) were not applied"),
    ],
)
def test_a_fault_of_the_model_itself_is_found_without_any_declaration(monkeypatch, scope, cause):
    """The compiled mask is wrong, and config and batch are right: the reference must not share the fault."""
    compile_masks = mask_compiler.compile_masks

    def faulty(name, requests):
        compiled_masks = compile_masks(name, requests)
        if scope == "cross" and requests[0].rule == masks.wait_k(1):
            return [torch.cat([torch.ones_like(mask[..., :1]), mask[..., :-1]], dim=-1) for mask in compiled_masks]
        return [None] if scope == "encoder" and requests[0].rule == masks.window(0) else compiled_masks

    model = small_model(encoder_mask="window(0)", cross_mask="wait_k(1)")
    assert audit(model, BATCH).ok
    monkeypatch.setattr(mask_compiler, "compile_masks", faulty)
    report = audit(model, BATCH)
    assert report.cause.startswith(cause)
    if scope == "cross":
        assert found(report) == {(row, t, t + 1) for row in range(2) for t in range(4)}


@each_method
def test_rows_that_read_other_rows_are_found(method):
    class Mixing(type(small_model())):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output["logits"] = output.logits.clone()
            output.logits[1] = output.logits[1] + output.logits[0]
            return output

    model = small_model()
    assert not audit(model, BATCH, method=method).across.any()
    model.__class__ = Mixing
    report = audit(model, BATCH, method=method)
    assert report.across.tolist() == [[False, False], [True, False]]
    assert not report.ok
    assert "row 1 of 0" in str(report)


@each_method
def test_a_model_is_left_as_it_was(method):
    model = small_model(dropout=0.5).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    batch = dict(BATCH)
    assert audit(model, batch, method=method).ok  # with dropout, bits would differ from run to run
    assert model.training
    assert batch.keys() == BATCH.keys()
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def bart() -> BartForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 24))}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = BartConfig(vocab_size=40, d_model=16, init_std=0.5, **sizes, **heads, **special)
    return BartForConditionalGeneration(config)


def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 40}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=2))


@pytest.mark.parametrize("make", [bart, t5])
@each_method
def test_other_encoder_decoders(make, method):
    """BART has an embedding for each side, T5 one for both, whose start token is the padding token."""
    model = make()
    ids, attention_mask = pad([tokens(5), tokens(3, seed=2)], "left")
    batch = {"input_ids": ids, "labels": tokens(2, 4, seed=1)}
    assert found(audit(model, batch, method=method)) == {(1, t, s) for t in range(4) for s in (0, 1)}
    sound = audit(model, {**batch, "attention_mask": attention_mask}, method=method)
    assert sound.ok
    assert not sound.source.unused.any()
    assert not sound.target.unused.any()
    should = {"encoder_mask": "causal()", "cross_mask": "wait_k(1)"}
    report = audit(model, {**batch, "attention_mask": attention_mask}, **should, method=method)
    assert report.cause.startswith("the model ran under encoder_mask full(), and causal() should hold")
    packed = {"input_ids": tokens(1, 8), "decoder_input_ids": tokens(1, 6, seed=1)}
    assert "segment_ids" in audit(model, packed, **PACKED, method=method).cause


def test_a_batch_that_looks_packed_is_remarked_upon():
    source = tokens(2, 8)
    source[1, [3, 7]] = 2
    batch = {"input_ids": source, "decoder_input_ids": tokens(2, 4)}
    (note,) = audit(small_model(), batch).notes
    assert note.startswith("several end tokens in the source of row 1; if these are several examples")
    assert not audit(small_model(), {name: ids[:1] for name, ids in batch.items()}).notes


def test_a_cross_mask_that_hides_nothing_is_remarked_upon():
    report = audit(small_model(cross_mask="wait_k(1)"), BATCH)
    (note,) = report.notes
    assert note.startswith("cross_mask wait_k(1) hides nothing: under encoder_mask full()")
    assert report.ok
    assert not audit(small_model(cross_mask="wait_k(1)", encoder_mask="causal()"), BATCH).notes


def test_passages():
    passages = {"passage_ids": torch.tensor([[0, 0, 0, 1, 1]]).expand(2, -1)}
    should = {"encoder_mask": "passages()", "cross_mask": "keep(passages=(0,))"}
    assert audit(small_model(), {**BATCH, **passages, **should}).ok
    report = audit(small_model(), BATCH, **passages, **should)
    assert found(report) == {(row, t, s) for row in range(2) for t in range(4) for s in (3, 4)}
    report = audit(small_model(), {**BATCH, **passages, "cross_mask": should["cross_mask"]}, **should)
    assert report.cause.startswith("the model ran under encoder_mask full(), and passages() should hold")


def test_declared_positions_are_what_holds():
    case = CASES["left_padded_with_raw_positions"]()
    assert audit(case.model, case.leaking, position_ids=case.leaking["position_ids"]).ok


def test_a_model_without_a_head():
    case = CASES["off_by_one"]()
    batch = {"input_ids": case.leaking["input_ids"], "decoder_input_ids": tokens(2, 4), "cross_mask": "wait_k(3)"}
    assert found(audit(case.model.model, batch, **case.should)) == case.leaks


def test_in_the_models_own_precision():
    case = CASES["off_by_one"]()
    assert found(audit(case.model, case.leaking, dtype=None, **case.should)) == case.leaks


@pytest.mark.parametrize("attention", ["eager", "sdpa", "blockwise", "flex_attention"])
def test_on_each_attention(attention):
    case = CASES["off_by_one"]()
    model = small_model(attention=attention, encoder_mask="causal()")
    assert found(audit(model, case.leaking, **case.should)) == case.leaks
    if attention == "flex_attention":
        with pytest.raises(ValueError, match="flex_attention does not run in float64; pass dtype=None"):
            audit(model, case.leaking, method="perturbation")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"method": "guess"}, "method must be one of 'gradient', 'perturbation', got 'guess'"),
        ({"input_ids": None}, {}, "no input_ids"),
        ({"labels": None}, {}, "neither decoder_input_ids nor labels"),
        ({"encoder_outputs": (torch.zeros(2, 5, 16),)}, {}, "encoder_outputs cannot be audited"),
        (
            {"logits_to_keep": 1, "decoder_input_ids": tokens(2, 4), "labels": None},
            {},
            "no output for each of the (2, 4) target tokens",
        ),
        ({}, {"cross_mask": "wait_q(2)"}, "cross_mask: "),
        ({}, {"cross_mask": torch.ones(2, 4, 6, dtype=torch.bool)}, "cross_mask: (2, 4, 6) has 6 columns"),
        ({}, {"encoder_mask": {"5": "full()", "rest": "full()"}}, "encoder_mask: '5' names layer 5"),
        ({}, {"cross_mask": "keep((0, 9))"}, "cross_mask: keep: a span ends at 9"),
        ({}, {"cross_mask": "blind((0, 2))"}, "encoder_mask: blind((0, 2)) does not hold"),
        ({}, {"segment_ids": torch.ones(2, 5)}, "need both segment_ids and decoder_segment_ids"),
        ({}, {"attention_mask": torch.ones(2, 4)}, "attention_mask must be (2, 5)"),
        ({}, {"attention_mask": [[1] * 5] * 2}, "attention_mask must be a tensor, got list"),
        ({"attention_mask": [[1] * 5] * 2}, {}, "attention_mask must be a tensor, got list"),
        ({}, {"attention_mask": torch.full((2, 5), 0.5)}, "attention_mask must hold 0 and 1 only"),
        ({}, {"attention_mask": torch.full((2, 5), float("nan"))}, "attention_mask must hold 0 and 1 only"),
        ({"segment_ids": torch.full((2, 5), -1), "decoder_segment_ids": torch.ones(2, 4)}, {}, "from 0 up, got -1"),
        ({}, {"passage_ids": torch.full((2, 5), 0.5)}, "passage_ids must be whole numbers"),
        ({"input_ids": [[5, 6]]}, {}, "input_ids must be a tensor, got list"),
        ({"input_ids": tokens(2, 5)[0]}, {}, "input_ids must be whole numbers of shape (batch, tokens)"),
        ({"input_ids": tokens(2, 5).float()}, {}, "input_ids must be whole numbers of shape (batch, tokens)"),
        ({"input_ids": tokens(2, 5) + 1000}, {}, "input_ids must be ids from 0 to "),
        ({"labels": tokens(2, 4) + 1000}, {}, "labels must be ids from 0 to "),
        ({}, {"method": ["gradient"]}, "method must be one of 'gradient', 'perturbation', got ['gradient']"),
        ({}, {"dtype": "float64"}, "dtype must be a floating point type"),
        ({}, {"dtype": torch.int64}, "dtype must be a floating point type"),
        ({}, {"tokenizer": 3}, "tokenizer must be a tokenizer or None, got int"),
        ({}, {"seed": 1.5}, "seed must be a whole number"),
    ],
)
def test_bad_input_gets_one_line(change, options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        audit(small_model(), {**BATCH, **change}, **options)
    assert "\n" not in str(error.value)


def test_other_things_than_models_and_batches():
    with pytest.raises(TypeError, match="expected an encoder-decoder of Transformers, got GPT2LMHeadModel"):
        audit(GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=9)), BATCH)
    with pytest.raises(TypeError, match="must be a mapping"):
        audit(small_model(), [BATCH])
    with pytest.raises(masks.MaskError, match="has no meaning over a memory"):
        audit(small_model(memory_length=2), BATCH, cross_mask="wait_k(2)")


def test_raw_positions_are_noted_where_they_only_hide():
    source = pad([tokens(1, 6)[0], tokens(1, 4, seed=2)[0]], "left")
    batch = {"input_ids": source[0], "labels": BATCH["labels"], "attention_mask": source[1]}
    model = small_model(encoder_mask="causal()", cross_mask="prefix(2)")
    assert not audit(model, batch).notes
    report = audit(model, {**batch, "position_ids": torch.arange(6).expand(2, -1)})
    assert report.ok
    assert any(note.startswith("the batch's position_ids do not count from each") for note in report.notes)


def test_padding_that_the_attention_mask_lets_through_is_noted():
    source = tokens(2, 5)
    source[1, :2] = small_model().config.pad_token_id
    batch = {"input_ids": source, "labels": BATCH["labels"], "attention_mask": torch.ones(2, 5).long()}
    (note,) = audit(small_model(), batch).notes
    assert "lets padding at the ends of row 1 be read" in note
