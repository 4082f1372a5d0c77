"""What a config refuses, in words that say how to fix it; what it keeps when saved."""

import json

import pytest
from huggingface_hub.errors import StrictDataclassError

from crossmask import CrossMaskConfig, masks
from crossmask.configuration.layer_masks import masks_of_layers

POSITIONS = {
    "linear": {"rope_type": "linear", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 512},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 512,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}
BAD = {
    "heads that do not divide": (
        {"num_attention_heads": 6, "num_key_value_heads": 4, "hidden_size": 96},
        ["num_attention_heads (6)", "multiple of num_key_value_heads (4)"],
    ),
    "odd heads": ({"hidden_size": 30, "num_attention_heads": 2}, ["head_dim (15) must be even", "hidden_size (30)"]),
    "heads wider than the model": ({"hidden_size": 4, "num_attention_heads": 8}, ["head_dim"]),
    "no heads": ({"num_attention_heads": 0}, ["num_attention_heads must be at least 1, got 0"]),
    "no layers": ({"decoder_layers": 0}, ["decoder_layers must be at least 1, got 0"]),
    "no memory": ({"memory_length": 0}, ["memory_length must be at least 1, or None"]),
    "no embedding": ({"embedding_size": -1}, ["embedding_size must be at least 1, or None"]),
    "activation of nothing": ({"embedding_act": "gelu"}, ["embedding_act='gelu' needs embedding_size"]),
    "a tie": ({"tie_word_embeddings": "all"}, ["tie_word_embeddings must be one of", "'embedding'", "got 'all'"]),
    "an activation": ({"hidden_act": "glue"}, ["hidden_act must be one of", "gelu", "got 'glue'"]),
    "another activation": ({"embedding_size": 8, "embedding_act": ""}, ["embedding_act must be one of", "got ''"]),
    "a score": ({"cross_attention_score": "cosine"}, ["'dot', 'additive'", "got 'cosine'"]),
    "no start": ({"decoder_start_token_id": None}, ["decoder_start_token_id must be set"]),
    "no padding": ({"pad_token_id": None}, ["pad_token_id must be set"]),
    "a token outside": ({"vocab_size": 10, "eos_token_id": 10}, ["eos_token_id (10)", "from 0 to vocab_size - 1 (9)"]),
    "one of many outside": ({"vocab_size": 10, "eos_token_id": [2, 11]}, ["eos_token_id (11)", "tokenizer"]),
    "an unknown mask": (
        {"encoder_mask": "windw(3)"},
        ["encoder_mask", "a rule must have a known name, got 'windw'", "window"],
    ),
    "a mask that is code": (
        {"cross_mask": "__import__('os')"},
        ["cross_mask", "a rule must have a known name, got '__import__'"],
    ),
    "a mask without brackets": ({"decoder_mask": "causal"}, ["decoder_mask", "write causal(...)"]),
    "a mask's parameter": ({"cross_mask": "wait_k(0)"}, ["cross_mask", "k must be an integer of at least 1, got 0"]),
    "a layer that is not there": (
        {"encoder_layers": 2, "encoder_mask": {"0-2": "full()"}},
        ["encoder_mask: '0-2' names layer 2, but there are 2 layers"],
    ),
    "a layer without a mask": ({"decoder_layers": 2, "decoder_mask": {"1": "full()"}}, ["layers [0]", '"rest"']),
    "a size that is not finite": ({"rms_norm_eps": float("inf")}, ["rms_norm_eps must be a finite number, got inf"]),
    "a rate that is not a number": ({"dropout": float("nan")}, ["dropout must be a finite number, got nan"]),
    "a number inside that is not one": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": float("nan")}},
        ["rope_parameters['rope_theta'] must be a finite number, got nan"],
    ),
    "a size beyond all memory": ({"vocab_size": 2**31}, ["vocab_size must be less than 2**31, got 2147483648"]),
    "positions of an unknown kind": ({"rope_parameters": {"rope_type": "foo"}}, ["rope_type must be one of", "'foo'"]),
    "positions that move": ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, ["'dynamic' turns"]),
    "positions of Phi": ({"rope_parameters": {"rope_type": "longrope"}}, ["'longrope' turns positions by the length"]),
    "positions without a number": ({"rope_parameters": {"rope_type": "linear"}}, ["'linear' needs factor"]),
    "positions of layers": ({"rope_parameters": {"full_attention": {}}}, ["takes no full_attention; leave it out"]),
    "negative positions": ({"rope_parameters": {"rope_theta": -1.0}}, ["rope_theta must be a number of more than 0"]),
    "positions of a list": ({"rope_parameters": {"rope_type": ["default"]}}, ["rope_type must be one of default"]),
    **{
        f"positions with {name} {value}"[:40]: (
            {"rope_parameters": {**POSITIONS[kind], name: value}},
            [f"rope_parameters: {name} must be"],
        )
        for kind, name, value in [
            ("yarn", "attention_factor", -1.0),
            ("yarn", "beta_fast", "x"),
            ("yarn", "mscale", "x"),
            ("yarn", "truncate", 3),
            ("yarn", "factor", 0.5),
            ("yarn", "rope_theta", 1),
            ("yarn", "beta_slow", 40),
            ("linear", "factor", 10**400),
            ("linear", "factor", True),
            ("llama3", "low_freq_factor", 4.0),
            ("llama3", "original_max_position_embeddings", "8192"),
        ]
    },
    "a table of labels": ({"num_labels": 10**7}, ["num_labels", "must be at most 1000"]),
    "parts of a head": ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor must be 1"]),
    "chance": (
        {"cross_mask": "random(p=0.1, seed=0)"},
        ["cross_mask: random(p=0.1, seed=0) in a config", "seed=step"],
    ),
    "chance in a head": (
        {"encoder_mask": "heads({0: random(p=0.1, seed=0), 'rest': full()})"},
        ["encoder_mask: random(p=0.1, seed=0) in a config would forbid the same pairs"],
    ),
    "a layer with two": ({"cross_mask": {"0-2": "full()", "1": "causal()", "rest": "full()"}}, ["layer 1", "twice"]),
    "a layer's name": ({"cross_mask": {"first": "full()"}}, ["keys must be numbers of layers, got 'first'", '"0-3"']),
    "a memory with a cross mask": (
        {"memory_length": 4, "cross_mask": "wait_k(3)"},
        ["cross_mask='wait_k(3)'", "memory_length=4", 'use cross_mask="full()"', "encoder_mask"],
    ),
    "a number for a mask": ({"encoder_mask": 3}, ["encoder_mask"]),
}


