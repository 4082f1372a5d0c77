"""Batches of causal language models: a packed text has the logits and the loss that it has alone."""

import pytest
import torch
from causal_lms import MODELS, causal_lm
from transformers import PreTrainedModel

from crossmask.data.causal_lm import CausalLMCollator, PackedCausalLMCollator
from crossmask.seq2seq.decoder_inputs import IGNORED
from crossmask.utils.errors import InputError

TEXTS = [{"labels": [1, *range(5, 5 + length), 2]} for length in (1, 4, 7, 2, 9)]


@torch.no_grad()
def summed_loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> float:
    return model(**batch, num_items_in_batch=1, use_cache=False).loss.item()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", MODELS)
def test_a_packed_text_is_scored_as_it_is_alone(family, attention):
    model, pad, pack = causal_lm(family, attention), CausalLMCollator(0), PackedCausalLMCollator(0, 20)
    alone = sum(summed_loss(model, pad([text])) for text in TEXTS)
    assert summed_loss(model, pad(TEXTS)) == pytest.approx(alone, rel=1e-4)
    assert summed_loss(model, pack([TEXTS[:3], TEXTS[3:]])) == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("collate", [CausalLMCollator(0), PackedCausalLMCollator(0, 20)])
def test_every_token_but_the_first_is_learned_once(collate):
    batch = collate(rows_for(collate))
    learned = batch["labels"][batch["labels"] != IGNORED].tolist()
    assert sorted(learned) == sorted(id_ for text in TEXTS for id_ in text["labels"][1:])
    assert torch.equal(batch["input_ids"][batch["labels"] != IGNORED], batch["labels"][batch["labels"] != IGNORED])


def rows_for(collate: CausalLMCollator | PackedCausalLMCollator) -> list:
    return [TEXTS[:3], TEXTS[3:]] if isinstance(collate, PackedCausalLMCollator) else TEXTS


@pytest.mark.parametrize("collate", [CausalLMCollator(0), PackedCausalLMCollator(0, 20)])
def test_no_texts_are_a_row_without_labels(collate):
    batch = collate([])
    assert len(batch["input_ids"]) == 1
    assert (batch["labels"] == IGNORED).all()


def test_a_row_that_is_too_short_is_refused():
    with pytest.raises(InputError, match=r"row 1 of the batch must have at most 8 tokens, got 9; pack with the"):
        PackedCausalLMCollator(0, 8)([TEXTS[:1], TEXTS[2:3]])
