"""Models of every kind that generates texts, with random weights, and their tokenizers."""

from functools import cache

import torch
from encoder_decoders import STARTS, model_fields
from streaming_cases import REFERENCES, TEXTS, tiny
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    GPT2Config,
    MarianConfig,
    T5Config,
)

from crossmask import CrossMaskBridgeForConditionalGeneration, CrossMaskBridgeProcessor, attach
from crossmask.data.tokenizer_training import train_tokenizer

CONFIGS = {"marian": MarianConfig, "bart": BartConfig, "t5": T5Config}
KINDS = ("crossmask", "bridge", *CONFIGS)


@cache
def parts(kind: str):
    """A model with random weights and its tokenizer or processor."""
    torch.manual_seed(3)
    if kind == "crossmask":
        return tiny()
    texts = [*TEXTS, *REFERENCES] * 3
    tokenizer = train_tokenizer(texts, vocab_size=400)
    if kind == "bridge":
        target = train_tokenizer(REFERENCES * 3, vocab_size=330)
        processor = CrossMaskBridgeProcessor(tokenizer, target)
        sizes = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "initializer_range": 0.5}
        encoder = AutoModel.from_config(
            BertConfig(vocab_size=len(tokenizer), intermediate_size=32, max_position_embeddings=64, **sizes)
        )
        special = {"bos_token_id": target.bos_token_id, "eos_token_id": target.eos_token_id}
        decoder = AutoModelForCausalLM.from_config(
            GPT2Config(vocab_size=len(target), n_positions=40, **special, **sizes)
        )
        model = CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained(
            encoder, decoder, **processor.special_token_ids
        ).eval()
        for weight in model.bridge.parameters():
            torch.nn.init.normal_(weight)
        return model, processor
    fields = {key: value for key, value in model_fields(kind).items() if key != "model_type"}
    start = getattr(tokenizer, f"{STARTS[kind]}_token_id")
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    limits = {} if kind == "t5" else {"max_position_embeddings": 64}
    config = CONFIGS[kind](vocab_size=len(tokenizer), decoder_start_token_id=start, **limits, **special, **fields)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and "position" not in name:
            torch.nn.init.normal_(weight, std=0.5)
    model.generation_config.forced_eos_token_id = None
    model.generation_config.suppress_tokens = tiny()[0].generation_config.suppress_tokens  # all but whole words
    return attach(model, encoder_mask="causal()", cross_mask="wait_k(2)"), tokenizer
