"""Pipelines that generate texts: what they return for every kind of input and option, on every kind of model."""

from functools import cache

import pytest
import torch
from datasets import Dataset
from pipeline_cases import KINDS, parts
from streaming_cases import TEXTS, tiny
from transformers import (
    TextStreamer,
    pipeline,
)
from transformers.pipelines.pt_utils import KeyDataset

from crossmask import masks
from crossmask.pipelines import PipelineInputError


@cache
def translator(kind: str = "crossmask"):
    model, tokenizer = parts(kind)
    return pipeline("translation", model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=9)


def by_hand(kind: str, text: str, **options) -> str:
    """What `generate` makes of a text by itself."""
    model, tokenizer = parts(kind)
    target = getattr(tokenizer, "decoder_tokenizer", tokenizer)
    source = getattr(tokenizer, "encoder_tokenizer", tokenizer)
    inputs = source([text], return_tensors="pt")
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    output = model.generate(**ids, **{"max_new_tokens": 9, **options})
    return target.decode(output[0], skip_special_tokens=True)


@pytest.mark.parametrize("kind", KINDS)
def test_each_text_of_a_batch_comes_out_as_it_does_alone(kind):
    translate = translator(kind)
    wanted = [{"translation_text": by_hand(kind, text)} for text in TEXTS]
    assert len({str(one) for one in wanted}) > 2
    assert translate(list(TEXTS), batch_size=3) == wanted
    assert translate(TEXTS[2]) == [wanted[2]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_belongs_to_its_own_text(kind):
    translate = translator(kind)
    rules = ("window(1)", masks.prefix(1), None, "window(1)")
    inputs = [
        text if rule is None else {"text": text, "cross_mask": rule} for text, rule in zip(TEXTS, rules, strict=True)
    ]
    found = translate(inputs, batch_size=4)
    wanted = [
        by_hand(kind, text, **({} if rule is None else {"cross_mask": rule}))
        for text, rule in zip(TEXTS, rules, strict=True)
    ]
    assert [one["translation_text"] for one in found] == wanted
    assert found != translate(list(TEXTS))
    assert translate(list(TEXTS), cross_mask="window(1)", batch_size=2)[0]["translation_text"] == wanted[0]


def test_a_tensor_mask_belongs_to_its_own_text():
    """It is as wide as its text, also beside a longer one."""
    translate, length = translator(), len(parts("crossmask")[1](TEXTS[1])["input_ids"])
    seen = torch.zeros(9, length, dtype=torch.bool)
    seen[:, 1] = True
    found = translate([TEXTS[0], {"text": TEXTS[1], "cross_mask": seen}], batch_size=2)
    assert found[1]["translation_text"] == by_hand("crossmask", TEXTS[1], cross_mask=seen[None])
    assert found[0]["translation_text"] == by_hand("crossmask", TEXTS[0])


@pytest.mark.parametrize(
    "make",
    [
        tuple,
        lambda texts: Dataset.from_dict({"en": list(texts)})["en"],
        lambda texts: (text for text in texts),
        lambda texts: map(str, texts),
        lambda texts: KeyDataset(Dataset.from_dict({"en": list(texts)}), "en"),
    ],
    ids=["tuple", "column", "generator", "map", "dataset"],
)
@pytest.mark.parametrize("options", [{}, {"batch_size": 3}, {"num_workers": 1}])
def test_every_container_gives_the_same_texts(make, options):
    translate = translator()
    found = translate(make(TEXTS), **options)
    is_eager = isinstance(found, list)
    assert is_eager == isinstance(make(TEXTS), tuple | type(Dataset.from_dict({"en": []})["en"]))
    texts = [one["translation_text"] for one in found] if is_eager else [one[0]["translation_text"] for one in found]
    assert texts == [by_hand("crossmask", text) for text in TEXTS]


def test_a_generator_is_read_as_it_is_needed():
    read = []

    def texts():
        for text in TEXTS:
            read.append(text)
            yield text

    found = translator()(texts())
    next(iter(found))
    assert len(read) < len(TEXTS)


def test_as_transformers_4_returned():
    translate = translator()
    assert translate(TEXTS[0], TEXTS[1]) == translate([TEXTS[0], TEXTS[1]])
    several = {"num_beams": 3, "num_return_sequences": 2}
    assert [list(one) for one in translate(TEXTS[0], **several)] == [["translation_text"]] * 2
    assert [len(one) for one in translate(list(TEXTS[:3]), **several, batch_size=2)] == [2, 2, 2]
    assert set(translate(TEXTS[0], return_tensors=True)[0]) == {"translation_text", "translation_token_ids"}
    model, tokenizer = parts("crossmask")
    for task, key in (("summarization", "summary_text"), ("text2text-generation", "generated_text")):
        for name in (task, f"crossmask-{task}"):
            pipe = pipeline(name, model=model, tokenizer=tokenizer, device="cpu")
            (found,) = pipe("An apple a day, keeps the doctor away", min_length=3, max_length=6)
            assert list(found) == [key]
            longest = model.generate(**tokenizer(["An apple a day, keeps the doctor away"], return_tensors="pt"),
                                     min_length=3, max_new_tokens=5)  # fmt: skip
            assert found[key] == tokenizer.decode(longest[0], skip_special_tokens=True)
    assert translate([]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_tokens(kind):
    model, tokenizer = parts(kind)
    source = getattr(tokenizer, "encoder_tokenizer", tokenizer)
    found = translator(kind)(list(TEXTS), return_scores=True, batch_size=4)
    for text, one in zip(TEXTS, found, strict=True):
        inputs = source([text], return_tensors="pt")
        ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        output = model.generate(
            **ids, max_new_tokens=9, return_dict_in_generate=True, output_logits=True, do_sample=False
        )
        steps = torch.stack(output.logits, 1).log_softmax(-1)[0]
        tokens = output.sequences[0, 1:]
        wanted = steps.gather(-1, tokens[: len(steps), None]).mean()
        assert one["score"] == pytest.approx(float(wanted), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_word_pairs_say_where_the_decoder_looked(kind):
    translate = translator(kind)
    before = translate.model.config._attn_implementation
    found = translate(list(TEXTS), return_alignment=True, batch_size=4)
    assert translate.model.config._attn_implementation == before
    alone = [translate(text, return_alignment=True)[0] for text in TEXTS]
    assert sum(len(one["alignment"]) for one in found) > 5
    for text, one, other in zip(TEXTS, found, alone, strict=True):
        for pair, same in zip(one["alignment"], other["alignment"], strict=True):
            assert pair.pop("weight") == pytest.approx(same.pop("weight"), abs=1e-4)
            assert pair == same
            (first, last), (start, end) = pair["source_span"], pair["target_span"]
            assert (text[first:last], one["translation_text"][start:end]) == (pair["source"], pair["target"])
    # Where one token alone may be seen, every word comes from it.
    (only,) = translate(TEXTS[0], return_alignment=True, cross_mask="keep((1, 2))")
    assert len({pair["source"] for pair in only["alignment"]}) == 1


def test_a_streamer_gets_the_text(capsys):
    translate = translator()
    streamer = TextStreamer(translate.target_tokenizer, skip_special_tokens=True)
    (found,) = translate(TEXTS[0], streamer=streamer)
    assert capsys.readouterr().out.strip() == found["translation_text"].strip()


LONG = f"{TEXTS[0]}. {TEXTS[1]}!\n\n{TEXTS[2]}?  {TEXTS[3]}"


@pytest.mark.parametrize("kind", ["crossmask", "bridge", "marian"])
def test_a_long_text_is_split_into_sentences_and_joined_as_it_was(kind):
    translate = translator(kind)
    text = " ".join([LONG] * 3)
    found = translate([TEXTS[1], text], overlong="split", batch_size=3, return_alignment=True, return_scores=True)
    one, two, three, four = (
        by_hand(kind, part) for part in (TEXTS[0] + ".", TEXTS[1] + "!", TEXTS[2] + "?", TEXTS[3])
    )
    joint = by_hand(kind, f"{TEXTS[3]} {TEXTS[0]}.")
    wanted = f"{one} {two}\n\n{three}  {joint} {two}\n\n{three}  {joint} {two}\n\n{three}  {four}"
    assert found[1]["translation_text"] == wanted
    assert found[0]["translation_text"] == by_hand(kind, TEXTS[1])
    for pair in found[1]["alignment"]:
        (first, last), (start, end) = pair["source_span"], pair["target_span"]
        assert (text[first:last], wanted[start:end]) == (pair["source"], pair["target"])
    by_comma = translate(text, overlong="split", splitter=lambda text: text.replace(", ", ",|").split("|"))
    assert by_comma[0]["translation_text"] != wanted


def test_a_short_text_is_not_split():
    translate = translator()
    text = f"{TEXTS[1]}. {TEXTS[3]}."
    assert translate(text, overlong="split")[0]["translation_text"] == by_hand("crossmask", text)


def test_a_prefix_stands_before_every_text_and_may_be_saved(tmp_path):
    model, tokenizer = tiny()
    wanted = by_hand("crossmask", "the man " + TEXTS[0])
    assert translator()(TEXTS[0], prefix="the man ")[0]["translation_text"] == wanted
    model.config.task_specific_params = {"translation": {"prefix": "the man ", "max_new_tokens": 9, "other": 1}}
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    saved = pipeline("translation", model=str(tmp_path), device="cpu")
    assert saved(TEXTS[0])[0]["translation_text"] == wanted
    pairs = saved(TEXTS[0], return_alignment=True)[0]["alignment"]
    assert all(TEXTS[0][slice(*pair["source_span"])] == pair["source"] for pair in pairs)


def test_a_pair_of_languages_is_a_task_with_a_prefix_of_its_own():
    model, tokenizer = tiny()
    model.config.task_specific_params = {"translation_en_to_de": {"prefix": "the man "}}
    options = {"model": model, "tokenizer": tokenizer, "device": "cpu", "max_new_tokens": 9}
    assert pipeline("translation_en_to_de", **options)(TEXTS[0]) == [
        {"translation_text": by_hand("crossmask", "the man " + TEXTS[0])}
    ]
    assert pipeline("translation_en_to_fr", **options)(TEXTS[0]) == translator()(TEXTS[0])
    for task in ("translation_", "translation_en", "vqa"):
        with pytest.raises(KeyError, match=task):
            pipeline(task, **options)


def test_a_saved_pipeline_has_the_processor_of_a_bridge(tmp_path):
    translator("bridge").save_pretrained(tmp_path)
    again = pipeline("translation", model=str(tmp_path), device="cpu", max_new_tokens=9)
    assert again(TEXTS[0]) == translator("bridge")(TEXTS[0])


def test_an_attached_model_that_was_saved_has_its_masks_again(tmp_path):
    for part in parts("marian"):
        part.save_pretrained(tmp_path)
    translate = pipeline("translation", model=str(tmp_path), device="cpu", max_new_tokens=9)
    assert translate(list(TEXTS), batch_size=2) == translator("marian")(list(TEXTS))


def test_language_codes_are_for_tokenizers_that_have_them():
    with pytest.raises(PipelineInputError, match=r"tgt_lang must be left out with .*, which has no language"):
        translator()(TEXTS[0], tgt_lang="de_DE")


BAD = {
    "bytes": ([TEXTS[0], b"x"], r"inputs\[1\] must be text, got bytes; decode it"),
    "none": ([None], r"inputs\[0\] must be text, got NoneType"),
    "empty": ([TEXTS[0], TEXTS[0], " "], r"inputs\[2\] must have something in it, got ' '; leave it out"),
    "number": (3, "the input must be text, got int"),
    "surrogate": (["a\ud800"], r"inputs\[0\] must be valid Unicode"),
    "nul": (["a\0b"], r"inputs\[0\] must be without NUL, got one at 1; leave it out"),
    "no text": ([{"source": "a"}], r"inputs\[0\] must have 'text', got 'source'"),
    "another key": ({"text": "a", "mask": 1}, "the input must have no other keys than .*, got 'mask'"),
    "long": (
        [TEXTS[0], "dogs " * 99],
        r"inputs\[1\] must have at most 64 tokens, which is what the model takes, got ",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_named(name):
    inputs, message = BAD[name]
    with pytest.raises(PipelineInputError, match=f"^{message}"):
        translator()(inputs)
    if isinstance(inputs, list):
        with pytest.raises(PipelineInputError, match=f"^{message}"):
            list(translator()(one for one in inputs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlong": "drop"}, "overlong must be one of error, split, truncate, got 'drop'"),
        ({"overlong": "split", "truncation": True}, "truncation must be left out beside overlong='split'"),
        ({"splitter": str.split}, "splitter must come with overlong='split'"),
        ({"overlong": "split", "splitter": lambda text: ["dogs"]}, "splitter must give all of the text"),
        ({"overlong": "split"}, r"inputs\[0\]: the sentence 'dogs .* must have at most 64 tokens"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(PipelineInputError, match=message):
        translator()(["dogs " * 99], **options)


def test_masks_that_do_not_fit():
    with pytest.raises(PipelineInputError, match=r"inputs\[0\] must have no cross_mask beside that of the call"):
        translator()([{"text": "dogs", "cross_mask": "full()"}], cross_mask="causal()")
    with pytest.raises(PipelineInputError, match=r"inputs\[0\] must have no masks where its text is to be split"):
        translator()([{"text": "dogs. " * 40, "cross_mask": "full()"}], overlong="split")


def test_truncation_cuts_the_end():
    tokenizer = parts("crossmask")[1]
    text = "dogs " * 99
    cut = tokenizer(text, truncation=True, max_length=64)["input_ids"]
    output = parts("crossmask")[0].generate(torch.tensor([cut]), max_new_tokens=9)
    wanted = tokenizer.decode(output[0], skip_special_tokens=True)
    for options in ({"overlong": "truncate"}, {"truncation": True}):
        assert translator()(text, **options) == [{"translation_text": wanted}]
    assert translator()(TEXTS[0], max_source_length=64, overlong="truncate") == translator()(TEXTS[0])
