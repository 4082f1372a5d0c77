"""What a run is told: a recipe in YAML, and what the command line changes in it."""

import json
import re
import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, get_args

import torch
import yaml
from transformers import HfArgumentParser, Seq2SeqTrainingArguments
from transformers.debug_utils import DebugOption
from transformers.hf_argparser import string_to_bool
from transformers.training_args import trainer_log_levels
from transformers.utils import is_torch_xla_available

from ..data.text_files import YAML_FAULTS, parse_yaml, read_text
from ..data.tokenization import Overlong
from ..utils.errors import InputError
from ..utils.hardware import accelerator_or_cpu
from ..utils.secrets import Secrets
from ..utils.type_checks import check_choice
from .fields import check_enums, check_obeyed, check_together
from .precision import AUTO, choose_precision
from .requirements import check_deepspeed
from .run_directory import checkpoint_to_resume
from .validation import check_attention, check_fields, one_line

SOURCES = ("train", "validation", "test")
LOGGING_CHOICES = {
    "log_level": trainer_log_levels,
    "log_level_replica": trainer_log_levels,
    "include_num_input_tokens_seen": (True, False, "all", "non_padding", "no"),
}
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "string_to_bool": "true or false",
    "_true_false_or_auto": "true, false or auto",
    "dict": "a mapping",
    "DebugOption": f"one of {', '.join(one.value for one in DebugOption)}",
    "ParallelismConfig": "it left out, only Python can give one",
}


