"""The scores of hypotheses: those that Transformers returns at a length penalty of 1, with less memory."""

import pytest
import torch
from attached_families import FAMILIES, attached, plain, source_of
from small_models import END, small_model, tokens
from transformers import LogitsProcessorList, MaxTimeCriteria, StoppingCriteria, StoppingCriteriaList

from crossmask.seq2seq.hypothesis_scores import HypothesisScores

BEAMS = 4
SOURCES = tokens(3, 7)
MASK = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])


def scores_of(model, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """By `HypothesisScores`, and by Transformers."""
    scores = HypothesisScores(BEAMS, [END])

    def search(model, input_ids, *, logits_processor, **settings):
        processors = LogitsProcessorList([*logits_processor, scores])  # the last, as for a reranker
        return model._beam_search(input_ids, logits_processor=processors, **settings)

    given = {"input_ids": SOURCES, "attention_mask": MASK, "max_new_tokens": 9, **options}
    found = model.generate(
        **given,
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        length_penalty=1.0,
        custom_generate=search,
        return_dict_in_generate=True,
        output_scores=True,
    )
    return scores.means(found.sequences), found.sequences_scores


def options_of(model) -> dict[str, dict]:
    return {
        "plain": {},
        "masks of the call": {"encoder_mask": "causal()", "cross_mask": "wait_k(2)", "decoder_mask": "window(2)"},
        "a tensor": {"cross_mask": torch.tril(torch.ones(3, 10, 7, dtype=torch.bool), diagonal=2)},
        "passages": {"encoder_mask": "passages()", "passage_ids": torch.arange(7).expand(3, 7) // 3},
        "its own encoding": {"encoder_outputs": model.get_encoder()(SOURCES, attention_mask=MASK)},
        "a prompt": {"decoder_input_ids": torch.cat([torch.ones(3, 1).long(), tokens(3, 2, seed=1)], -1)},
        "penalties": {"repetition_penalty": 1.7, "no_repeat_ngram_size": 1},
        "sampled": {"do_sample": True, "top_k": 6, "temperature": 1.4},
        "early": {"early_stopping": True},
        "without a cache": {"use_cache": False},
    }


@pytest.mark.parametrize("name", options_of(small_model()))
def test_they_are_those_of_the_search(name):
    model = small_model()
    torch.manual_seed(0)
    found, wanted = scores_of(model, **options_of(model)[name])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert len(wanted.unique()) > BEAMS


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if "audio" not in family.differs])
def test_they_are_those_of_models_of_transformers(family):
    masks = {} if "blind" in FAMILIES[family].differs else {"cross_mask": "wait_k(2)"}
    given = {**source_of(family, 3, 7), "attention_mask": MASK}
    for model in (plain(family), attached(family, **masks)):
        found, wanted = scores_of(model, **given)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


class AfterToken(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] % 3 == 0


def test_a_sequence_that_ends_otherwise_is_not_scored():
    with pytest.raises(KeyError):
        scores_of(small_model(), stopping_criteria=StoppingCriteriaList([AfterToken()]))


def test_a_search_that_time_ends_is_scored():
    found, wanted = scores_of(small_model(), stopping_criteria=StoppingCriteriaList([MaxTimeCriteria(0.0)]))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
