"""An encoder and a decoder in folders of their own, and recipes that join them."""

from pathlib import Path

from bridge_families import decoder_of, encoder_of
from training_jobs import tiny_tokenizer

PARTS = {"encoder": ("bert", encoder_of), "decoder": ("llama", decoder_of)}
UNPACKED = {"batching": "examples"}
PACKED = {"batching": "packed", "source_row_length": 48, "target_row_length": 48}
NO_PARTS = dict.fromkeys(("encoder_name_or_path", "decoder_name_or_path"))
SHORT = {"max_source_length": 32, "max_target_length": 32}


def save_parts(folder: Path, **families: str) -> dict[str, str]:
    """Saves an encoder and a decoder with one tokenizer; what a recipe says of them."""
    tokenizer, fields = tiny_tokenizer(), {}
    for name, (family, make) in PARTS.items():
        part = make(families.get(name, family))
        part.resize_token_embeddings(len(tokenizer))
        part.config.pad_token_id, part.config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
        part.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        fields[f"{name}_name_or_path"] = str(folder / name)
    return {**fields, "tokenizer": None, "model": None, **SHORT}
