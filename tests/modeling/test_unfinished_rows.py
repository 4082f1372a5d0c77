"""Rows that have ended are left out of the steps of `generate()`, which writes what it writes with all rows."""

import pytest
import torch
from small_models import PAD, START, EndOneByOne, pad, small_model, tokens
from transformers import DynamicCache
from transformers.cache_utils import EncoderDecoderCache

from crossmask.masks import keep

FIELDS = {
    "plain": {},
    "memory": {"memory_length": 3},
    "factorised, additive": {"embedding_size": 8, "cross_attention_score": "additive"},
    "masks": {"encoder_mask": "causal()", "decoder_mask": "causal() & window(3)", "cross_mask": "wait_k(2)"},
}
SEARCHES = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "several samples": {"do_sample": True, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "beams, stopped early": {"num_beams": 3, "early_stopping": True},
    "beams, never stopped early": {"num_beams": 2, "early_stopping": "never", "length_penalty": 0.5},
    "beams, sampled": {"num_beams": 2, "do_sample": True},
}
CALLS = {
    "nothing": {},
    "a rule": {"cross_mask": "window(2)"},
    "masks as tensors": {
        "cross_mask": torch.rand(6, 30, 7, generator=torch.Generator().manual_seed(0)) < 0.8,
        "decoder_mask": torch.ones(6, 30, dtype=torch.bool),
    },
    "prefixes padded on the left": {
        "decoder_input_ids": torch.tensor([[PAD, START, 20], [START, 21, 22], [PAD, PAD, START]] * 2)
    },
}
SOURCE, ATTENTION_MASK = pad([tokens(length, seed=length) for length in (7, 3, 5, 4, 7, 6)], "right")


def generate(model, **options) -> tuple[torch.Tensor, list[int]]:
    """What a call returned, and the number of rows that each step computed."""
    rows: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    torch.manual_seed(1)
    options = {"do_sample": False, "max_new_tokens": 20, "logits_processor": [EndOneByOne(len(SOURCE))], **options}
    found = model.generate(SOURCE, attention_mask=ATTENTION_MASK, **options)
    hook.remove()
    return found, rows


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS.keys())
@torch.no_grad()
def test_every_search_writes_what_it_writes_with_all_rows(fields, search):
    model = small_model(**fields)
    expected, all_rows = generate(model, use_cache=False, **search)
    found, rows = generate(model, **search)
    assert torch.equal(found, expected)
    assert all_rows == [rows[0]] * len(rows)
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < rows[0]


@pytest.mark.parametrize("search", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@torch.no_grad()
def test_every_row_keeps_what_the_call_says_of_it(call, search):
    model = small_model()
    expected, _ = generate(model, use_cache=False, **call, **search)
    found, rows = generate(model, **call, **search)
    assert torch.equal(found, expected)
    assert rows[-1] < rows[0]


@torch.no_grad()
def test_all_rows_are_computed_where_someone_asks_for_them():
    model = small_model()
    expected, rows = generate(model)
    assert rows[-1] < rows[0] == 6
    spans = tuple(((0, 3),) for _ in SOURCE)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    calls = {
        "the output of each step": {"return_dict_in_generate": True, "output_scores": True},
        "a cache of the caller's": {"past_key_values": cache},
        "a static cache": {"cache_implementation": "static", "disable_compile": True},
        "a table with a row for each example": {"cross_mask": keep(examples=spans)},
        "passages": {"passage_ids": torch.zeros_like(SOURCE), "cross_mask": keep(passages=(0,))},
    }
    for name, call in calls.items():
        found, rows = generate(model, **call)
        assert set(rows) == {6}, name
        assert torch.equal(getattr(found, "sequences", found), expected) or "cross_mask" in call, name
    assert len(cache.self_attention_cache.layers[0].keys) == 6
