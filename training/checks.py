"""What a run is told, held against what its fields are declared as: argparse looks at the command line alone."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from transformers import GenerationConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..data.declared import check_choice, check_type, did_you_mean
from ..modeling import backends  # noqa: F401 - registers crossmask's own attention
from ..utils.errors import InputError

LOWEST = {
    "max_source_length": 1,
    "max_target_length": 1,
    "source_row_length": 1,
    "target_row_length": 1,
    "batch_tokens": 1,
    "stream_buffer": 1,
    "tokenizer_examples": 1,
    "eval_tokens": 1,
    "bpe_dropout": 0,
    "bpe_dropout_copies": 1,
    "average_checkpoints": 2,
    "early_stopping_patience": 1,
    "samples": 0,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "generation_num_beams": 1,
    "num_train_epochs": 0,
    "learning_rate": 0,
    "warmup_steps": 0,
    "dataloader_num_workers": 0,
}
HIGHEST = {"bpe_dropout": 1}
# GenerationConfig declares no types, and `validate` lets most values through to fail at the first evaluation.
GENERATION = {
    **dict.fromkeys(("num_beams", "num_return_sequences", "max_new_tokens", "max_length"), (int, 1)),
    **dict.fromkeys(("min_new_tokens", "min_length", "no_repeat_ngram_size", "top_k"), (int, 0)),
    **dict.fromkeys(("repetition_penalty", "temperature", "top_p"), (float, 0)),
    **dict.fromkeys(("do_sample", "use_cache"), (bool, False)),
    "length_penalty": (float, float("-inf")),
}


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
        lowest, highest = LOWEST.get(name), HIGHEST.get(name)
        if lowest is not None and not value >= lowest:
            raise InputError(f"{name} is {value}: expected at least {lowest}")
        if highest is not None and not value <= highest:
            raise InputError(f"{name} is {value}: expected at most {highest}")


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
            mend = did_you_mean(name, known) or f"it takes {', '.join(known)}"
            raise InputError(f"{field} has no setting {name!r}: {mend}")
