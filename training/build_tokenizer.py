"""The tokenizer of a run: loaded, or trained on the run's examples."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..data.sources import name_sources
from ..data.tokenizer_training import check_settings, train_tokenizer
from ..inference import loading
from ..tasks.base import Example, Task
from ..utils.errors import InputError
from .arguments import DataArguments, TokenizerArguments
from .validation import check_names

# Arguments of `train_tokenizer` that the run fills in.
_FILLED_IN = {"texts", "model_max_length", "add_bos_token", "add_eos_token"}


def build_tokenizer(
    arguments: TokenizerArguments,
    data: DataArguments,
    task: Task,
    examples: Iterable[Example],
    *,
    targets_only: bool = False,
) -> PreTrainedTokenizerBase:
    """The tokenizer that a recipe names, or one that is trained on the examples.

    Args:
        targets_only: it is for targets alone, as the sources have another.

    Raises:
        InputError: settings that do not fit. OSError: a tokenizer that cannot be loaded.
    """
    if isinstance(arguments.tokenizer, str):
        return load_tokenizer("tokenizer", arguments.tokenizer)
    settings = {"vocab_size": 8000, **(arguments.tokenizer or {})}
    sources = name_sources("train", data.train, data.data_dir).values()
    tags = [spec.tag.strip() for spec in sources if spec.tag.strip()]
    special = [*settings.pop("special_tokens", ()), *(() if targets_only else (*task.special_tokens, *tags))]
    texts = (text for one in examples for text in ((one.target,) if targets_only else task.texts(one)))
    longest = getattr(data.limits, task.length_fields[-1 if targets_only else 0])
    return train_tokenizer(
        texts, special_tokens=special, model_max_length=longest, **task.tokenizer_settings, **settings
    )


def load_tokenizer(field: str, name: str, of_model: bool = False) -> Any:
    """The tokenizer of a local folder or a Hub id, which a recipe's field gives.

    Args:
        of_model: whether a model is beside it; that of a bridge has a processor.

    Raises:
        OSError: there is none. What can only be a path is not looked for on the Hub, which takes a minute to give up.
    """
    path = Path(name).expanduser()
    no_hub_id = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if (no_hub_id and not path.is_dir()) or path.is_file():
        what = "is a file" if path.is_file() else "does not exist"
        raise FileNotFoundError(f"{field}: {name} {what}; give a folder that holds a tokenizer, or a Hub id")
    try:
        place = str(path) if path.is_dir() else name
        if of_model:
            return loading.load_tokenizer_or_processor(place, loading.load_config(place))
        return loading.load_tokenizer(place)
    except (OSError, InputError) as error:
        reason = str(error).split("\n")[0]
        raise OSError(
            f"{field}: no tokenizer in {name!r}: {reason} Give a folder that holds one, or a Hub id; with "
            "HF_HUB_OFFLINE=1 only the cache is looked into"
        ) from error


def check_tokenizer_settings(arguments: TokenizerArguments) -> None:
    """Refuse names and values in `tokenizer` that no tokenizer is trained with. Raises InputError."""
    if isinstance(arguments.tokenizer, dict):
        check_names(
            "tokenizer", arguments.tokenizer, inspect.signature(train_tokenizer).parameters.keys() - _FILLED_IN
        )
        check_settings(arguments.tokenizer)
