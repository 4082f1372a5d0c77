"""Packed rows on attached models: every example is what it is alone, or the family is refused by name."""

import copy

import pytest
import torch
from attached_families import FAMILIES, attached, ids
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from crossmask import audit
from crossmask.attached.attention_sites import layers_of
from crossmask.data.packing import PackedCollator
from crossmask.masks import MaskError

pytestmark = pytest.mark.filterwarnings("ignore")

REFUSED = {
    **dict.fromkeys(("switch_transformers", "nllb-moe"), "has experts of limited capacity"),
    **dict.fromkeys(("whisper", "speech_to_text", "moonshine"), r"reads input_\w+"),
    **dict.fromkeys(("longt5", "pegasus_x", "bigbird_pegasus"), "has attention that masks cannot reach"),
}
PACKED = [family for family in FAMILIES if family not in REFUSED]
each_case = pytest.mark.parametrize(
    ("family", "attention"), [(family, attention) for family in PACKED for attention in FAMILIES[family].attention]
)
SOURCES, TARGETS = (4, 6), (3, 2)
PASSAGES = ((0, 0, 1, 1), (0, 1, 1, 1, 2, 2))
MASKS = {
    "none": {},
    "window": {"encoder_mask": "window(2)", "decoder_mask": "window(1)", "cross_mask": "wait_k(1)"},
    "passages": {"encoder_mask": "passages()", "cross_mask": "keep(passages=(1,))"},
}


def examples() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    sources = [ids(1, length, seed=index) for index, length in enumerate(SOURCES)]
    return sources, [ids(1, length, seed=9 + index) for index, length in enumerate(TARGETS)]


def row(parts: list[torch.Tensor], fill: int) -> torch.Tensor:
    """Parts one after the other, and two columns of padding."""
    return torch.nn.functional.pad(torch.cat(parts, 1), (0, 2), value=fill)


def segments(lengths: tuple[int, ...]) -> torch.Tensor:
    return row([torch.full((1, length), number) for number, length in enumerate(lengths, start=1)], 0)


SEGMENTS = {"segment_ids": segments(SOURCES), "decoder_segment_ids": segments(TARGETS)}