@dataclass
class RecipeArguments:
    """What is trained on what.

    On the command line mappings and lists are JSON, or given by key: `--model.dropout 0.3`, `--train.0.limit 9`.
    """

    task: str = field(default="translation", metadata={"help": "Name of the task, see crossmask.tasks."})
    task_options: dict | str | None = field(default=None, metadata={"help": "Options of the task."})
    train: dict | str | list | None = field(
        default=None,
        metadata={"help": "Where training records come from (crossmask.data.sources), or a list of such."},
    )
    validation: dict | str | list | None = field(
        default=None, metadata={"help": "Where validation records come from."}
    )
    test: dict | str | list | None = field(default=None, metadata={"help": "Where test records come from."})
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "A folder with local copies of datasets (crossmask.data.sources), instead of the one that the "
            "environment variable CROSSMASK_DATA names. What it does not have is read from the Hub."
        },
    )
    tokenizer: dict | str | None = field(
        default=None,
        metadata={
            "help": "Settings to train a tokenizer with (crossmask.data.tokenizer_training), or a path or Hub id."
        },
    )
    model: dict | str | None = field(default=None, metadata={"help": "Fields of CrossMaskConfig."})
    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "A model to fine-tune, with its tokenizer; `model` then changes fields of its config."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention backend to train with; eager is the fastest on CPU for short rows."}
    )
    generation: dict | str | None = field(
        default=None, metadata={"help": "Fields of GenerationConfig, for the test and for users."}
    )
    max_source_length: int = field(default=256, metadata={"help": "Tokens in a source at most, end token included."})
    max_target_length: int = field(default=256, metadata={"help": "Tokens in a target at most, end token included."})
    overlong: str = field(
        default="error", metadata={"help": "What to do with longer texts.", "choices": list(get_args(Overlong))}
    )
    batching: str = field(
        default="examples",
        metadata={
            "help": "examples: `per_device_train_batch_size` examples a batch, padded; packed: that many rows "
            "of whole examples; buckets: examples of like length, `batch_tokens` a batch; stream: as packed, of data "
            "that is read as it is needed, for what is larger than memory (needs `max_steps`).",
            "choices": ["examples", "packed", "buckets", "stream"],
        },
    )
    source_row_length: int = field(default=256, metadata={"help": "Source tokens in a packed row."})
    target_row_length: int = field(default=256, metadata={"help": "Target tokens in a packed row."})
    batch_tokens: int = field(default=8192, metadata={"help": "Tokens in a bucketed batch, both sides and padding."})
    stream_buffer: int = field(
        default=16384, metadata={"help": "Examples of a stream that are in memory, shuffled and packed at a time."}
    )
    tokenizer_examples: int = field(
        default=1_000_000, metadata={"help": "Examples of a stream, the first, that a tokenizer is trained on."}
    )
    eval_tokens: int = field(
        default=4096, metadata={"help": "Tokens in an evaluation batch at most, padding included."}
    )
    bpe_dropout: float | None = field(
        default=None,
        metadata={
            "help": "Cut training texts into subwords by BPE-dropout of this probability, 0.1 for instance; an epoch "
            "then goes over `bpe_dropout_copies` copies of the data, each cut otherwise."
        },
    )
    bpe_dropout_copies: int | None = field(
        default=None, metadata={"help": "Copies of the training data under bpe_dropout, 8 unless it is given."}
    )
    multipath_k: list[int] | None = field(
        default=None,
        metadata={
            "help": "Lowest and highest k: every training step has the cross mask wait_k(k) for a k drawn from them, "
            "so that one model translates simultaneously at any of these waits."
        },
    )
    average_checkpoints: int | None = field(
        default=None,
        metadata={
            "help": "Average the weights of this many checkpoints, the last; the mean is tested and saved if it is no "
            "worse on validation than the best of them."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many evaluations without a better metric; a resumed run keeps its number."},
    )
    language: list[str] | None = field(default=None, metadata={"help": "Language codes for the model card."})
    summary: str | None = field(default=None, metadata={"help": "What the model does, for the model card."})
    samples: int = field(default=40, metadata={"help": "Test examples on the page of samples."})
    overwrite: bool = field(
        default=False,
        metadata={
            "help": "Start anew in an output folder that holds a run; a finished model there stays until the new one "
            "is whole."
        },
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            opening = ("{", "[") if item.name in SOURCES else "{"
            if isinstance(value, str) and value.lstrip().startswith(opening):
                try:
                    setattr(self, item.name, json.loads(value))
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{item.name}: {value[:80]!r} is not valid JSON: {error}") from error
        check_fields(self)
        for name in ("task_options", "model", "generation"):
            if isinstance(getattr(self, name), str):
                raise InputError(f"{name} is {getattr(self, name)!r}: expected a mapping from names to values")
        if self.attn_implementation is not None:
            check_attention(self.attn_implementation)
        if self.bpe_dropout is None and self.bpe_dropout_copies is not None:
            raise InputError(
                f"bpe_dropout_copies is {self.bpe_dropout_copies}, which does nothing without bpe_dropout: set that "
                "to 0.1 for instance, or leave the copies out"
            )
        for name in SOURCES:
            if not isinstance(getattr(self, name), dict | list):
                raise InputError(
                    f"the recipe needs `{name}`, a mapping such as {{format: tsv, path: {name}.tsv}} or a list of them"
                )


@dataclass
class RunArguments(Seq2SeqTrainingArguments):
    """Transformers' own training arguments, with defaults for training from scratch on a small machine."""

    bf16: bool | str = field(
        default=False,
        metadata={
            "help": "true, false, or auto: compute in bfloat16 (mixed precision) where this machine multiplies it "
            "natively, in float32 elsewhere."
        },
    )
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 2
    load_best_model_at_end: bool = True
    remove_unused_columns: bool = False
    predict_with_generate: bool = True
    dataloader_pin_memory: bool = False
    logging_steps: float = 50
    logging_first_step: bool = True
    logging_nan_inf_filter: bool = False
    report_to: None | str | list[str] = "tensorboard"  # noqa: RUF036 - HfArgumentParser wants None first
    optim: str = "adamw_torch_fused"
    restore_callback_states_from_checkpoint: bool = True

    def __post_init__(self) -> None:
        for name in ("eval_strategy", "save_strategy", "logging_strategy"):
            if getattr(self, name) is False:  # how YAML reads a bare `no`
                setattr(self, name, "no")
        if not isinstance(self.bf16, bool) and self.bf16 != AUTO:
            raise InputError(f"bf16 is {self.bf16!r}: expected true, false or auto")
        if isinstance(self.resume_from_checkpoint, bool):  # how YAML reads a bare `true`
            self.resume_from_checkpoint = "last" if self.resume_from_checkpoint else None
        check_fields(self)
        for name, choices in LOGGING_CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        self._take_as_transformers_does()
        check_obeyed(self)
        check_enums(self)
        check_deepspeed(self.deepspeed)
        if isinstance(self.fsdp, str) and self.fsdp.lower() in ("true", "false"):
            self.fsdp = self.fsdp.lower() == "true"  # Transformers' parser leaves it a text
        # Transformers takes bf16 on a machine without accelerator for a mistake unless told that this is meant.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        device = torch.device("cpu") if self.use_cpu else accelerator_or_cpu()
        checkpoint = checkpoint_to_resume(Path(self.output_dir), self.resume_from_checkpoint)
        self.precision = choose_precision(self.bf16, self.fp16, device, checkpoint)
        self.bf16 = self.precision.bf16
        left_open = self.metric_for_best_model is None
        try:
            super().__post_init__()
        except (ValueError, TypeError, ImportError, RuntimeError, NotImplementedError) as error:
            raise InputError(f"these training arguments cannot be used: {one_line(error)}") from error
        # Since Transformers 5.23 gradient_checkpointing_kwargs mirrors activation_checkpointing_kwargs.
        for name in ("gradient_checkpointing_kwargs", "lr_scheduler_kwargs"):
            if isinstance(value := getattr(self, name), str):  # it is not JSON, which Transformers would have read
                label = f"activation_checkpointing_kwargs ({name})" if name.startswith("gradient") else name
                raise InputError(f"{label} is {value!r}: expected a mapping")
        if left_open:
            # Transformers fills in the loss; the task knows better (build_trainer).
            self.metric_for_best_model = self.greater_is_better = None
        if DebugOption.TPU_METRICS_DEBUG in self.debug and not is_torch_xla_available():
            raise InputError("debug is tpu_metrics_debug, which does nothing without a TPU: leave it out")
        if self.fsdp and self.parallel_mode.value != "distributed":
            raise InputError(f"fsdp is {self.fsdp!r}, which needs several processes: start train.py with torchrun")

    def _take_as_transformers_does(self) -> None:
        """Give torch numbers where whole numbers were given for them, and Transformers names as one text."""
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(item.default, float) and isinstance(value, int) and not isinstance(value, bool):
                setattr(self, item.name, float(value))  # Adam takes beta1=0.0, and refuses 0
        if isinstance(self.debug, list):
            for name in self.debug:
                check_choice("debug", name, [one.value for one in DebugOption])
            self.debug = " ".join(str(getattr(name, "value", name)) for name in self.debug)


class RecipeParser(HfArgumentParser):
    """Raises what argparse would print below the usage of some two hundred fields."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # Transformers' parser knows no field that is true, false or a text.
        action = self._option_string_actions["--bf16"]
        action.type, action.nargs, action.const, action.choices = _true_false_or_auto, "?", True, None

    def error(self, message: str) -> NoReturn:
        if found := re.fullmatch(r"argument --(\w+)\S*: invalid (\w+) value: (.*)", message, re.DOTALL):
            name, kind, value = found.groups()
            raise InputError(f"{name} is {value}: expected {KINDS.get(kind, kind)}")
        raise InputError(f"{message}; python train.py --help lists the fields")


@dataclass(frozen=True)
class RunSpec:
    """One run: its recipe's name and text, and everything that was asked for.

    `recipe_text`, `command` and `arguments` are without secrets; `secrets` hides those of the recipe in what is
    written.
    """

    name: str
    recipe_text: str
    command: str
    recipe: RecipeArguments
    arguments: RunArguments
    push: bool = False  # upload the finished folder
    repository: str | None = None  # where to
    token: str | None = field(default=None, repr=False)  # with which
    secrets: Secrets = field(default_factory=Secrets, repr=False)


def parse_run(argv: list[str], command: str) -> RunSpec:
    """Read `RECIPE.yaml [--field value ...] [--mapping.key value ...]`.

    Args:
        command: what is recorded as the command that was run, `argv` its end.

    Raises:
        ValueError: no recipe, a field that does not exist, or a value that does not fit; secrets are hidden in it.
        OSError: the recipe cannot be read.
    """
    parser = RecipeParser([RecipeArguments, RunArguments], allow_abbrev=False, prog="train.py RECIPE.yaml")
    if argv in (["--help"], ["-h"]):
        parser.parse_args(argv)
    if not argv or argv[0].startswith("-") or not argv[0].endswith((".yaml", ".yml")):
        raise InputError("name a recipe first: python train.py recipes/cldr-demo.yaml [--field value ...]")
    path = Path(argv[0])
    text = read_text(path)
    secrets = Secrets.of_command(argv)
    try:
        values, rest = _read_values(path, text, argv[1:])
        secrets |= Secrets.of(values, _mappings_in(rest))
        recipe, arguments = _parse_fields(parser, path, values, rest)
    except InputError as error:
        raise InputError(secrets.hide(one_line(error))) from None  # whose traceback would show them
    push, arguments.push_to_hub = arguments.push_to_hub, False  # once at the end, not Trainer's upload of checkpoints
    repository = arguments.hub_model_id or (Path(arguments.output_dir).name if push else None)
    token, arguments.hub_token = arguments.hub_token, None  # Trainer writes its arguments into every checkpoint
    for item in fields(arguments):
        if item.name not in ("output_dir", "resume_from_checkpoint"):
            setattr(arguments, item.name, secrets.hide(getattr(arguments, item.name)))
    program = command.removesuffix(shlex.join(argv))
    return RunSpec(
        path.stem,
        secrets.hide_yaml(text),
        secrets.hide(command) if program == command else program + secrets.hide_command(argv),
        recipe,
        arguments,
        push,
        repository,
        token,
        secrets,
    )


def _read_values(path: Path, text: str, argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The recipe's fields with what dotted arguments change in them, and the other arguments."""
    values = parse_yaml(text, path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: a recipe is a mapping from fields to values, got {type(values).__name__}")
    rest = _merge_dotted(values, argv)
    values.setdefault("output_dir", f"runs/{path.stem}")
    return values, rest


def _parse_fields(
    parser: RecipeParser, path: Path, values: dict[str, Any], rest: list[str]
) -> tuple[RecipeArguments, RunArguments]:
    known = {action.dest for action in parser._actions}
    unknown = sorted(set(values) - known, key=str)
    if unknown:
        raise InputError(f"{path}: no field is named {unknown[0]!r}; python train.py --help lists them")
    parser.set_defaults(**values)
    recipe, arguments, extra = parser.parse_args_into_dataclasses(args=rest, return_remaining_strings=True)
    if extra:
        raise InputError(f"no field is named {extra[0]!r}; python train.py --help lists them")
    check_together(recipe, arguments)
    return recipe, arguments


def _mappings_in(argv: list[str]) -> list[Any]:
    """What is given as JSON."""
    found = []
    for word in argv:
        given = word.partition("=")[2] if word.startswith("--") else word
        if given.lstrip().startswith(("{", "[")):
            try:
                found.append(json.loads(given))
            except ValueError:
                continue  # the field that it belongs to will say so
    return found


def _true_false_or_auto(text: str) -> bool | str:
    return text if text == AUTO else string_to_bool(text)


def _merge_dotted(values: dict[str, Any], argv: list[str]) -> list[str]:
    """Put `--mapping.key value` pairs into the recipe, and return the other arguments.

    Raises:
        ValueError: a key that is not there or has no value, or one of a mapping that is also given whole.
    """
    rest, pending, merged = [], iter(argv), {}
    for argument in pending:
        if not (argument.startswith("--") and "." in argument.split("=")[0]):
            rest.append(argument)
            continue
        path, _, value = argument[2:].partition("=")
        if not value:
            value = next(pending, None)
            if value is None:
                raise InputError(f"{argument} needs a value")
        *outer, last = path.split(".")
        merged[outer[0]] = argument
        inner = values
        for key in outer:
            inner = inner[_position(argument, key, inner)] if isinstance(inner, list) else inner.setdefault(key, {})
            if not isinstance(inner, dict | list):
                raise InputError(f"{argument}: {key!r} is not a mapping in the recipe")
        last = _position(argument, last, inner) if isinstance(inner, list) else last
        try:
            inner[last] = yaml.safe_load(value)
        except YAML_FAULTS as error:
            reason = getattr(error, "problem", error)
            raise InputError(
                f"--{path}: {value[:80]!r} is not valid YAML ({reason}); put text that looks like YAML in "
                f"quotes of its own: {shlex.quote(json.dumps(value, ensure_ascii=False))}"
            ) from error
    for argument in rest:
        field = argument.removeprefix("--").partition("=")[0].replace("-", "_")
        if argument.startswith("--") and field in merged:
            raise InputError(f"--{field} is given whole and {merged[field]} beside it: put the one into the other")
    return rest


def _position(argument: str, key: str, items: list[Any]) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise InputError(f"{argument}: {key!r} where the recipe has a list of {len(items)}: count from 0")
    return int(key)
