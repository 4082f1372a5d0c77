"""Lists of texts in batches of similar length."""

import pytest
import torch
from small_models import small_model
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

from crossmask import masks, translate_batch
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.inference.options import check_mask
from crossmask.utils.errors import InputError

TEXTS = ["a dog", "a dog and a cat and a bird are at work in the old house", "", "a cat", "two men and a dog", "a dog"]
LENGTHS = {"min_new_tokens": 5, "max_new_tokens": 5}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 3, vocab_size=320)


@pytest.fixture(scope="module")
def model(tokenizer):
    return small_model(vocab_size=len(tokenizer))


def alone(model, tokenizer, text: str, **options) -> str:
    if not text:
        return ""
    inputs = tokenizer([text], return_tensors="pt")
    output = model.generate(input_ids=inputs["input_ids"], **LENGTHS, **options)
    return tokenizer.decode(output[0], skip_special_tokens=True)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"cross_mask": "wait_k(2)", "encoder_mask": "causal()"}])
@pytest.mark.parametrize("batch_tokens", [1, 20, 1000])
def test_each_text_comes_out_in_its_place_as_it_does_alone(model, tokenizer, options, batch_tokens):
    outputs = translate_batch(model, tokenizer, TEXTS, batch_tokens=batch_tokens, progress=False, **LENGTHS, **options)
    assert outputs == [alone(model, tokenizer, text, **options) for text in TEXTS]
    assert len(set(outputs)) > 2


def test_batches_keep_to_the_budget_longest_first(model, tokenizer, monkeypatch):
    shapes = []
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **inputs: (shapes.append(inputs["input_ids"].shape), generate(**inputs))[1]
    )
    translate_batch(model, tokenizer, TEXTS, batch_tokens=20, progress=False, **LENGTHS)
    longest = max(len(ids) for ids in tokenizer(TEXTS)["input_ids"])
    assert shapes[0] == (1, longest)
    assert sum(rows for rows, _ in shapes) == len([text for text in TEXTS if text])
    assert all(rows * width <= 20 for rows, width in shapes[1:])
    assert len(shapes) < len(TEXTS)


def test_a_bar_counts_texts_and_only_where_it_is_wanted(model, tokenizer, capsys):
    translate_batch(model, tokenizer, TEXTS, **LENGTHS)
    assert "6/6" in capsys.readouterr().err
    translate_batch(model, tokenizer, TEXTS, progress=False, **LENGTHS)
    assert capsys.readouterr().err == ""


def test_dropout_is_off_and_the_mode_comes_back(tokenizer):
    model = small_model(vocab_size=len(tokenizer), dropout=0.5)
    expected = translate_batch(model, tokenizer, TEXTS, progress=False, **LENGTHS)
    model.train()
    assert translate_batch(model, tokenizer, TEXTS, progress=False, **LENGTHS) == expected
    assert model.training


def test_another_model_of_transformers(tokenizer):
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64, init_std=0.5,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    bart = BartForConditionalGeneration(config).eval()
    outputs = translate_batch(bart, tokenizer, TEXTS, batch_tokens=30, progress=False, **LENGTHS)
    assert outputs == [alone(bart, tokenizer, text) for text in TEXTS]


