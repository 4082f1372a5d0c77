"""Models with a head on a small encoder of each family, and batches for them."""

import torch
from tiny_encoders import FAMILIES, VOCABULARY, base_model

from crossmask import CrossMaskForSequenceClassification, CrossMaskForTokenClassification

LENGTH = 12
CLASSES = 3
NO_TOKEN_MASKS = ("deberta-v2",)
"""Families whose encoders take no mask from token to token."""
POOLED = {
    f"{family}, {pooling}": (CrossMaskForSequenceClassification, family, {"pooling": pooling})
    for family in FAMILIES
    for pooling in ("attention", "mean", *(["decoder"] if family == "crossmask" else []))
}
TAGGED = {
    f"{family}, tags": (CrossMaskForTokenClassification, family, {"marker_vocab_size": 2}) for family in FAMILIES
}
HEADS = POOLED | TAGGED


def head(name: str, **fields):
    """An evaluating model whose scores differ widely."""
    model_class, family, own = HEADS[name]
    torch.manual_seed(1)
    fields = {"num_labels": CLASSES, "initializer_range": 0.3, "classifier_dropout": 0.0, **own, **fields}
    return model_class.from_encoder_pretrained(base_model(family), **fields)


def pad_token(model) -> int:
    return model.config.encoder.pad_token_id


def batch_of(model, rows: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows without padding; special ids are 2 and 3; some tokens are marked where the model takes marks."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (rows, LENGTH), generator=generator)
    ids[:, 0], ids[:, -1] = 2, 3
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if isinstance(model, CrossMaskForTokenClassification):
        batch["marker_ids"] = torch.zeros_like(ids)
        batch["marker_ids"][0, 4], batch["marker_ids"][1, 7] = 1, 2
    return batch


def labels_of(model, batch) -> torch.Tensor:
    """A class for each row, or for each token but the last."""
    ids = batch["input_ids"]
    if not isinstance(model, CrossMaskForTokenClassification):
        return ids[:, 1] % CLASSES
    return (ids % CLASSES).index_fill(1, torch.tensor([ids.shape[1] - 1]), -100)


def padded(batch, pad_token_id: int, left: int = 0, right: int = 0) -> dict[str, torch.Tensor]:
    """A batch with padding on either side."""
    fill = {"input_ids": pad_token_id}
    return {
        name: torch.nn.functional.pad(tensor, (left, right), value=fill.get(name, 0)) for name, tensor in batch.items()
    }


def changed(batch, places) -> dict[str, torch.Tensor]:
    """A batch with other tokens at these places."""
    ids = batch["input_ids"].clone()
    ids[:, places] = 5 + (ids[:, places] - 4) % 50
    return {**batch, "input_ids": ids}


def logits(model, batch, **call) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch, **call).logits