@pytest.mark.parametrize(("fields", "words"), BAD.values(), ids=BAD.keys())
def test_what_does_not_fit_is_refused_and_says_how_to_fix_it(fields, words):
    with pytest.raises(StrictDataclassError) as error:
        CrossMaskConfig(**fields)
    for word in words:
        assert word in str(error.value)


def test_defaults_fit_and_are_filled_in():
    config = CrossMaskConfig()
    assert config.num_key_value_heads == config.num_attention_heads == 8
    assert config.head_dim == 64
    assert config.layer_masks("cross") == (masks.full(),) * 6
    assert config.layer_masks("decoder") == (masks.causal(),) * 6
    assert (config.d_model, config.num_hidden_layers, config.encoder_attention_heads) == (512, 6, 8)


def test_masks_of_layers():
    rules = masks_of_layers({"0-1": "window(8)", "3": "causal()", "rest": "full()"}, 5, "encoder_mask")
    assert rules == (masks.window(8), masks.window(8), masks.full(), masks.causal(), masks.full())


def test_mask_values_are_kept_as_their_text(tmp_path):
    rule = masks.wait_k(3) & ~masks.prefix(1)
    config = CrossMaskConfig(cross_mask=rule, encoder_mask={"0": masks.window(8), "rest": "full()"})
    assert config.cross_mask == str(rule)
    assert config.encoder_mask == {"0": "window(left=8)", "rest": "full()"}
    assert config.layer_masks("cross") == (rule,) * 6
    config.decoder_mask = masks.causal() & masks.window(4)
    config.save_pretrained(tmp_path)
    loaded = CrossMaskConfig.from_pretrained(tmp_path, cross_mask=masks.wait_k(5))
    assert (loaded.decoder_mask, loaded.cross_mask) == ("causal() & window(left=4)", "wait_k(5)")


def test_what_is_saved_is_readable_and_comes_back(tmp_path):
    config = CrossMaskConfig(
        encoder_layers=2,
        encoder_mask={"0": "window(8) & ~prefix(1)", "rest": "full()"},
        cross_mask="wait_k(3)",
        tie_word_embeddings="head",
        eos_token_id=[2, 3],
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
    )
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["encoder_mask"] == {"0": "window(8) & ~prefix(1)", "rest": "full()"}
    assert saved["model_type"] == "crossmask"
    loaded = CrossMaskConfig.from_pretrained(tmp_path)
    for name in ("encoder_mask", "cross_mask", "tie_word_embeddings", "eos_token_id", "rope_parameters"):
        assert getattr(loaded, name) == getattr(config, name)
    assert loaded.layer_masks("encoder") == config.layer_masks("encoder")
