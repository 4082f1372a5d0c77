"""Batches of a question and a context, as ids, for models with random weights."""

from functools import cache
from pathlib import Path

import torch
from tiny_encoders import VOCABULARY, base_model, encoder_config
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertModel, PreTrainedTokenizerFast

from crossmask import CrossMaskForQuestionAnswering

QUESTION, CONTEXT = 4, 9
LENGTH = 1 + QUESTION + 1 + CONTEXT + 1


def model_of(family: str, **fields) -> CrossMaskForQuestionAnswering:
    """An evaluating model whose pointer scores differ widely."""
    torch.manual_seed(1)
    fields = {"initializer_range": 0.3, "num_attention_heads": 4, **fields}
    return CrossMaskForQuestionAnswering.from_encoder_pretrained(base_model(family), **fields)


def batch_of(rows: int = 2, passages: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows of `[start] question [separator] context [separator]`, none padded; special ids are 2 and 3."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (rows, LENGTH), generator=generator)
    ids[:, 0], ids[:, 1 + QUESTION], ids[:, -1] = 2, 3, 3
    passage_ids = torch.full((rows, LENGTH), -1)
    passage_ids[:, QUESTION + 2 : -1] = torch.arange(CONTEXT) * passages // CONTEXT
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "passage_ids": passage_ids}


def padded(
    batch: dict[str, torch.Tensor], pad_token_id: int, left: int = 0, right: int = 0
) -> dict[str, torch.Tensor]:
    """A batch with padding on either side."""
    fill = {"input_ids": pad_token_id, "attention_mask": 0, "passage_ids": -1, "token_type_ids": 0}
    return {name: torch.nn.functional.pad(tensor, (left, right), value=fill[name]) for name, tensor in batch.items()}


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """As BERT's, of whole words and letters."""
    text = "ann bob carl dora is in the garden kitchen near sits left where who with there and not ? . ,"
    words = text.split()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=names, **special)


@cache
def tiny_reader(no_answer: bool) -> tuple[CrossMaskForQuestionAnswering, PreTrainedTokenizerFast]:
    """A model with random weights, and a tokenizer for it."""
    torch.manual_seed(0)
    config = encoder_config("bert")
    config.vocab_size = len(tiny_tokenizer())
    fields = {"no_answer": no_answer, "initializer_range": 0.3}
    return CrossMaskForQuestionAnswering.from_encoder_pretrained(BertModel(config), **fields), tiny_tokenizer()


def encoder_folder(folder: Path) -> str:
    """A pretrained BERT and its tokenizer, in a folder of that one."""
    config = encoder_config("bert")
    config.vocab_size = len(tiny_tokenizer())
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder / "encoder")
    tiny_tokenizer().save_pretrained(folder / "encoder")
    return str(folder / "encoder")
