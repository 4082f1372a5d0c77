"""Prompts and sources of several lengths, padded on the left, are what each is alone."""

import pytest
import torch
from bridge_families import bridge_of, ids
from small_models import small_model

from crossmask.seq2seq.decoder_inputs import begin_after_padding

pytestmark = pytest.mark.filterwarnings("ignore")
MODELS = {
    "own": small_model,
    **{f"bridge to {family}": lambda family=family: bridge_of(decoder=family) for family in ("gemma3_text", "gpt2")},
}
OPTIONS = {"max_new_tokens": 4, "eos_token_id": None, "output_logits": True, "return_dict_in_generate": True}


CASES = [(name, masked, 0) for name in MODELS for masked in (True, False)] + [("bridge to gpt2", True, 1)]


@pytest.mark.parametrize(("name", "masked", "pad"), CASES)
@torch.no_grad()
def test_prompts_without_a_start_token(name, masked, pad):
    """Transformers gives all of them one, before the padding, and none where padding is the start token."""
    model, source = MODELS[name](), ids(2, 7).clamp(max=39)
    model.config.pad_token_id = pad
    short, long = ids(1, 3, seed=5).clamp(max=39), ids(1, 5, seed=6).clamp(max=39)
    rows = torch.cat([torch.nn.functional.pad(short, (2, 0), value=pad), long])
    given = {"decoder_attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1] * 5])} if masked else {}
    both = model.generate(source, decoder_input_ids=rows, **given, **OPTIONS)
    for row, prompt in enumerate((short, long)):
        alone = model.generate(source[row : row + 1], decoder_input_ids=prompt, **OPTIONS)
        torch.testing.assert_close(
            torch.stack(both.logits)[:, row], torch.stack(alone.logits)[:, 0], atol=1e-4, rtol=1e-4
        )
    assert both.sequences[:, : rows.shape[1] + 1].tolist() == [
        [pad, pad, 1, *short[0].tolist()],
        [1, *long[0].tolist()],
    ]


@pytest.mark.parametrize("start", [2, 0, [2, 3]], ids=str)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_start_token_of_the_call(name, start):
    """It may be the padding token, which that of the config is not, and another for each source."""
    model, source, pad = MODELS[name](), ids(2, 7).clamp(max=39), 0
    model.config.pad_token_id = pad
    short, long = ids(1, 3, seed=5).clamp(min=4, max=39), ids(1, 5, seed=6).clamp(min=4, max=39)
    rows, mask = torch.nn.functional.pad(short, (2, 0), value=pad), torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
    begun = model.generate(
        source,
        decoder_input_ids=torch.cat([rows, long]),
        decoder_attention_mask=mask,
        decoder_start_token_id=start,
        **OPTIONS,
    )
    first = model.generate(source, decoder_start_token_id=start, **OPTIONS)
    starts = start if isinstance(start, list) else [start] * 2
    for row, prompt in enumerate((short, long)):
        whole = torch.cat([torch.tensor([[starts[row]]]), prompt], dim=-1)
        shown = {"input_ids": source[row : row + 1], "decoder_attention_mask": torch.ones_like(whole)}
        wanted = model(**shown, decoder_input_ids=whole).logits[:, -1]
        torch.testing.assert_close(begun.logits[0][row : row + 1], wanted, atol=1e-4, rtol=1e-4)
        shown["decoder_attention_mask"] = shown["decoder_attention_mask"][:, :1]
        wanted = model(**shown, decoder_input_ids=whole[:, :1]).logits[:, -1]
        torch.testing.assert_close(first.logits[0][row : row + 1], wanted, atol=1e-4, rtol=1e-4)


def test_prompts_with_a_start_token_behind_their_padding_stay_as_they_are():
    rows = torch.tensor([[1, 0, 1, 5], [1, 0, 0, 1]])
    found, shown = begin_after_padding(rows, rows[:, 1:] != 0, 0)
    assert found.tolist() == [[0, 1, 5], [0, 0, 1]]
    assert shown.tolist() == [[False, True, True], [False, False, True]]


@pytest.mark.parametrize("pad", [0, 1])
def test_an_empty_prompt_has_its_start_token_at_its_end(pad):
    rows = torch.tensor([[1, pad, pad], [1, pad, 5], [1, 5, 6]])
    found, shown = begin_after_padding(rows, torch.tensor([[0, 0], [0, 1], [1, 1]]) == 1, pad)
    assert found.tolist() == [[pad, pad, 1], [pad, 1, 5], [1, 5, 6]]
    assert shown.tolist() == [[False, False, True], [False, True, True], [True, True, True]]


@pytest.mark.parametrize("family", ["bert", "roberta", "t5", "modernbert"])
@torch.no_grad()
def test_sources(family):
    model, source, target = bridge_of(encoder=family), ids(1, 5), ids(1, 4, seed=1)
    padded = torch.nn.functional.pad(source, (3, 0), value=model.encoder.config.pad_token_id)
    given = {"input_ids": padded, "attention_mask": torch.tensor([[0] * 3 + [1] * 5]), "decoder_input_ids": target}
    expected = model(input_ids=source, decoder_input_ids=target).logits
    for mask in ("full()", "~full() | full()"):
        torch.testing.assert_close(model(**given, encoder_mask=mask).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["bart"])
def test_encoders_that_number_positions_by_themselves(family):
    model, given = bridge_of(encoder=family), {"input_ids": ids(2, 5), "decoder_input_ids": ids(2, 4, seed=1)}
    with pytest.raises(ValueError, match=r"sources must not be padded on the left where \w+ encodes: it numbers"):
        model(**given, attention_mask=torch.tensor([[0, 1, 1, 1, 1], [1] * 5]))
    model(**given, attention_mask=torch.tensor([[1, 1, 1, 0, 0], [0] * 5]))  # a stream of which nothing has arrived
