"""A loopback Hub that this process talks to, and a tiny model whose attention is sharp enough to show a wrong mask."""

import huggingface_hub
import pytest
import torch
import transformers
from loopback_hub import TOKEN, LoopbackHub

from crossmask.configuration.crossmask import CrossMaskConfig
from crossmask.hub.registration import register
from crossmask.modeling.crossmask import CrossMaskForConditionalGeneration


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with LoopbackHub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)  # made once, with the endpoint of that moment
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub
        assert hub.unknown == []


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
