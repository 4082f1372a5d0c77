"""Small models with random weights, large enough that attention is not flat and errors show."""

import torch
from transformers import LogitsProcessor

from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration

TIES = (True, "embedding", "head", False)
PAD, START, END = 0, 1, 2


def small_config(**fields) -> CrossMaskConfig:
    sizes = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "dropout": 0.0,
        "initializer_range": 0.5,
    }
    return CrossMaskConfig(**{**sizes, **fields})


def small_model(seed: int = 0, attention: str | None = None, **fields) -> CrossMaskForConditionalGeneration:
    """An evaluating model; the same seed gives the same weights."""
    torch.manual_seed(seed)
    config = small_config(**fields)
    if attention is not None:
        config._attn_implementation = attention
    model = CrossMaskForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # they start at one, where a norm that is left out of place would not show
                parameter.uniform_(0.5, 1.5)
    return model


def tokens(*shape: int, seed: int = 0, vocab_size: int = 40) -> torch.Tensor:
    """Random ids, none of them special."""
    return torch.randint(4, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def pad(rows: list[torch.Tensor], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (L_i,) to ids and attention mask (B, L), padded on the `"left"` or on the `"right"`."""
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD, padding_side=side)
    ones = [torch.ones_like(row) for row in rows]
    return ids, torch.nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side=side)


class EndOneByOne(LogitsProcessor):
    """Ends the first of a batch's examples after 4 tokens at most, and each of the others two tokens later."""

    def __init__(self, examples: int):
        self.examples = examples

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        ended = max(0, min((input_ids.shape[1] - 3) // 2, self.examples))
        rows = ended * len(input_ids) // self.examples
        scores[:rows] -= 1e4
        scores[:rows, END] = 0.0
        return scores
