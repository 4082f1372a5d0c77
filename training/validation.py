"""What a run is told, held against what its fields are declared as: argparse looks at the command line alone."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig
from transformers.debug_utils import DebugOption
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..attention import backends  # noqa: F401 - registers crossmask's own attention
from ..attention.blockwise import BlockwiseBackend
from ..inference.options import LARGEST, NUMBERS, TYPES, check_value
from ..seq2seq.attention_weights import ATTACHED_PREFIX
from ..utils.errors import InputError
from ..utils.type_checks import check_choice, check_type, did_you_mean

# What Transformers' arguments take beside what they are annotated with.
WIDER: dict[str, Any] = {
    "debug": str | list[DebugOption] | list[str] | None,
    "fsdp": bool | str | list[str] | None,
    "generation_config": Any,  # refused whatever it is
    "accelerator_config": Any,
}
# Any other number is at least 0.
LOWEST = {
    **dict.fromkeys(
        ("max_source_length", "max_target_length", "source_row_length", "target_row_length", "batch_tokens",
         "stream_buffer", "tokenizer_examples", "eval_tokens", "bpe_dropout_copies", "early_stopping_patience",
         "per_device_train_batch_size", "gradient_accumulation_steps", "generation_num_beams", "save_total_limit",
         "temperature", "torch_empty_cache_steps", "dataloader_prefetch_factor", "ddp_bucket_cap_mb", "ddp_timeout"),
        1,
    ),
    "average_checkpoints": 2,
    "max_steps": -1,  # those of the epochs
    "local_rank": -1,
}  # fmt: skip
ABOVE_ZERO = (
    "learning_rate", "num_train_epochs", "logging_steps", "eval_steps", "save_steps", "adam_epsilon", "r_drop",
    "bpe_dropout", "neftune_noise_alpha", "teacher_weight",
)  # fmt: skip
LARGEST_RATE = torch.finfo(torch.float32).max
HIGHEST = {"bpe_dropout": 1, "teacher_weight": 1, "seed": 2**32 - 1, "learning_rate": LARGEST_RATE}
WHOLE_ABOVE_ONE = ("warmup_steps", "logging_steps", "eval_steps", "save_steps")  # a share of the steps below 1
BELOW = {"adam_beta1": 1, "adam_beta2": 1, "label_smoothing_factor": 1}
_NO_BEAMS = "Transformers has it only as code on the Hub"
_OF_TOKENIZER = "it is the tokenizer's"
# Why a recipe cannot set other fields of GenerationConfig.
_IDLE = {
    "num_beam_groups": _NO_BEAMS,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), _OF_TOKENIZER),
}
_BY_MODE = ("dola_layers", "penalty_alpha", "constraints", "force_words_ids", "prompt_lookup_num_tokens", "use_mtp")


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    reason = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
    return " ".join(str(reason).split())


def check_fields(given: Any) -> None:
    """Refuse a dataclass's fields that are not of their types, choices and bounds.

    Raises:
        InputError: with the field, what was given and what was expected.
    """
    declared = get_type_hints(type(given)) | WIDER
    for item in fields(given):
        if not item.init:
            continue
        name, value = item.name, getattr(given, item.name)
        if value is not None or item.default is not None:
            check_type(name, value, declared[name])
        if value is None:
            continue
        if value == "" and item.default != "" and name != "summary":
            raise InputError(f"{name} must not be empty; give it a value, or leave it out")
        if item.metadata.get("choices"):
            check_choice(name, value, item.metadata["choices"])
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_bounds(name, value)
        check_finite(name, value)


def _check_bounds(name: str, value: float) -> None:
    lowest, highest = LOWEST.get(name, 0), HIGHEST.get(name, LARGEST if isinstance(value, int) else float("inf"))
    if name in ABOVE_ZERO and not value > 0:
        raise InputError(f"{name} must be more than 0, got {value}")
    if not value >= lowest:
        raise InputError(f"{name} must be at least {lowest}, got {value}")
    if highest < value != math.inf:  # which is said to be no finite number
        given = value if abs(value) < 10**20 else "larger"
        limit = f"{highest:g}" if isinstance(highest, float) else highest
        raise InputError(f"{name} must be at most {limit}, got {given}")
    if name == "max_steps" and value == 0:
        raise InputError("max_steps must be at least 1, or -1 to train for num_train_epochs, got 0")
    if name in WHOLE_ABOVE_ONE and value > 1 and not float(value).is_integer() and math.isfinite(value):
        raise InputError(f"{name} must be a whole number, or a share of the steps below 1, got {value}")
    if name in BELOW and value >= BELOW[name]:
        raise InputError(f"{name} must be less than {BELOW[name]}, got {value}")


def check_finite(name: str, value: Any) -> None:
    """Refuse a number that is not finite, in a mapping or list however deep too.

    Raises:
        InputError: with its place.
    """
    if isinstance(value, Mapping):
        for key, one in value.items():
            check_finite(f"{name}.{key}", one)
    elif isinstance(value, list | tuple):
        for at, one in enumerate(value):
            check_finite(f"{name}[{at}]", one)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value}")


def check_generation(given: Mapping[str, Any]) -> None:
    """Refuse what `GenerationConfig` does not know, and values of its commonest fields that nothing can be made with.

    Raises:
        InputError: with the field, what was given and what was expected.
    """
    check_names("generation", given, [name for name in vars(GenerationConfig()) if not name.startswith("_")])
    for name, value in given.items():
        if value is None or (name in ("num_beam_groups", "num_return_sequences") and value == 1):
            continue
        if name == "num_return_sequences":
            raise InputError(f"generation.{name} must be 1, got {value!r}; an example is scored by one text")
        if name in _IDLE:
            raise InputError(f"generation.{name} must be left out, got {value!r}; {_IDLE[name]}")
        if name not in NUMBERS and name not in TYPES and name not in _BY_MODE:
            raise InputError(
                f"generation.{name} must be left out, got {value!r}; it does nothing for the texts of train.py"
            )
        check_value(name, value, field=f"generation.{name}")


def check_attention(name: str) -> None:
    """Refuse an attention implementation that there is not; a kernel of the Hub has a slash in its name.

    Raises:
        InputError: with those that crossmask knows.
    """
    if "/" not in name:
        known = [
            one for one in ALL_ATTENTION_FUNCTIONS.valid_keys() if not one.startswith(("paged|", ATTACHED_PREFIX))
        ]
        check_choice("attn_implementation", name, sorted(["eager", *known]))


def check_attention_of_transformers(name: str | None, model_type: str) -> None:
    """Refuse an attention implementation that only models of crossmask have, for another model.

    Raises:
        InputError: with those that are Transformers' own.
    """
    if name == BlockwiseBackend.name:
        raise InputError(
            f"attn_implementation must be eager, sdpa, flex_attention or a flash attention for a {model_type} model, "
            f"got {name}; it is for models of crossmask"
        )


def check_names(field: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keys of a recipe's mapping that nothing would read.

    Raises:
        InputError: with the nearest name that exists.
    """
    known = list(known)
    for name in given:
        if name not in known:
            fix = did_you_mean(name, known) or f"it takes {', '.join(known)}"
            raise InputError(f"{field} has no setting {name!r}: {fix}")
