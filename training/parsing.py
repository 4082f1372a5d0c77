"""The command line of `train.py` and `crossmask train`: a recipe in YAML, and what flags change in it."""

import json
import re
import shlex
from argparse import ArgumentTypeError
from collections.abc import Container
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser
from transformers.debug_utils import DebugOption
from transformers.hf_argparser import string_to_bool

from ..data.recipes import find_recipe
from ..data.text_files import YAML_FAULTS, parse_yaml, read_text
from ..utils.errors import InputError
from ..utils.secrets import Secrets
from .combinations import check_together
from .nested import put, unshared
from .precision import AUTO
from .recipe import GROUPS, RecipeArguments
from .run_arguments import RunArguments
from .validation import one_line

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "string_to_bool": "true or false",
    "_true_false_or_auto": "true, false or auto",
    "dict": "a mapping",
    "DebugOption": f"one of {', '.join(one.value for one in DebugOption)}",
    "ParallelismConfig": "it left out, only Python can give one",
}


class RecipeParser(HfArgumentParser):
    """Raises what argparse would print below the usage of some two hundred fields."""

    def __init__(self) -> None:
        groups: Any = [*GROUPS, RunArguments]  # Transformers' annotation says instances
        super().__init__(groups, allow_abbrev=False, prog="RECIPE")
        # Transformers' parser knows no field that is true, false or a text.
        action = self._option_string_actions["--bf16"]
        action.type, action.nargs, action.const, action.choices = _true_false_or_auto, "?", True, None

    @property
    def names(self) -> set[str]:
        """The fields."""
        return {action.dest for action in self._actions}

    def error(self, message: str) -> NoReturn:
        if found := re.fullmatch(r"argument --(\w+)\S*: invalid (\w+) value: (.*)", message, re.DOTALL):
            name, kind, value = found.groups()
            raise InputError(f"{name} must be {KINDS.get(kind, kind)}, got {value}")
        raise InputError(f"{message}; --help lists the fields")


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
    parser = RecipeParser()
    if argv in (["--help"], ["-h"]):
        parser.parse_args(argv)
    if argv[1:] in (["--help"], ["-h"]):
        find_recipe(argv[0])
        parser.parse_args(argv[1:])
    if not argv or argv[0].startswith("-"):
        raise InputError("name a recipe first: recipes/cldr-demo.yaml [--field value ...]")
    path = find_recipe(argv[0])
    text = read_text(path)
    secrets = Secrets.of_command(argv)
    try:
        values, rest = _read_values(path, text, argv[1:], parser.names)
        values.setdefault("output_dir", f"runs/{path.stem}")
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


def read_fields(argv: list[str]) -> tuple[Path, dict[str, Any]]:
    """The file of a recipe, and its fields with what the command line changes in them, as the recipe could have them.

    Raises: as `parse_run`, which has to see whether the values fit.
    """
    path = find_recipe(argv[0])
    parser = RecipeParser()
    values, rest = _read_values(path, read_text(path), argv[1:], parser.names)
    namespace, extra = parser.parse_known_args(rest)
    if extra:
        raise InputError(f"no field is named {extra[0]!r}; --help lists them")
    flags = {word.partition("=")[0] for word in rest}
    for action in parser._actions:
        if flags.intersection(action.option_strings):
            value = getattr(namespace, action.dest)
            values[action.dest] = _read_json(getattr(value, "value", value))  # `value` of an enumeration
    return path, values


def _read_json(value: Any) -> Any:
    """The mapping or the list that a text is in JSON; anything else as it is."""
    try:
        read = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return value
    return read if isinstance(read, dict | list) else value


def _read_values(path: Path, text: str, argv: list[str], known: Container[str]) -> tuple[dict[str, Any], list[str]]:
    """The recipe's fields with what dotted arguments change in them, and the other arguments."""
    values = parse_yaml(text, path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: a recipe is a mapping from fields to values, got {type(values).__name__}")
    values = unshared(values)
    rest = _take_back(values, _merge_dotted(values, argv), known)
    return values, rest


def _parse_fields(
    parser: RecipeParser, path: Path, values: dict[str, Any], rest: list[str]
) -> tuple[RecipeArguments, RunArguments]:
    unknown = sorted(set(values) - parser.names, key=str)
    if unknown:
        raise InputError(f"{path}: no field is named {unknown[0]!r}; --help lists them")
    parser.set_defaults(**values)
    *groups, arguments, extra = parser.parse_args_into_dataclasses(args=rest, return_remaining_strings=True)
    if extra:
        raise InputError(f"no field is named {extra[0]!r}; --help lists them")
    recipe = RecipeArguments(*groups)
    check_together(recipe, arguments)
    return recipe, arguments


def _mappings_in(argv: list[str]) -> list[Any]:
    """What is given as JSON."""
    mappings = []
    for word in argv:
        value = word.partition("=")[2] if word.startswith("--") else word
        if value.lstrip().startswith(("{", "[")):
            try:
                mappings.append(json.loads(value))
            except ValueError:
                continue  # the field that it belongs to will say so
    return mappings


def _true_false_or_auto(text: str) -> bool | str:
    if text == AUTO:
        return text
    try:
        return string_to_bool(text)
    except ArgumentTypeError as error:
        raise ValueError(text) from error  # argparse then names this function, of which `KINDS` has the values


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
        path, is_given, given = argument[2:].partition("=")
        value = given if is_given else next(pending, None)
        if not value:
            raise InputError(f"--{path} needs a value")
        merged[path.partition(".")[0]] = argument
        try:
            read = yaml.safe_load(value)
        except YAML_FAULTS as error:
            reason = getattr(error, "problem", error)
            raise InputError(
                f"--{path}: {value[:80]!r} is not valid YAML ({reason}); put text that looks like YAML in "
                f"quotes of its own: {shlex.quote(json.dumps(value, ensure_ascii=False))}"
            ) from error
        put(values, path.split("."), read, argument)
    for argument in rest:
        field = _field_of(argument)
        if argument.startswith("--") and field in merged:
            raise InputError(f"--{field} is given whole and {merged[field]} beside it: put the one into the other")
    return rest


def _take_back(values: dict[str, Any], argv: list[str], known: Container[str]) -> list[str]:
    """The arguments without each `--field null` and what stands before it for that field, which `values` loses."""
    given: list[list[str]] = []  # the words of each argument
    for word in argv:
        if word.startswith("--") or not given:
            given.append(word.split("=", 1) if word.endswith("=null") else [word])
        else:
            given[-1].append(word)
    kept: list[list[str]] = []
    for words in given:
        name = _field_of(words[0])
        if words[1:] == ["null"] and name in known:
            values.pop(name, None)
            kept = [others for others in kept if _field_of(others[0]) != name]
        else:
            kept.append(words)
    return [word for words in kept for word in words]


def _field_of(argument: str) -> str:
    """`learning_rate` of `--learning-rate=1`."""
    return argument.removeprefix("--").partition("=")[0].replace("-", "_")
