"""A tiny model whose attention is sharp enough to show a wrong mask."""

import pytest
import torch

from crossmask.configuration.crossmask import CrossMaskConfig
from crossmask.hub.registration import register
from crossmask.modeling.crossmask import CrossMaskForConditionalGeneration


@pytest.fixture(scope="module")
def model():
    register()
    torch.manual_seed(0)
    config = CrossMaskConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        encoder_layers=2,
        decoder_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
        encoder_mask="window(4)",
        cross_mask={"0": "wait_k(2)", "rest": "full()"},
    )
    return CrossMaskForConditionalGeneration(config).eval()
