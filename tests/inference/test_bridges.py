"""Texts through a bridge, whose sources and targets have tokenizers of their own."""

import pytest
import torch
from command_line import command
from small_models import small_model
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, GPT2Config

from crossmask import CrossMaskBridgeForConditionalGeneration, CrossMaskBridgeProcessor, translate_batch
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.inference.reranking import NoisyChannelReranker
from crossmask.streaming.text import translate

main = command("translate")

SOURCES = ["a dog", "a dog and a cat are at work in the old house", "", "two men"]
LENGTHS = {"min_new_tokens": 5, "max_new_tokens": 5}


@pytest.fixture(scope="module")
def bridge():
    """The decoder has the larger vocabulary, and its padding token is no token of the encoder."""
    torch.manual_seed(0)
    source = train_tokenizer(SOURCES, vocab_size=290)
    target = train_tokenizer(["ein Hund", "zwei Männer bei der Arbeit"], vocab_size=300)
    target.add_special_tokens({"pad_token": "<fill>"})
    processor = CrossMaskBridgeProcessor(source, target)
    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "initializer_range": 0.5}
    special = {"bos_token_id": target.bos_token_id, "eos_token_id": target.eos_token_id}
    encoder = AutoModel.from_config(
        BertConfig(vocab_size=len(source), intermediate_size=32, max_position_embeddings=40, **sizes)
    )
    decoder = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=len(target), n_positions=20, **special, **sizes))
    model = CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained(
        encoder, decoder, **processor.special_token_ids
    ).eval()
    for weight in model.bridge.parameters():
        torch.nn.init.normal_(weight)
    assert processor.pad_token_id >= len(source)
    return model, processor


def alone(model, processor, text: str) -> str:
    if not text:
        return ""
    output = model.generate(**processor.encoder_tokenizer([text], return_tensors="pt"), **LENGTHS)
    return processor.batch_decode(output, skip_special_tokens=True)[0]


def test_each_text_comes_out_as_it_does_alone(bridge):
    outputs = translate_batch(*bridge, SOURCES, progress=False, **LENGTHS)
    assert outputs == [alone(*bridge, text) for text in SOURCES]
    assert len(set(outputs)) == len(SOURCES)


def test_a_reverse_model_reranks_what_a_bridge_writes(bridge):
    model, processor = bridge
    words = processor.encoder_tokenizer
    reranker = NoisyChannelReranker(small_model(vocab_size=len(words)), words, processor, weight=5.0)
    how = {"num_beams": 4, "progress": False, **LENGTHS}
    outputs = translate_batch(model, processor, SOURCES, custom_generate=reranker, **how)
    assert outputs == translate_batch(model, processor, SOURCES, custom_generate=reranker, batch_tokens=1, **how)
    assert outputs != translate_batch(model, processor, SOURCES, **how)


def test_a_bridge_that_reranks_is_given_targets_as_it_is_trained_on_them(bridge, monkeypatch):
    reverse, processor = bridge
    words, labels, forward = processor.encoder_tokenizer, [], reverse.forward
    monkeypatch.setattr(reverse, "forward", lambda **inputs: (labels.append(inputs["labels"]), forward(**inputs))[1])
    reranker = NoisyChannelReranker(reverse, processor, words)
    how = {"num_beams": 2, "progress": False, **LENGTHS}
    translate_batch(small_model(vocab_size=len(words)), words, ["two men"], custom_generate=reranker, **how)
    text = processor.decoder_tokenizer("two men", add_special_tokens=False)["input_ids"]
    assert labels[0].tolist() == [[*text, processor.decoder_tokenizer.eos_token_id]] * 2


def test_a_text_is_refused_at_the_length_that_the_encoder_takes(bridge):
    with pytest.raises(ValueError, match=r"texts\[0\] must have at most 40 tokens, which is what the model takes"):
        translate_batch(*bridge, ["a dog " * 40], progress=False)
    with pytest.raises(ValueError, match="max_new_tokens must be at most 20 "):
        translate_batch(*bridge, ["a dog"], progress=False, max_new_tokens=21)


def test_files(bridge, tmp_path):
    for part in bridge:
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "lines.txt").write_text("".join(f"{text}\n" for text in SOURCES))
    output = tmp_path / "output.txt"
    options = ["--dtype", "float32", "--device", "cpu", "--quiet", "--max-new-tokens", "5", "--output", str(output)]
    assert main([str(tmp_path / "model"), str(tmp_path / "lines.txt"), *options]) == 0
    texts = translate_batch(*bridge, SOURCES, progress=False, max_new_tokens=5)
    assert output.read_text() == "".join(f"{text}\n" for text in texts)


def test_words_that_arrive_one_by_one(bridge):
    masks = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}
    texts = [result.text.split() for result in translate(*bridge, SOURCES, max_new_tokens=5, **masks)]
    outputs = translate_batch(*bridge, SOURCES, progress=False, num_beams=1, max_new_tokens=5, **masks)
    assert texts == [output.split() for output in outputs]
