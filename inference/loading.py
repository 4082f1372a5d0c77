"""Loading of a trained model and its tokenizer, from a folder or the Hub, with errors of one line before any work."""

import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..bridge import CrossMaskBridgeConfig, CrossMaskBridgeProcessor
from ..data.text_files import read_json
from ..utils.errors import InputError
from ..utils.hardware import multiplies_bfloat16
from ..utils.hub_names import check_not_a_missing_path
from ..utils.type_checks import check_choice

logger = logging.getLogger(__name__)

_READ = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_COMMANDS = {
    "ForSequenceClassification": "crossmask classify",
    "ForTokenClassification": "crossmask label",
    "ForQuestionAnswering": "crossmask answer",
    "ForConditionalGeneration": "crossmask translate or summarize",
}
DTYPES = ("auto", "saved", "float32", "bfloat16", "float16")
# What Transformers and the libraries below it raise for files that they cannot read.
_LIBRARY_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    RecursionError,
    SafetensorError,
    StrictDataclassError,
    pickle.UnpicklingError,
)


def choose_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """The dtype to run a model in, one of `DTYPES`; None is the one that it was saved in.

    `auto` is bfloat16 where the device multiplies in it natively, float32 elsewhere. A warning is logged where
    bfloat16 is wanted and the device only emulates it.
    """
    check_choice("dtype", name, DTYPES)
    if name == "saved":
        return None
    is_native = multiplies_bfloat16(device)
    if name == "auto":
        return torch.bfloat16 if is_native else torch.float32
    if name == "bfloat16" and not is_native:
        logger.warning("%s only emulates bfloat16, which is slower than float32; give --dtype auto or float32", device)
    return getattr(torch, name)


def load_model_and_tokenizer(name: str, dtype: torch.dtype | None = None, **options) -> tuple[PreTrainedModel, Any]:
    """An encoder-decoder in evaluation mode and its tokenizer, from a folder or the Hub.

    Args:
        dtype: None is the one that the model was saved in.
        options: of `from_pretrained` for the model.

    Raises:
        OSError: it does not exist, or cannot be fetched.
        InputError: a file that cannot be read, weights that are missing or do not fit the config.
        MaskError: a mask of the config that cannot be read.
    """
    config = load_config(name)
    check_kind(name, config)
    tokenizer = load_tokenizer_or_processor(name, config)
    return load_model(name, config, dtype=dtype, **options), tokenizer


def load_config(name: str, **changes) -> PreTrainedConfig:
    """A model's config, from a folder or the Hub, with `changes` to its fields.

    Raises:
        OSError: it does not exist, or cannot be fetched.
        InputError: it cannot be read.
        MaskError: a mask of it cannot be read.
    """
    check_not_a_missing_path(name, "a folder that holds a model")
    check_json_files(Path(name))
    with naming_load_errors(f"the config of {name}" + (f" with {changes}" if changes else ""), name):
        return AutoConfig.from_pretrained(name, trust_remote_code=False, **changes)


def check_kind(name: str, config: PreTrainedConfig, auto_class: Any = AutoModelForSeq2SeqLM) -> None:
    """Refuse a model that an Auto class does not load, or that has another head, by its config.

    Raises:
        InputError: with the command that it is for, where there is one.
    """
    found = ", ".join(config.architectures or ()) or f"a {config.model_type} model"
    wanted = auto_class.__name__.removeprefix("AutoModel").replace("ForSeq2SeqLM", "ForConditionalGeneration")
    has_other_head = found.endswith(tuple(_COMMANDS)) and not found.endswith(wanted)
    if type(config) in auto_class._model_mapping and not has_other_head:
        return
    command = next((one for ending, one in _COMMANDS.items() if found.endswith(ending)), None)
    fix = "give another model" if command is None else f"give another model, or use it with {command}"
    raise InputError(f"{name} must be a model that {auto_class.__name__} loads, got {found}; {fix}")


def load_model(
    name: str,
    config: PreTrainedConfig,
    dtype: torch.dtype | None = None,
    may_lack_weights: bool = False,
    auto_class: Any = AutoModelForSeq2SeqLM,
    **options,
) -> PreTrainedModel:
    """A model for evaluation, by default an encoder-decoder.

    Args:
        config: to load it with.
        auto_class: what loads it.
        dtype: None is the one that the model was saved in.
        may_lack_weights: whether missing weights may be random, such as those of parts that the config adds.
        options: of `from_pretrained`.

    Raises:
        OSError: it does not exist, or cannot be fetched.
        InputError: weights that cannot be read, are missing or do not fit the config.
    """
    if not options.get("trust_remote_code") and not may_lack_weights:
        check_kind(name, config, auto_class)
    with naming_load_errors(f"the weights of {name}", name):
        try:
            model, loaded = auto_class.from_pretrained(
                name, config=config, dtype=dtype or "auto", output_loading_info=True, **options
            )
        except SafetensorError as error:
            file = _broken_file(name)
            raise InputError(f"{file} must be a complete safetensors file: {error}; copy it again") from None
        except RuntimeError as error:  # how Transformers says that shapes differ
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"the weights of {name} must fit its config.json: {reason}") from error
    if (missing := sorted(loaded["missing_keys"])) and not may_lack_weights:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"the weights of {name} must be complete, got none for {missing[0]}{others}; give a folder that has all"
        )
    return model.eval()


def check_json_files(folder: Path) -> None:
    """Read the JSON files of a folder, because Transformers names neither file nor line, and ignores some broken ones.

    Raises:
        OSError: there is no config.
        InputError: a file is not JSON, or does not hold an object.
    """
    if not folder.is_dir():
        return
    others = [
        file for file in sorted(folder.glob("*.json")) if file.name in _READ or file.name.endswith(".index.json")
    ]
    for file in (folder / "config.json", *others):
        if not isinstance(read_json(file), dict):
            raise InputError(f"{file} must hold an object, {{...}}; copy it again")


def load_tokenizer_or_processor(name: str, config: PreTrainedConfig) -> Any:
    """A model's tokenizer, or the processor that has both of a bridge.

    Args:
        config: the model's.

    Raises:
        OSError: nothing is there, or it cannot be fetched. InputError: a file that cannot be read.
    """
    if config.model_type != CrossMaskBridgeConfig.model_type:
        return load_tokenizer(name)
    with naming_load_errors(f"the processor of {name}", name):
        return CrossMaskBridgeProcessor.from_pretrained(name)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer, from a folder or the Hub.

    Raises:
        OSError: it does not exist, or cannot be fetched.
        InputError: a file that cannot be read.
    """
    with naming_load_errors(f"the tokenizer of {name}", name):
        try:
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except Exception as error:
            # `tokenizers` raises bare Exceptions for a file that it cannot read.
            if type(error) is not Exception:
                raise
            raise InputError(f"{Path(name, 'tokenizer.json')} must be a tokenizer: {error}; copy it again") from error


@contextmanager
def naming_load_errors(subject: str, name: str) -> Iterator[None]:
    """Name what cannot be loaded: as an InputError from a folder, as an OSError from the Hub."""
    try:
        yield
    except InputError:
        raise
    except _LIBRARY_ERRORS as error:
        cause = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        if Path(name).is_dir():
            raise InputError(f"{subject} cannot be loaded: {reason}") from error
        fix = "check the name and the network, or give a folder that holds it"
        raise OSError(f"{subject} cannot be loaded: {reason.removesuffix('.')}; {fix}") from error


def _broken_file(name: str) -> str:
    for file in sorted(Path(name).glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError):
            return str(file)
    return f"a file of weights of {name}"
