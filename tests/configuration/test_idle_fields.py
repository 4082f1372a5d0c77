"""Every field of a config changes the model or is refused: none is accepted and then ignored."""

from dataclasses import fields
from functools import cache

import pytest
import torch
from bridge_families import decoder_of, encoder_of, ids
from huggingface_hub.errors import StrictDataclassError
from tiny_encoders import base_model
from transformers import PreTrainedConfig

from crossmask import (
    CrossMaskBridgeForConditionalGeneration,
    CrossMaskConfig,
    CrossMaskForConditionalGeneration,
    CrossMaskForQuestionAnswering,
    CrossMaskForSequenceClassification,
    CrossMaskForTokenClassification,
)

OWN = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "encoder_layers": 2, "decoder_layers": 2,
       "num_attention_heads": 4, "max_position_embeddings": 64}  # fmt: skip


def network(**changes):
    return CrossMaskForConditionalGeneration(CrossMaskConfig(**{**OWN, **changes}))


def bridge(**changes):
    join = CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained
    model = join(encoder_of("bert"), decoder_of("llama"), **changes)
    for block in model.bridge:  # closed blocks hide what is in them
        torch.nn.init.normal_(block.cross_attn.o_proj.weight, std=0.3)
        if block.gate is not None:
            block.gate.data.fill_(0.5)
    return model


def head(model_class, family="bert", **given):
    return lambda **changes: model_class.from_encoder_pretrained(base_model(family), **{**given, **changes})


KINDS = {
    "network": network,
    "network, factorised": lambda **changes: network(**{"embedding_size": 8, **changes}),
    "network, memory": lambda **changes: network(**{"memory_length": 3, **changes}),
    "bridge": bridge,
    "bridge, tanh": lambda **changes: bridge(**{"gate": "tanh", **changes}),
    **{
        f"classes, {pooling}": head(CrossMaskForSequenceClassification, family, pooling=pooling)
        for pooling, family in (("mean", "bert"), ("attention", "bert"), ("decoder", "crossmask"))
    },
    "tags": head(CrossMaskForTokenClassification),
    "answers": head(CrossMaskForQuestionAnswering),
}
OTHER = {
    "vocab_size": 70, "hidden_size": 32, "intermediate_size": 32, "encoder_layers": 1, "decoder_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 6, "hidden_act": "gelu", "dropout": 0.5,
    "attention_dropout": 0.5, "max_position_embeddings": 4, "rms_norm_eps": 0.5, "initializer_range": 0.5,
    "residual_initializer_range": 0.5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10.0}, "tie_word_embeddings": "embedding",
    "embedding_size": 4, "embedding_act": "relu", "memory_length": 2, "cross_attention_score": "additive",
    "encoder_mask": "window(1)", "decoder_mask": "causal() & window(1)", "cross_mask": "keep((0, 2))",
    "bridge_layers": 2, "gate": "tanh", "decoder_dropout": 0.5, "pooling": "attention", "classifier_dropout": 0.5,
    "marker_vocab_size": 3, "pointer_layers": 2, "no_answer": True, "use_cache": False,
}  # fmt: skip
# Parts, the ids of special tokens, and what is fixed.
OTHERS = {"encoder", "decoder", "is_encoder_decoder", "pad_token_id", "bos_token_id", "eos_token_id",
          "decoder_start_token_id"}  # fmt: skip


def config_class_of(kind: str) -> type[PreTrainedConfig]:
    return type(built(kind, None).config)


@cache
def built(kind: str, field: str | None):
    torch.manual_seed(0)
    return KINDS[kind](**({} if field is None else {field: OTHER[field]}))


@torch.no_grad()
def computed(model) -> list[torch.Tensor]:
    """The weights, and what is computed with them in training and afterwards."""
    tensors = list(model.parameters())
    batch = {"input_ids": ids(2, 7)}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = ids(2, 6, seed=1)
    if isinstance(model, CrossMaskForQuestionAnswering):
        batch["passage_ids"] = torch.tensor([[-1, -1, 0, 0, 0, 0, 0]] * 2)
    for training in (True, False):
        torch.manual_seed(1)
        output = model.train(training)(**batch)
        tensors += [part for part in output.to_tuple() if isinstance(part, torch.Tensor)]
    return [*tensors, torch.tensor("past_key_values" in output)]


CASES = [
    (kind, item.name)
    for kind in KINDS
    for item in fields(config_class_of(kind))
    if item.name not in OTHERS | {item.name for item in fields(PreTrainedConfig)} | {"tie_word_embeddings"}
    or (item.name == "tie_word_embeddings" and kind.startswith("network"))
]


@pytest.mark.parametrize(("kind", "field"), CASES)
def test_a_field_changes_the_model_or_is_refused(kind, field):
    if getattr(built(kind, None).config, field) == OTHER[field]:
        pytest.skip("it has this value already")
    try:
        changed = computed(built(kind, field))
    except (StrictDataclassError, ValueError) as error:
        refusal = str(error)
    else:
        refusal = None
    if refusal is not None:
        assert field in refusal
        return
    plain = computed(built(kind, None))
    assert len(plain) != len(changed) or any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(plain, changed, strict=True)
    )
