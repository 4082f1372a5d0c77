"""A model's settings of generation with what `generate()` fills in, so that a folder starts and ends outputs alike."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from ..inference.loading import check_json_files, naming_load_errors
from ..utils.errors import InputError


def start_token(generation: GenerationConfig) -> Any:
    """The token that the decoder starts with: as in `generate()`, `bos_token_id` where there is no other."""
    start = generation.decoder_start_token_id
    return generation.bos_token_id if start is None else start


def end_tokens(generation: GenerationConfig) -> list[int]:
    """The tokens that end an output, none or several."""
    ends: Any = generation.eos_token_id
    return [] if ends is None else ends if isinstance(ends, list) else [ends]


def exported_generation(model: Any) -> GenerationConfig:
    """A copy of a model's settings in which the start token and the padding are set.

    Raises:
        InputError: the start is not one token, or a token is not in the model's vocabulary.
    """
    generation: Any = deepcopy(model.generation_config)
    start, ends = start_token(generation), end_tokens(generation)
    last = model.config.vocab_size - 1
    for name, tokens in (("decoder_start_token_id", [start]), ("eos_token_id", ends)):
        for token in tokens:
            if type(token) is not int or not 0 <= token <= last:
                raise InputError(
                    f"generation_config.{name} must be a token of the model, from 0 to {last}, got {token}; set it to "
                    "the tokenizer's"
                )
    generation.decoder_start_token_id = start
    if generation.pad_token_id is None and ends:
        generation.pad_token_id = ends[0]
    return generation


def read_generation(folder: Path) -> GenerationConfig:
    """The settings in an exported folder.

    Raises:
        InputError: they cannot be read. OSError: the folder is not complete.
    """
    check_json_files(folder)
    with naming_load_errors(f"the generation config of {folder}", str(folder)):
        return GenerationConfig.from_pretrained(folder)


def longest_output(model: Any) -> int:
    """The most tokens of an output, the start token included, which may depend on the model's config."""
    has_default = model.generation_config.max_length is None
    generation, _ = model._prepare_generation_config(None)
    length: int = model._prepare_generated_length(generation, has_default, True, "input_ids", 1, None).max_length
    return length
