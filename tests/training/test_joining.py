"""`train.py` with a bridge: a pretrained encoder and decoder, joined, frozen in part, trained in stages."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from saved_parts import NO_PARTS, PACKED, UNPACKED, save_parts
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from training_jobs import assert_goes_on, corpus, job_of, recipe_file, tiny_tokenizer, trained
from transformers import AutoModel, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from crossmask.bridge import CrossMaskBridgeForConditionalGeneration
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.inference import translate_batch
from crossmask.inference.loading import load_model_and_tokenizer
from crossmask.training.joining import writing_tokenizer
from crossmask.training.run import execute
from crossmask.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("without_drawing")


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, str]:
    return save_parts(tmp_path_factory.mktemp("parts"))


@pytest.mark.parametrize("batching", [UNPACKED, PACKED], ids=str)
def test_a_bridge_is_trained_saved_and_reported(tmp_path, parts, batching):
    changes = {"freeze": ["encoder"], "learning_rates": {"bridge": 0.5}, "model": {"bridge_layers": 2}}
    job = job_of(recipe_file(tmp_path, **parts | changes, **batching))
    model = job.trainer.model
    assert isinstance(model, CrossMaskBridgeForConditionalGeneration)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    execute(job)
    changed = {
        name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"decoder", "bridge"}
    saved = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run")
    torch.testing.assert_close(saved.state_dict(), model.state_dict(), rtol=0, atol=0, check_device=False)
    facts = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < facts["trained_parameters"] < facts["parameters"]
    card = (tmp_path / "run" / "README.md").read_text()
    for line in (
        "| encoder | bert, 3 layers of 32 |",
        "| decoder | llama, 3 layers of 32 |",
        "decoder's layers | 1 |",
    ):
        assert line in card
    assert (tmp_path / "run" / "alignment_1.png").exists()


@pytest.mark.parametrize("batching", [UNPACKED, PACKED], ids=str)
def test_a_run_with_a_bridge_goes_on_to_the_bit(tmp_path, parts, batching):
    changes = {"freeze": ["encoder"], "learning_rates": {"bridge": 0.05}, "optim": "adamw_torch", **batching}
    assert assert_goes_on(recipe_file(tmp_path, **parts | changes), 2) == 4


def test_a_second_stage_begins_with_the_first(tmp_path, parts):
    execute(job_of(recipe_file(tmp_path, **parts, freeze=["encoder", "decoder"])))
    (tmp_path / "second").mkdir()
    stage = {**parts, **NO_PARTS, "model_name_or_path": str(tmp_path / "run")}
    job = job_of(recipe_file(tmp_path / "second", **stage, freeze=["encoder"], learning_rates={"decoder": 0.01}))
    first = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run").state_dict()
    torch.testing.assert_close(job.trainer.model.state_dict(), first, rtol=0, atol=0, check_device=False)
    assert trained(job)[0] == 4


NEW_DECODER = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48
}  # fmt: skip
ON_AN_ENCODER = {"decoder_name_or_path": None, "tokenizer": {"vocab_size": 300}, "model": {"decoder": NEW_DECODER}}


@pytest.mark.parametrize("batching", [UNPACKED, PACKED], ids=str)
def test_a_new_decoder_is_trained_on_a_pretrained_encoder(tmp_path, parts, batching):
    recipe = recipe_file(tmp_path, **{**parts, **ON_AN_ENCODER}, **batching, freeze=["encoder"])
    job = job_of(recipe)
    model, processor = job.trainer.model, job.trainer.processing_class
    encoder = AutoModel.from_pretrained(parts["encoder_name_or_path"]).state_dict()
    torch.testing.assert_close(model.encoder.state_dict(), encoder, rtol=0, atol=0, check_device=False)
    assert (model.decoder.config.model_type, model.decoder.config.num_hidden_layers) == ("llama", 2)
    assert model.config.vocab_size == len(processor.decoder_tokenizer)
    assert model.config.eos_token_id == processor.decoder_tokenizer.eos_token_id
    # Targets are what the new tokenizer has learned from, sources keep the encoder's.
    learned = train_tokenizer([example.target for example in corpus()], 300, model_max_length=32)
    assert processor.decoder_tokenizer.get_vocab() == learned.get_vocab()
    assert processor.encoder_tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
    assert assert_goes_on(recipe, 2) == 4
    execute(job_of(recipe, "--overwrite"))
    saved = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run")
    torch.testing.assert_close(saved.encoder.state_dict(), encoder, rtol=0, atol=0)


def test_a_new_decoder_begins_with_the_encoders_embeddings(tmp_path, parts):
    changes = {**parts, **ON_AN_ENCODER, "tokenizer": None, "share_embeddings": True}
    recipe = recipe_file(tmp_path, **changes, **UNPACKED, freeze=["encoder"])
    job = job_of(recipe)
    model, processor = job.trainer.model, job.trainer.processing_class
    source, own = (part.get_input_embeddings().weight for part in (model.encoder, model.decoder))
    assert torch.equal(own, source)
    assert own is not source
    assert processor.decoder_tokenizer.get_vocab() == processor.encoder_tokenizer.get_vocab()
    assert model.config.eos_token_id == processor.decoder_tokenizer.eos_token_id
    assert assert_goes_on(recipe, 2) == 4


def test_a_tokenizer_that_only_reads_gets_tokens_to_write_with():
    backend = Tokenizer(WordLevel({"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}))
    reads = PreTrainedTokenizerFast(tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")
    writes = writing_tokenizer(reads)
    assert (writes.bos_token, writes.eos_token) == ("[CLS]", "[SEP]")
    assert (reads.bos_token, reads.eos_token) == (None, None)
    reads.bos_token = reads.eos_token = "a"
    assert (writing_tokenizer(reads).bos_token, writing_tokenizer(reads).eos_token) == ("a", "a")


SHARED = {"share_embeddings": True, "tokenizer": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {**SHARED, "model": {"decoder": {**NEW_DECODER, "hidden_size": 16}}},
            "model.decoder must have a hidden_size of 32, the width of the encoder's .* share_embeddings, got 16",
        ),
        ({"share_embeddings": True}, "tokenizer must be left out, got .* without its embeddings, to use another"),
        (
            {**SHARED, "encoder_name_or_path": None, "model": None},
            "share_embeddings must be left out without a new decoder on a pretrained encoder, got True",
        ),
        ({"model": None}, "decoder_name_or_path must be given, or model.decoder with the model_type .* got None"),
        ({"model": {"decoder": {"hidden_size": 32}}}, "decoder_name_or_path must be given, or model.decoder with"),
        ({"model": {"decoder": {"model_type": "lama"}}}, "model.decoder.model_type .*did you mean 'llama'"),
        (
            {"model": {"decoder": {**NEW_DECODER, "hiden_size": 2}}},
            "model.decoder has no setting 'hiden_size': did you mean 'hidden_size'",
        ),
        ({"model": {"decoder": {**NEW_DECODER, "vocab_size": 20}}}, "model.decoder has no setting 'vocab_size'"),
        ({"model": {"decoder": {"model_type": "bert"}}}, "decoder must be causal"),
        ({"model": {"decoder": NEW_DECODER, "bridge_layers": 3}}, "must be from 1 to the decoder's 2 layers, got 3"),
        ({"tokenizer": {"vocab_sise": 300}}, "tokenizer has no setting 'vocab_sise'"),
    ],
    ids=str,
)
def test_a_new_decoder_that_cannot_be_made_is_refused(tmp_path, parts, changes, message):
    with pytest.raises(InputError, match=message) as error:
        job_of(recipe_file(tmp_path, **{**parts, **ON_AN_ENCODER, **changes}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_name_or_path": None}, "encoder_name_or_path must be given with decoder_name_or_path"),
        ({"model_name_or_path": "x"}, "encoder_name_or_path must be left out beside model_name_or_path"),
        ({"model": {"bridge_layer": 2}}, "model has no setting 'bridge_layer': did you mean 'bridge_layers'"),
        ({"model": {"bridge_layers": 9}}, "bridge_layers must be from 1 to the decoder's 3 layers, got 9"),
        ({"tokenizer": {"vocab_size": 300}}, "tokenizer must be left out"),
        (
            {"max_target_length": 65},
            r"must be at most 64, the max_position_embeddings of the decoder \(llama\), got 65",
        ),
        ({"freeze": ["bridges"]}, "'bridges' must be a part of the crossmask-bridge model, which has .*did you mean"),
        (
            {"task": "language-modeling", "max_source_length": 256},
            "decoder_name_or_path must be left out for task language-modeling",
        ),
        ({"decoder_name_or_path": "ENCODER"}, "decoder_name_or_path .* decoder must be causal"),
    ],
    ids=str,
)
def test_what_cannot_be_joined_is_refused(tmp_path, parts, changes, message):
    changes = {name: parts["encoder_name_or_path"] if value == "ENCODER" else value for name, value in changes.items()}
    with pytest.raises(InputError, match=message) as error:
        job_of(recipe_file(tmp_path, **{**parts, **changes}))
    assert "\n" not in str(error.value)


def test_parts_that_cannot_be_packed_are_refused_before_training(tmp_path):
    fields = save_parts(tmp_path, decoder="bloom")
    with pytest.raises(InputError, match="batching must be examples or buckets for this model: "):
        job_of(recipe_file(tmp_path, **fields, **PACKED))
    recipe = yaml.safe_load(Path(recipe_file(tmp_path, **fields, **UNPACKED)).read_text())
    assert recipe["batching"] == "examples"
    assert trained(job_of(recipe_file(tmp_path, **fields, **UNPACKED)))[0] == 4


def test_sources_and_targets_may_have_two_tokenizers(tmp_path):
    fields = save_parts(tmp_path)
    source, target = tiny_tokenizer(), decoder_tokenizer()
    target.save_pretrained(fields["decoder_name_or_path"])
    job = job_of(recipe_file(tmp_path, **fields, **UNPACKED))
    features, text = job.trainer.train_dataset[0], corpus()[0]
    assert features["input_ids"] == source(text.source).input_ids
    assert features["labels"] == [*target(text.target, add_special_tokens=False).input_ids, target.eos_token_id]
    execute(job)
    model, processor = load_model_and_tokenizer(str(tmp_path / "run"))
    assert processor.decoder_tokenizer.get_vocab() == target.get_vocab() != source.get_vocab()
    assert (model.config.eos_token_id, model.config.decoder_start_token_id) == (
        target.eos_token_id,
        target.bos_token_id,
    )
    texts = [example.source for example in corpus(3)]
    assert translate_batch(model, processor, texts, max_new_tokens=4, progress=False) == job.trainer.predictions
    assert "AutoProcessor.from_pretrained" in (tmp_path / "run" / "README.md").read_text()


def decoder_tokenizer():
    """One that begins a text, as those of causal language models do."""
    texts = [example.target for example in corpus()]
    return train_tokenizer(texts, 264, special_tokens=["<other>"], add_bos_token=True, add_eos_token=False)


def test_a_run_with_two_tokenizers_goes_on_and_is_trained_further(tmp_path):
    fields = save_parts(tmp_path)
    decoder_tokenizer().save_pretrained(fields["decoder_name_or_path"])
    recipe = recipe_file(tmp_path, **fields, **PACKED)
    assert_goes_on(recipe, 2)
    execute(job_of(recipe, "--overwrite"))
    stage = {**fields, **NO_PARTS, "model_name_or_path": str(tmp_path / "run"), "output_dir": str(tmp_path / "second")}
    job = job_of(recipe_file(tmp_path, **stage, **PACKED))
    assert job.trainer.processing_class.decoder_tokenizer.get_vocab() == decoder_tokenizer().get_vocab()
    assert trained(job)[0] == 4


def test_bpe_dropout_needs_one_tokenizer(tmp_path, parts):
    with pytest.raises(InputError, match=r"bpe_dropout must be left out for a bridge, .*, got 0\.1"):
        job_of(recipe_file(tmp_path, **parts, bpe_dropout=0.1, train={"format": "tsv", "path": "nowhere.tsv"}))