def test_nothing_gives_nothing(model, tokenizer):
    assert translate_batch(model, tokenizer, [], progress=False) == []


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ("a dog", {}, TypeError, r"texts must be a list of texts, got one text 'a dog'.*write \[text\]"),
        (["a dog", None], {}, TypeError, r"texts\[1\] must be text, got NoneType"),
        (["a dog", "a dog " * 90], {}, ValueError, r"texts\[1\] must have at most 64 tokens, .*, got \d+; split it"),
        (["a"], {"cross_mask": torch.ones(1, 3, 2).bool()}, TypeError, "cross_mask must not be laid out"),
        (["a"], {"cross_mask": masks.keep(examples=(((0, 1),),))}, TypeError, "cross_mask must not be laid out"),
        (["a"], {"num_return_sequences": 2}, ValueError, "must be left out"),
        ([], {"num_beam": 2}, ValueError, "num_beam"),
        ([], {"num_beams": 2, "streamer": object()}, ValueError, "`streamer` cannot be used with beam search"),
        (["a"], {"return_dict_in_generate": True}, ValueError, "must be left out"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(model, tokenizer, texts, options, error, message):
    with pytest.raises(error, match=message):
        translate_batch(model, tokenizer, texts, progress=False, **options)


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u00a0\u2003", "\u3000", "\u200b\u200d\ufeff", "\x01\x1b"])
def test_nothing_is_made_of_a_blank_text(model, tokenizer, blank):
    outputs = translate_batch(model, tokenizer, ["a dog", blank, "a cat"], progress=False, **LENGTHS)
    assert outputs == [alone(model, tokenizer, "a dog"), "", alone(model, tokenizer, "a cat")]
    assert translate_batch(model, tokenizer, [blank], progress=False, **LENGTHS) == [""]


@pytest.mark.parametrize("kind", [iter, tuple, lambda texts: (text for text in texts), lambda texts: map(str, texts)])
def test_texts_come_from_anything_that_gives_them(model, tokenizer, kind, capsys):
    expected = translate_batch(model, tokenizer, TEXTS, progress=False, **LENGTHS)
    assert translate_batch(model, tokenizer, kind(TEXTS), **LENGTHS) == expected
    assert "6/6" in capsys.readouterr().err
    assert translate_batch(model, tokenizer, kind([]), progress=False) == []


PER_EXAMPLE = masks.keep(examples=(((0, 1),),))


@pytest.mark.parametrize(
    "mask",
    [
        PER_EXAMPLE,
        str(PER_EXAMPLE),
        masks.drop(examples=(((0, 1),),)),
        masks.blind(examples=(((0, 1),),)),
        masks.alignment(examples=((0, 1),)),
        ~PER_EXAMPLE,
        masks.causal() & PER_EXAMPLE,
        masks.wait_k(2) | (masks.causal() & ~PER_EXAMPLE),
        masks.heads({0: PER_EXAMPLE, "rest": "full()"}),
        masks.layers({"0": "full()", "rest": masks.causal() & PER_EXAMPLE}),
        masks.layers({0: masks.heads({0: "full()", "rest": ~PER_EXAMPLE}), "rest": "full()"}),
        masks.tensor(torch.ones(1, 3, 2).bool()),
    ],
    ids=str,
)
def test_masks_of_one_batch_are_refused_wherever_they_stand(model, tokenizer, mask):
    for name in ("encoder_mask", "decoder_mask", "cross_mask"):
        with pytest.raises(TypeError, match=f"{name} must not be laid out for one batch"):
            translate_batch(model, tokenizer, ["a dog"], progress=False, **{name: mask})


@pytest.mark.parametrize(
    "mask",
    [masks.keep((0, 9)), masks.keep(passages=(0,)), masks.heads({0: "keep((0, 3))", "rest": "full()"}), "full()"],
)
def test_masks_of_one_batch_are_not_for_every_text(mask):
    check_mask("cross_mask", mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1, got 0"),
        ({"num_beams": -2}, "num_beams must be at least 1, got -2"),
        ({"num_beams": 1.5}, "num_beams must be a whole number, got 1.5"),
        ({"num_beams": True}, "num_beams must be a whole number, got True"),
        ({"num_beams": 10**9}, r"num_beams must be at most the vocabulary's \d+, got 1000000000"),
        ({"num_beams": 4, "num_beam_groups": 3}, "num_beam_groups must be 1, .*, got 3"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"max_new_tokens": 65}, "max_new_tokens must be at most 64 for the model's .*, got 65"),
        ({"max_length": 66}, "max_length must be at most 65 .*, got 66"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens must be at most max_new_tokens=8, got 9"),
        ({"temperature": float("nan"), "do_sample": True}, "temperature must be a finite number above 0, got nan"),
        ({"temperature": 0.0, "do_sample": True}, "temperature must be a finite number above 0, got 0.0"),
        ({"top_p": 2.0, "do_sample": True}, "top_p must be a number from 0 to 1, got 2.0"),
        ({"top_k": -1, "do_sample": True}, "top_k must be at least 0, got -1"),
        ({"length_penalty": float("inf"), "num_beams": 2}, "length_penalty must be a finite number, got inf"),
        ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size must be at least 0"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a finite number above 0"),
        ({"generation_config": GenerationConfig(num_beams=2, num_return_sequences=2)}, "must be left out"),
        ({"generation_config": GenerationConfig(max_new_tokens=100)}, "max_new_tokens must be at most 64"),
        ({"generation_config": {"num_beams": 2}}, "generation_config must be a GenerationConfig, got dict"),
        ({"encoder_outputs": ()}, "encoder_outputs must not be laid out for one batch"),
        ({"cross_mask": "wait(3)"}, "cross_mask: .*wait"),
    ],
)  # fmt: skip
def test_options_are_refused_before_the_first_step(model, tokenizer, monkeypatch, options, message):
    monkeypatch.setattr(model, "generate", lambda **inputs: pytest.fail("a step was made"))
    with pytest.raises(ValueError, match=message):
        translate_batch(model, tokenizer, ["a dog"], progress=False, **options)


def test_a_target_may_fill_all_positions(model, tokenizer):
    most = {"max_new_tokens": 64, "min_new_tokens": 64}
    assert translate_batch(model, tokenizer, ["a dog"], progress=False, **most) != [""]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a dog", "a\0cat"], r"texts\[1\] must be without NUL, got one at character 2; leave it out"),
        (["a dog", "a \udcff"], r"texts\[1\] must be valid Unicode, got a lone surrogate '\\udcff' at character 3"),
        (b"a dog", "texts must be a list of texts, got bytes"),
        ({"text": "a dog"}, "texts must be a list of texts, got dict"),
        (3, "texts must be a list of texts, got int"),
        (None, "texts must be a list of texts, got NoneType"),
        ([b"a dog"], r"texts\[0\] must be text, got bytes"),
    ],
)
def test_what_is_not_text(model, tokenizer, texts, message):
    with pytest.raises(InputError, match=message):
        translate_batch(model, tokenizer, texts, progress=False)
