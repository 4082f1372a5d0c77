"""Small text encoders of many families with random weights, large enough that attention is not flat."""

import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    BartConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    T5Config,
    XLMRobertaConfig,
)

from crossmask import CrossMaskConfig

VOCABULARY = 60
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}
_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_BERT = {**_SIZES, **_DROPOUT, "max_position_embeddings": 64}
_ROBERTA = {**_SIZES, **_DROPOUT, "max_position_embeddings": 66, "pad_token_id": 1}

FAMILIES = {
    "bert": lambda: BertConfig(**_BERT),
    "roberta": lambda: RobertaConfig(**_ROBERTA, type_vocab_size=1),
    "xlm-roberta": lambda: XLMRobertaConfig(**_ROBERTA, type_vocab_size=1),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, hidden_dim=48, n_layers=2, n_heads=4, max_position_embeddings=64,
        initializer_range=0.3, dropout=0.0, attention_dropout=0.0,
    ),
    "modernbert": lambda: ModernBertConfig(
        **_SIZES, max_position_embeddings=64, local_attention=6, global_attn_every_n_layers=2, pad_token_id=0,
        cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3,
    ),
    "electra": lambda: ElectraConfig(**_BERT, embedding_size=16),
    "deberta-v2": lambda: DebertaV2Config(
        **_BERT, type_vocab_size=0, relative_attention=True, pos_att_type=["p2c", "c2p"], position_biased_input=False,
        max_relative_positions=16, pooler_hidden_size=32,
    ),
    "mpnet": lambda: MPNetConfig(**{**_ROBERTA, "max_position_embeddings": 66}),
    "albert": lambda: AlbertConfig(**_BERT, embedding_size=16),
    "t5": lambda: T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0,
        initializer_factor=3.0,
    ),
    "bart": lambda: BartConfig(
        vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=1, encoder_ffn_dim=48, decoder_ffn_dim=48,
        encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=64, init_std=0.3, dropout=0.0,
        pad_token_id=1, bos_token_id=0, eos_token_id=2,
    ),
    "crossmask": lambda: CrossMaskConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, encoder_layers=2, decoder_layers=1,
        num_attention_heads=4, max_position_embeddings=64, initializer_range=0.3, dropout=0.0,
    ),
}  # fmt: skip


def encoder_config(family: str) -> PreTrainedConfig:
    return FAMILIES[family]()


def base_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A model as `AutoModel` loads it, in evaluation mode; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return AutoModel.from_config(encoder_config(family)).eval()
