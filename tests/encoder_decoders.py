"""Small encoder-decoders of Transformers' families, by what a recipe's `model` says of them."""

_BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "init_std": 0.3,
    **dict.fromkeys(
        ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop"), 0.0
    ),
}
_T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "dropout_rate": 0.0,
}
FAMILIES = {
    **dict.fromkeys(
        ("bart", "marian", "mbart", "m2m_100", "pegasus", "blenderbot", "blenderbot-small", "plbart", "mvp"), _BART
    ),
    **dict.fromkeys(("t5", "mt5", "umt5", "longt5"), _T5),
    "pegasus_x": {name: value for name, value in _BART.items() if "layerdrop" not in name},
    "bigbird_pegasus": {**_BART, "attention_type": "original_full"},
}
# What a decoder starts with, by the name of the token.
STARTS = {
    **dict.fromkeys(("bart", "mbart", "m2m_100", "plbart", "mvp"), "eos"),
    **dict.fromkeys(("marian", "pegasus", "pegasus_x", "t5", "mt5", "umt5", "longt5"), "pad"),
    **dict.fromkeys(("blenderbot", "blenderbot-small", "bigbird_pegasus"), "bos"),
}


def model_fields(family: str) -> dict:
    """A recipe's `model`."""
    return {"model_type": family, **FAMILIES[family]}
