"""Hiding of tokens, keys and passwords in commands, recipes and records before they are written."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import yaml

HIDDEN = "***"
_WORDS = {"token", "key", "secret", "password", "passwd", "passphrase", "pwd", "credential", "credentials", "apikey"}
_ANYWHERE = {"secret", "password", "passwd", "passphrase", "credential", "credentials", "apikey"}
# The tokens of a tokenizer are not secret.
_MARKERS = {"pad", "bos", "eos", "unk", "sep", "cls", "mask"}
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\bhf_(?:(?=\w*[A-Z0-9])\w{6,}|[a-z]{16,})",  # Hugging Face; not the names of its functions
        r"\bapi_org_\w{8,}",
        r"\b(?:gh[opsur]_|github_pat_|glpat-|sk-|xox[abprs]-|AKIA)[\w-]{12,}",
        r"(?<=://)[^\s/@'\"]+(?=@)",  # https://user:password@host
        r"(?i)(?<=bearer )[\w.~+/=-]{8,}",
        r"(?i)(?<=[?&])(?:[\w-]*(?:token|key|secret|password|signature|sig))=[^&\s'\"]+",
    )
)
_SHORTEST = 6  # A shorter secret is hidden in its field only, not wherever the text occurs: it may be a word.


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret: `hub_token`, `api-key`, `awsSecretAccessKey`, `password`."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", str(name))]
    if not words or (len(words) == 2 and words[0] in _MARKERS and words[1] == "token"):
        return False
    return words[-1] in _WORDS or bool(_ANYWHERE & set(words))


@dataclass(frozen=True)
class Secrets:
    """The secrets of one command, to be hidden in texts and records.

    `values` are hidden wherever they occur. Text that has the form of a secret (`hf_...`, a password in a URL) is
    always hidden.
    """

    values: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, *records: Any) -> "Secrets":
        """The secrets in records: texts, and mappings and lists of any depth."""
        values = {value for record in records for value in _secrets_in(record)}
        return cls(tuple(sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)))

    @classmethod
    def of_command(cls, words: Sequence[str]) -> "Secrets":
        """The values of a command's secret options, and what has the form of a secret in its other words."""
        options = []
        for word, next_word in zip(words, [*words[1:], "--"], strict=True):
            option, equals, value = word.partition("=")
            if word.startswith("--") and is_secret_name(option):
                options.append({option: value if equals else "" if next_word.startswith("--") else next_word})
        return cls.of(options, list(words))

    def hide(self, value: Any) -> Any:
        """A copy of texts, lists and mappings of any depth, without secrets; other values unchanged."""
        if type(value) is str:  # not a member of an enumeration
            return self._hide_text(value)
        if type(value) is dict:
            return {
                key: HIDDEN if is_secret_name(key) and _can_be_secret(item) else self.hide(item)
                for key, item in value.items()
            }
        if type(value) in (list, tuple):
            return type(value)(self.hide(item) for item in value)
        return value

    def __or__(self, other: "Secrets") -> "Secrets":
        """The secrets of both."""
        return Secrets(tuple(sorted({*self.values, *other.values}, key=len, reverse=True)))

    def hide_command(self, words: Iterable[str]) -> str:
        """A command, quoted for a shell, without secrets."""
        hidden, secret_next = [], False
        for word in words:
            option, equals, _ = word.partition("=")
            is_option = word.startswith("--")
            if secret_next and not is_option:
                hidden.append(HIDDEN)
            elif is_option and equals and is_secret_name(option):
                hidden.append(f"{option}={HIDDEN}")
            else:
                hidden.append(self._hide_json(word))
            secret_next = is_option and not equals and is_secret_name(option)
        return shlex.join(hidden)

    def hide_yaml(self, text: str) -> str:
        """A YAML document without secrets; the rest of its text is unchanged, comments included."""
        try:
            spans = sorted(set(_secret_spans(yaml.compose(text))), reverse=True)
        except yaml.YAMLError:
            spans = []
        for start, end in spans:
            end = start + len(text[start:end].rstrip())  # a block ends where the next line begins
            text = f'{text[:start]}"{HIDDEN}"{text[end:]}'
        return self._hide_text(text)

    def _hide_text(self, text: str) -> str:
        for value in self.values:
            in_json = (json.dumps(value, ensure_ascii=only_ascii)[1:-1] for only_ascii in (True, False))
            for form in {value, shlex.quote(value), *in_json}:
                text = text.replace(form, HIDDEN)
        for pattern in _PATTERNS:
            text = pattern.sub(HIDDEN, text)
        return text

    def _hide_json(self, word: str) -> str:
        """A word of a command, which may be a mapping in JSON."""
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if value.lstrip().startswith(("{", "[")):
            with suppress(ValueError):  # whoever reads the option refuses JSON that is not valid
                value = json.dumps(self.hide(json.loads(value)), ensure_ascii=False)
        return self._hide_text(f"{option}{equals}{value}")


def _can_be_secret(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _secrets_in(record: Any, secret: bool = False) -> Iterable[str]:
    if secret and _can_be_secret(record) and not isinstance(record, str):
        yield str(record)
    elif isinstance(record, str):
        if secret:
            yield record
        for pattern in _PATTERNS:
            yield from (match[0] for match in pattern.finditer(record))
    elif isinstance(record, Mapping):
        for key, value in record.items():
            yield from _secrets_in(value, is_secret_name(key))
    elif isinstance(record, list | tuple):
        for value in record:
            yield from _secrets_in(value, secret)


def _secret_spans(node: yaml.Node | None, secret: bool = False) -> Iterable[tuple[int, int]]:
    """The starts and ends of the secret texts in a document."""
    if isinstance(node, yaml.ScalarNode):
        if secret and node.tag in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:int"):
            yield node.start_mark.index, node.end_mark.index
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _secret_spans(item, secret)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _secret_spans(value, isinstance(key, yaml.ScalarNode) and is_secret_name(key.value))
