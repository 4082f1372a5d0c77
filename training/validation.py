"""What a run is told, held against what its fields are declared as: argparse looks at the command line alone."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..attention import backends  # noqa: F401 - registers crossmask's own attention
from ..utils.errors import InputError
from ..utils.type_checks import check_choice, check_type, did_you_mean

# Any other number is at least 0.
LOWEST = {
    **dict.fromkeys(
        ("max_source_length", "max_target_length", "source_row_length", "target_row_length", "batch_tokens",
         "stream_buffer", "tokenizer_examples", "eval_tokens", "bpe_dropout_copies", "early_stopping_patience",
         "per_device_train_batch_size", "gradient_accumulation_steps", "generation_num_beams", "save_total_limit",
         "torch_empty_cache_steps", "dataloader_prefetch_factor", "ddp_bucket_cap_mb", "ddp_timeout"),
        1,
    ),
    "average_checkpoints": 2,
    "max_steps": -1,  # those of the epochs
    "local_rank": -1,
}  # fmt: skip
ABOVE_ZERO = ("logging_steps", "eval_steps", "save_steps", "adam_epsilon")
HIGHEST = {"bpe_dropout": 1, "seed": 2**32 - 1}
BELOW = {"adam_beta1": 1, "adam_beta2": 1, "label_smoothing_factor": 1}
LARGEST = 2**63 - 1  # of whole numbers in torch
# GenerationConfig declares no types, and `validate` lets most values through to fail at the first evaluation.
GENERATION = {
    **dict.fromkeys(("num_beams", "num_return_sequences", "max_new_tokens", "max_length"), (int, 1)),
    **dict.fromkeys(("min_new_tokens", "min_length", "no_repeat_ngram_size", "top_k"), (int, 0)),
    **dict.fromkeys(("repetition_penalty", "temperature", "top_p"), (float, 0)),
    **dict.fromkeys(("do_sample", "use_cache"), (bool, False)),
    "length_penalty": (float, float("-inf")),
}


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    reason = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
    return " ".join(str(reason).split())


def check_fields(given: Any, only_numbers: bool = False) -> None:
    """Refuse a dataclass's fields that are not of their types, choices and bounds.

    Args:
        only_numbers: hold no other types against their annotations than numbers, true and false: Transformers' own
            arguments take more kinds of text and lists than they are annotated with.

    Raises:
        ValueError: with the field, what was given and what was expected.
    """
    declared = get_type_hints(type(given))
    for item in fields(given):
        if not item.init:
            continue
        name, value, kind = item.name, getattr(given, item.name), declared[item.name]
        if not only_numbers or ({kind, *get_args(kind)} & {int, float, bool} and str not in get_args(kind)):
            check_type(name, value, kind)
        if value is None:
            continue
        if item.metadata.get("choices"):
            check_choice(name, value, item.metadata["choices"])
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_bounds(name, value)
        check_finite(name, value)


def _check_bounds(name: str, value: float) -> None:
    lowest, highest = LOWEST.get(name, 0), HIGHEST.get(name, LARGEST if isinstance(value, int) else float("inf"))
    if not value >= lowest:
        raise InputError(f"{name} is {value}: expected at least {lowest}")
    if value > highest:
        given = value if abs(value) < 10**20 else "larger"
        raise InputError(f"{name} is {given}: expected at most {highest}")
    if name == "max_steps" and value == 0:
        raise InputError("max_steps is 0: expected at least 1, or -1 to train for num_train_epochs")
    if name in ABOVE_ZERO and value == 0:
        raise InputError(f"{name} is {value}: expected more than 0")
    if name in BELOW and value >= BELOW[name]:
        raise InputError(f"{name} is {value}: expected less than {BELOW[name]}")


def check_finite(name: str, value: Any) -> None:
    """Refuse a number that is not finite, in a mapping or list however deep too.

    Raises:
        ValueError: with its place.
    """
    if isinstance(value, Mapping):
        for key, one in value.items():
            check_finite(f"{name}.{key}", one)
    elif isinstance(value, list | tuple):
        for at, one in enumerate(value):
            check_finite(f"{name}[{at}]", one)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} is {value}: expected a finite number")


def check_generation(given: Mapping[str, Any]) -> None:
    """Refuse what `GenerationConfig` does not know, and values of its commonest fields that nothing can be made with.

    Raises:
        ValueError: with the field, what was given and what was expected.
    """
    check_names("generation", given, [name for name in vars(GenerationConfig()) if not name.startswith("_")])
    for name in filter(GENERATION.__contains__, given):
        (kind, lowest), value = GENERATION[name], given[name]
        check_type(f"generation.{name}", value, kind | None)
        if value is not None and value < lowest:
            raise InputError(f"generation.{name} is {value}: expected at least {lowest}")
    if given.get("num_beam_groups") not in (None, 1):
        count = given["num_beam_groups"]
        raise InputError(
            f"generation.num_beam_groups is {count}: leave it out, Transformers has group beam search only as code on "
            "the Hub"
        )
    if given.get("num_return_sequences") not in (None, 1):
        count = given["num_return_sequences"]
        raise InputError(f"generation.num_return_sequences is {count}: expected 1, an example is scored by one text")


def check_attention(name: str) -> None:
    """Refuse an attention implementation that there is not; a kernel of the Hub has a slash in its name.

    Raises:
        ValueError: with those that crossmask knows.
    """
    if "/" not in name:
        known = [one for one in ALL_ATTENTION_FUNCTIONS.valid_keys() if not one.startswith("paged|")]
        check_choice("attn_implementation", name, sorted(["eager", *known]))


def check_names(field: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keys of a recipe's mapping that nothing would read.

    Raises:
        ValueError: with the nearest name that exists.
    """
    known = list(known)
    for name in given:
        if name not in known:
            fix = did_you_mean(name, known) or f"it takes {', '.join(known)}"
            raise InputError(f"{field} has no setting {name!r}: {fix}")