@each_case
@pytest.mark.parametrize("masks", MASKS)
def test_packed_examples_have_the_logits_and_gradients_that_they_have_alone(family, attention, masks):
    model, (sources, targets), given = attached(family, attention), examples(), MASKS[masks]
    passages = [torch.tensor([numbers]) for numbers in PASSAGES]
    by_passage = {"passage_ids": row(passages, -1)} if masks == "passages" else {}
    other = copy.deepcopy(model)
    packed = model(
        input_ids=row(sources, 1), decoder_input_ids=row(targets, 1), **SEGMENTS, **by_passage, **given
    ).logits[:, : sum(TARGETS)]
    alone = []
    for source, target, numbers in zip(sources, targets, passages, strict=True):
        of_example = {"passage_ids": numbers} if by_passage else {}
        alone.append(other(input_ids=source, decoder_input_ids=target, **of_example, **given).logits)
    expected = torch.cat(alone, 1)
    torch.testing.assert_close(packed, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    for logits in (packed, expected):
        torch.nn.functional.cross_entropy(logits[0], torch.cat(targets, 1)[0]).backward()
    for (name, parameter), of_other in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (parameter.grad is None) == (of_other.grad is None), name
        if parameter.grad is not None:
            scale = max(1.0, float(of_other.grad.abs().max()))
            torch.testing.assert_close(parameter.grad / scale, of_other.grad / scale, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("family", PACKED)
@torch.no_grad()
def test_without_segments_they_see_one_another(family):
    model, (sources, targets) = attached(family), examples()
    given = {"input_ids": row(sources, 1), "decoder_input_ids": row(targets, 1)}
    together, apart = (model(**given, **each).logits[:, 3:5] for each in ({}, SEGMENTS))
    assert not torch.allclose(together, apart, atol=1e-3)


@pytest.mark.parametrize("family", PACKED)
@torch.no_grad()
def test_rows_may_be_longer_than_the_longest_example(family):
    model, (sources, targets) = attached(family), examples()
    given = {"input_ids": row(sources, 1), "decoder_input_ids": row(targets, 1), **SEGMENTS}
    longer = {name: torch.nn.functional.pad(part, (0, 70), value=int("ids" in name and "segment" not in name))
              for name, part in given.items()}  # fmt: skip
    expected = model(**given).logits[:, : sum(TARGETS)]
    found = model(**longer).logits[:, : sum(TARGETS)]
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("family", REFUSED)
def test_families_that_cannot_are_refused_by_name(family):
    model = attached(family)
    with pytest.raises(MaskError, match=f"segment_ids must be left out on this model, since .*{REFUSED[family]}"):
        model(input_ids=ids(1, 10), decoder_input_ids=ids(1, 5), **SEGMENTS)


def test_a_model_that_mixes_examples_all_the_same_is_found_by_measuring():
    model = attached("t5")
    model.get_encoder().register_forward_hook(_mix)
    with pytest.raises(MaskError, match="computes something else of packed examples than of each alone"):
        model(input_ids=ids(1, 12), decoder_input_ids=ids(1, 7), **SEGMENTS)


def _mix(module, args, output):
    output.last_hidden_state = output.last_hidden_state + output.last_hidden_state.mean(1, keepdim=True)
    return output


@pytest.mark.parametrize("family", ["bart", "mbart", "t5", "marian"])
def test_labels_are_shifted_inside_each_example(family):
    model, (sources, targets) = attached(family), examples()
    labels = row(targets, -100)
    packed = model(input_ids=row(sources, 1), labels=labels, **SEGMENTS)
    alone = [model(input_ids=source, labels=target) for source, target in zip(sources, targets, strict=True)]
    torch.testing.assert_close(
        packed.logits[:, :5], torch.cat([each.logits for each in alone], 1), atol=5e-5, rtol=1e-5
    )
    mean = sum(each.loss * length for each, length in zip(alone, TARGETS, strict=True)) / sum(TARGETS)
    torch.testing.assert_close(packed.loss, mean)


@pytest.mark.parametrize("family", ["bart", "m2m_100", "t5", "bert2gpt2"])
def test_checkpointing_keeps_examples_apart(family):
    (sources, targets), gradients = examples(), []
    for checkpointing in (False, True):
        model = attached(family).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        given = {"input_ids": row(sources, 1), "decoder_input_ids": row(targets, 1), **SEGMENTS}
        model(**given, use_cache=False).logits[:, :5].square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_wrong_calls_are_refused():
    model = attached("bart")
    batch = {"input_ids": ids(1, 12), "decoder_input_ids": ids(1, 7)}
    for name, value in SEGMENTS.items():
        with pytest.raises(ValueError, match=f"must have segment_ids and decoder_segment_ids, got {name} alone"):
            model(**batch, **{name: value})
        with pytest.raises(ValueError, match=f"no use for {name}"):
            model.generate(batch["input_ids"], **{name: value}, max_new_tokens=2)
    with pytest.raises(MaskError, match="position_ids must be left out beside segment_ids"):
        model(**batch, **SEGMENTS, position_ids=SEGMENTS["segment_ids"])
    with pytest.raises(ValueError, match="segment_ids must be given to the whole model"):
        model.get_encoder()(batch["input_ids"], segment_ids=SEGMENTS["segment_ids"])
    cache = model(**batch).past_key_values
    with pytest.raises(MaskError, match="past_key_values must be empty in packed rows, got 7"):
        model(**batch, **SEGMENTS, past_key_values=cache)


def test_trainer_learns_from_packed_rows(tmp_path):
    model = attached("bart")
    features = [{"input_ids": ids(4, seed=n).tolist(), "labels": ids(3, seed=n + 9).tolist()} for n in range(8)]
    rows = [features[start : start + 2] for start in range(0, 8, 2)]
    seen = []
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(set(kwargs)), with_kwargs=True)
    arguments = Seq2SeqTrainingArguments(
        tmp_path, max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=2, report_to=[],
        use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    collator = PackedCollator(1, 3, source_length=10, target_length=8)
    Seq2SeqTrainer(model, arguments, train_dataset=rows, data_collator=collator).train()
    assert set(SEGMENTS) <= seen[0]


@pytest.mark.parametrize("family", ["bart", "m2m_100", "t5", "bert2bert", "t5gemma"])
def test_an_audit_of_packed_rows_finds_planted_leaks_alone(family):
    """Also where the first packed call, which measures the model, is one of the audit's."""
    sources, targets = examples()
    batch = {"input_ids": row(sources, 1), "decoder_input_ids": row(targets, 1), **SEGMENTS}
    model = attached(family, encoder_mask="causal()", cross_mask="wait_k(2)")
    audit(model, batch).raise_if_leaking()
    model(**batch)
    for side in (model.get_encoder(), model.get_decoder()):
        leaking = copy.deepcopy(model)
        layer = next(
            module for name, module in leaking.named_modules() if module.__class__ is layers_of(side)[0].__class__
        )
        layer.register_forward_hook(_shift)
        kinds = {leak.kind for leak in audit(leaking, batch).leaks}
        assert "segment" in kinds


def _shift(module, args, output):
    states, *rest = output if isinstance(output, tuple) else (output,)
    states = states + 0.1 * states.roll(5, 1)
    return (states, *rest) if rest else states
