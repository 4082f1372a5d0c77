"""A tiny model that is trained: it ends its outputs, is sure of them, and ranks others close behind."""

from functools import lru_cache
from pathlib import Path

import torch
from small_models import small_config

from crossmask import CrossMaskForConditionalGeneration
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.serving import export

SENTENCE = "the old house has two small doors and a dog sees red birds near green trees at night"
WORDS = SENTENCE.split(" ")
TEXTS = [" ".join(WORDS[start : start + count]) for start in range(0, 12) for count in (1, 3, 6)]


@lru_cache
def tokenizer():
    """Of single words."""
    return train_tokenizer([SENTENCE, *WORDS] * 5, vocab_size=60, byte_fallback=False)


@lru_cache
def trained_model(steps: int = 160) -> CrossMaskForConditionalGeneration:
    """It writes the words of a text in the opposite order; trained so briefly that it is wrong now and then.

    Its settings of generation are the defaults, with 16 new tokens.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CrossMaskForConditionalGeneration(
            small_config(
                vocab_size=len(tokenizer()) + 3,  # ids that no token has
                hidden_size=32,
                intermediate_size=64,
                encoder_layers=1,
                decoder_layers=1,
                initializer_range=0.1,
            )
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
        for _ in range(steps):
            lengths = torch.randint(1, 7, (32,)).tolist()
            picked = [[WORDS[index] for index in torch.randint(len(WORDS), (length,))] for length in lengths]
            sides = [tokenizer()([" ".join(words[::step]) for words in picked], padding=True) for step in (1, -1)]
            source, target = (
                {name: torch.tensor(side[name]) for name in ("input_ids", "attention_mask")} for side in sides
            )
            labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
            model(**source, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.generation_config.max_new_tokens = 16
    return model.eval()


def exported(model: CrossMaskForConditionalGeneration, engine: str, folder: Path) -> Path:
    """`folder`, with the model for an engine and the tokenizer."""
    tokenizer().backend_tokenizer.no_padding()  # which a call may have left, and which would be saved
    return export(model, engine, folder, tokenizer=tokenizer()).folder
