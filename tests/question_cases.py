"""Batches of a question and a context, as ids, for models with random weights."""

import torch
from tiny_encoders import VOCABULARY, base_model

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
