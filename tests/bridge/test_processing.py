"""Two tokenizers as one processor: what it gives the model, how it is saved, and how Transformers uses it."""

import pytest
import torch
from bridge_families import bridge_of
from datasets import Dataset
from new_process import run_code
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from crossmask import CrossMaskBridgeProcessor
from crossmask.data.collator import Seq2SeqCollator

pytestmark = pytest.mark.filterwarnings("ignore")
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "a", "dog", "runs", "ein", "Hund", "user", ":", "answer"]
PAD, START, END, A, DOG, RUNS, EIN, HUND, USER, COLON, ANSWER = 0, 1, 2, *range(4, 12)
TEMPLATE = (
    "<s>{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}answer : {% endif %}"
)


def tokenizer_of(template: str = "$A", **special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of 12 words; `template` says what it adds to a text."""
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", START), ("</s>", END)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **special)


SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
ENCODER = {"template": "<s> $A </s>", **SPECIAL}
# What of a vocabulary's special tokens differs between families of decoders.
DECODERS = {
    "nothing-added": (SPECIAL, PAD, START),
    "beginning-added": ({"template": "<s> $A", **SPECIAL}, PAD, START),
    "both-added": (ENCODER, PAD, START),
    "padding-is-end": ({"pad_token": "</s>", "bos_token": "</s>", "eos_token": "</s>"}, END, END),
    "no-padding": ({"bos_token": "<s>", "eos_token": "</s>"}, END, START),
    "no-beginning": ({"pad_token": "<pad>", "eos_token": "</s>"}, PAD, END),
}  # fmt: skip


def processor_of(decoder: str = "padding-is-end") -> CrossMaskBridgeProcessor:
    return CrossMaskBridgeProcessor(tokenizer_of(**ENCODER), tokenizer_of(**DECODERS[decoder][0]))


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_kind_of_vocabulary_gives_the_same_labels(decoder):
    processor, (_, pad, start) = processor_of(decoder), DECODERS[decoder]
    batch = processor(text=["a dog runs", "a"], text_target=["ein", "ein Hund"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[START, A, DOG, RUNS, END], [START, A, END, PAD, PAD]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1] * 3 + [0] * 2]
    assert batch["labels"].tolist() == [[EIN, END, -100], [EIN, HUND, END]]
    assert (processor.pad_token_id, processor.decoder_start_token_id) == (pad, start)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert processor.batch_decode(batch["labels"], skip_special_tokens=True) == ["ein", "ein Hund"]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_prefix_is_read_and_not_learned(decoder):
    processor, (_, pad, start) = processor_of(decoder), DECODERS[decoder]
    processor.decoder_tokenizer.chat_template = TEMPLATE.replace("<s>", "" if start == END else "<s>")
    conversation = [{"role": "user", "content": "runs"}]
    prefix = [USER, COLON, RUNS, ANSWER, COLON]
    options = {"decoder_prefix": conversation, "padding": True, "return_tensors": "pt"}
    batch = processor(text=["a", "a"], text_target=["ein", "ein Hund"], **options)
    assert batch["labels"].tolist() == [[-100] * 5 + [EIN, END, -100], [-100] * 5 + [EIN, HUND, END]]
    assert batch["decoder_input_ids"].tolist() == [[start, *prefix, EIN, END], [start, *prefix, EIN, HUND]]
    assert batch["decoder_attention_mask"].tolist() == [[1] * 8, [1] * 8]
    prompt = processor(text=["a", "a"], **(options | {"decoder_prefix": ["user", conversation]}))
    assert prompt["decoder_input_ids"].tolist() == [[pad] * 4 + [start, USER], [start, *prefix]]
    assert prompt["decoder_attention_mask"].tolist() == [[0] * 4 + [1, 1], [1] * 6]
    features = [processor(text="a", text_target=target, decoder_prefix=conversation) for target in ("ein", "ein Hund")]
    assert dict(features[0]) == dict(processor(text="a")) | {"labels": [EIN, END], "decoder_prefix_ids": prefix}
    collated = Seq2SeqCollator(pad, start, source_pad_token_id=PAD)(features)
    assert {name: rows.tolist() for name, rows in collated.items()} == {n: rows.tolist() for n, rows in batch.items()}


def test_sources_are_padded_with_their_own_token():
    features = [{"input_ids": [5, 6], "labels": [7]}, {"input_ids": [5], "labels": [7, 8, 2]}]
    batch = Seq2SeqCollator(2, 1, source_pad_token_id=3)(features)
    assert batch["input_ids"].tolist() == [[5, 6], [5, 3]]
    assert batch["decoder_input_ids"].tolist() == [[1, 7, 2], [1, 7, 8]]


def test_lengths_keep_the_end():
    processor = processor_of()
    one = processor(text="a dog runs", text_target="ein Hund", max_length=3, max_target_length=2)
    assert (one["input_ids"], one["labels"]) == ([START, A, END], [EIN, END])
    assert processor(text_target="")["labels"] == [END]
    assert processor(text_target="ein </s>")["labels"] == [EIN, END]
    assert processor(text="a", return_tensors="pt")["input_ids"].shape == (1, 3)
    assert processor.batch_decode([[EIN, END, -100]]) == ["ein </s> </s>"]


@pytest.mark.parametrize("shared", [False, True])
def test_both_are_saved_together(shared, tmp_path):
    processor = CrossMaskBridgeProcessor(tokenizer_of(**ENCODER)) if shared else processor_of()
    bridge_of().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "decoder_tokenizer").exists() is not shared
    given = {"text": ["a dog"], "text_target": ["ein Hund"]}
    for loader in (AutoProcessor, CrossMaskBridgeProcessor):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is CrossMaskBridgeProcessor
        assert dict(loaded(**given)) == dict(processor(**given))
        assert loaded.special_token_ids == processor.special_token_ids
        assert loaded.shared is shared
    assert AutoTokenizer.from_pretrained(tmp_path)("a dog").input_ids == [START, A, DOG, END]
    loaded.save_pretrained(tmp_path / "again")
    assert dict(AutoProcessor.from_pretrained(tmp_path / "again")(**given)) == dict(processor(**given))


STRANGER = """
from transformers import AutoProcessor

for folder in (sys.argv[1], sys.argv[1] + "/again"):
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    assert type(processor).__name__ == "CrossMaskBridgeProcessor"
    assert processor(text_target="ein Hund")["labels"] == [7, 8, 2]
    processor.save_pretrained(sys.argv[1] + "/again")
"""


def test_a_saved_processor_loads_where_crossmask_is_not_installed(tmp_path):
    processor_of().save_pretrained(tmp_path)
    run_code(STRANGER, tmp_path, cwd=tmp_path)


def test_the_trainer_takes_it(tmp_path):
    processor = processor_of("no-padding")
    processor.encoder_tokenizer.eos_token = "dog"  # as an encoder of another vocabulary has it
    model = bridge_of(**processor.special_token_ids)
    rows = [{"text": "a dog runs", "text_target": "ein Hund"}, {"text": "a", "text_target": "ein"}]
    data = Dataset.from_list([dict(processor(**row)) for row in rows])
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        predict_with_generate=True,
        generation_max_length=5,
    )
    collator = Seq2SeqCollator(END, START, source_pad_token_id=PAD)
    trainer = Seq2SeqTrainer(
        model, arguments, train_dataset=data, eval_dataset=data, data_collator=collator, processing_class=processor
    )
    trainer.train()
    expected = processor.special_token_ids
    for config in (model.config, model.generation_config):
        assert {name: getattr(config, name) for name in expected} == expected
    assert len(processor.batch_decode(trainer.predict(data).predictions)) == 2
    trainer.save_model(str(tmp_path / "saved"))
    assert AutoProcessor.from_pretrained(tmp_path / "saved").special_token_ids == expected


@torch.no_grad()
def test_a_prompt_goes_on_as_it_does_alone():
    processor = processor_of("nothing-added")
    model = bridge_of(**processor.special_token_ids)
    options = {"padding": True, "return_tensors": "pt"}
    prefixes = ["user", "user : answer"]
    both = model.generate(**processor(text=["a", "dog"], decoder_prefix=prefixes, **options), max_new_tokens=4)
    alone = model.generate(**processor(text=["a"], decoder_prefix=["user"], **options), max_new_tokens=4)
    assert both[0, 2:].tolist()[: alone.shape[1]] == alone[0].tolist()


def test_vocabularies_that_cannot_serve_are_refused():
    whole = tokenizer_of(**ENCODER)
    with pytest.raises(ValueError, match="encoder_tokenizer must have a padding token"):
        CrossMaskBridgeProcessor(tokenizer_of(eos_token="</s>"), whole)
    with pytest.raises(ValueError, match="decoder_tokenizer must have an end token"):
        CrossMaskBridgeProcessor(whole, tokenizer_of(pad_token="<pad>"))
    with pytest.raises(TypeError):
        CrossMaskBridgeProcessor(whole, "gpt2")


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({}, ValueError, "text or text_target must be given"),
        ({"text": []}, ValueError, "at least one text"),
        ({"text": [3]}, TypeError, "text must be a text or a list of texts, got int"),
        ({"text": ["a", "a"], "text_target": "ein"}, ValueError, "one text for each of text's 2, got 1"),
        ({"text": ["a"], "decoder_prefix": ["user", "user"]}, ValueError, "one for each of 1 texts, got 2"),
        ({"text": "a", "max_length": 0}, ValueError, "max_length must be at least 1, got 0"),
        ({"text": "a", "return_tensors": "tf"}, ValueError, "return_tensors must be"),
        ({"text": ["a", "a dog"], "return_tensors": "pt"}, ValueError, "padding must be True"),
        ({"text": "a", "truncation": True}, TypeError, "truncation"),
    ],
)
def test_calls_that_do_not_fit_are_refused(given, error, match):
    with pytest.raises(error, match=match):
        processor_of()(**given)


def test_a_folder_without_a_processor_says_so(tmp_path):
    tokenizer_of(**ENCODER).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must have a processor_config\.json of a bridge's processor"):
        CrossMaskBridgeProcessor.from_pretrained(tmp_path)
