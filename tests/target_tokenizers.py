"""Tokenizers of the kinds that cut a word otherwise before punctuation or behind a space, and texts for them."""

from question_cases import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from crossmask.data.tokenizer_training import train_tokenizer

TEXTS = (
    "The Panthers gave up 308 points (sixth), with 24. They won 3.5 times.\nA new line: “quoted”. End",
    "他在花园里。她在家！谁？",
    "Ünïcode café – naïve 😀 rocks. Yes 😀!",
    "She met J. K. Rowling in St. Louis. One sentence. One sentence. It is unhappy (so-called).",
)
CONTEXT = "Ann left. Bob is in the garden, near Dora! Is he?"


def byte_tokenizer():
    return train_tokenizer([CONTEXT, "Answer: "] * 3, vocab_size=300)


def new_tokenizer(model, trainer, cutter, size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = cutter, decoders.Metaspace()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    unknown = {"unk_token": "<unk>"} if trainer is trainers.UnigramTrainer else {}
    trained = trainer(vocab_size=size, special_tokens=special, **unknown, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, "Answer: "] * 5, trained)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


# Their words and punctuation are one piece, which is cut otherwise than the word alone.
TOKENIZERS = {
    "word pieces": tiny_tokenizer,
    "bytes": byte_tokenizer,
    "Metaspace": lambda: new_tokenizer(
        models.BPE(unk_token="<unk>"), trainers.BpeTrainer, pre_tokenizers.Metaspace(), 200
    ),
    "Metaspace before the first word": lambda: new_tokenizer(
        models.BPE(unk_token="<unk>"), trainers.BpeTrainer, pre_tokenizers.Metaspace(prepend_scheme="first"), 200
    ),
    "Unigram": lambda: new_tokenizer(models.Unigram(), trainers.UnigramTrainer, pre_tokenizers.Metaspace(), 150),
}


def squeezed(text: str) -> str:
    """What tokenizers that lowercase and cut punctuation off keep of a text."""
    return "".join(text.lower().split())
