"""A folder for browsers: the graphs as transformers.js looks for them.

transformers.js knows models by their `model_type`. Ours is not among them, but it decodes as BART does, and its graphs
have the same inputs and outputs. So the folder's config says `bart`, with the sizes that transformers.js makes an
empty cache of.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..modeling.crossmask import CrossMaskForConditionalGeneration
from ..utils.atomic_write import write_text
from .generation import exported_generation, longest_output
from .onnx_export import check_exportable, save_onnx

GRAPHS = "onnx"
"""The folder of the graphs."""
ALL = "float32,int8"
"""Both dtypes side by side: a browser loads what it is told to."""
SUFFIXES = {"float32": "", "int8": "_quantized"}
"""By dtype, what follows a graph's name; in transformers.js they are the dtypes `fp32` and `q8`."""
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


def save_web(model: CrossMaskForConditionalGeneration, folder: Path, dtypes: Iterable[str]) -> None:
    """Write config.json, generation_config.json and the graphs in `onnx/`.

    Args:
        folder: exists. dtypes: some of `SUFFIXES`.

    Raises:
        InputError: it is not our own network. MissingLibraryError: ONNX is not installed.
    """
    check_exportable(model)
    write_text(folder / "config.json", json.dumps(web_config(model), indent=2) + "\n")
    generation: Any = exported_generation(model)
    # transformers.js has another default, and counts it otherwise.
    generation.max_length, generation.max_new_tokens = longest_output(model), None
    generation.save_pretrained(folder)
    (folder / GRAPHS).mkdir()
    save_onnx(model, folder / GRAPHS, {dtype: SUFFIXES[dtype] for dtype in dtypes})


def web_config(model: CrossMaskForConditionalGeneration) -> dict[str, Any]:
    """The config that transformers.js reads."""
    config: Any = model.config
    heads, generation = config.num_key_value_heads, exported_generation(model)
    return {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        # Not the model's width: an empty cache has this many numbers for each token.
        "d_model": heads * config.head_dim,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "max_position_embeddings": config.max_position_embeddings,
        # transformers.js takes them from here where the settings of generation have none.
        **{name: getattr(generation, name) for name in TOKENS},
    }
