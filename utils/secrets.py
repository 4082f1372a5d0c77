"""Secrets kept out of everything that is written: tokens, keys and passwords in commands, recipes and records."""

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
# Tokens of a tokenizer are texts that everybody may read.
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
_SHORTEST = 6  # A shorter text is hidden where it stands, not wherever it occurs: it may be a word.


def is_secret_name(name: str) -> bool:
    """Whether what is stored under a name is secret: `hub_token`, `api-key`, `awsSecretAccessKey`, `password`."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", str(name))]
    if not words or (len(words) == 2 and words[0] in _MARKERS and words[1] == "token"):
        return False
    return words[-1] in _WORDS or bool(_ANYWHERE & set(words))


@dataclass(frozen=True)
class Secrets:
    """The secrets of one command, to be hidden in texts and records.

    `values` are hidden wherever they occur; what looks like a secret by itself (`hf_...`, a URL's password) always is.
    """

    values: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, *records: Any) -> "Secrets":
        """Those in records: mappings, however deep, and texts."""
        found = {value for record in records for value in _secrets_in(record)}
        return cls(tuple(sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True)))

    @classmethod
    def of_command(cls, words: Sequence[str]) -> "Secrets":
        """Those that a command gives as values of options, and what looks like one in its other words."""
        named = []
        for word, after in zip(words, [*words[1:], "--"], strict=True):
            option, equals, value = word.partition("=")
            if word.startswith("--") and is_secret_name(option):
                named.append({option: value if equals else "" if after.startswith("--") else after})
        return cls.of(named, list(words))

    def hide(self, value: Any) -> Any:
        """A copy of texts, lists and mappings, however deep, without secrets; other values as they are."""
        if type(value) is str:  # not a member of an enumeration
            return self._hide_text(value)
        if type(value) is dict:
            return {
                key: HIDDEN if is_secret_name(key) and _can_be_secret(one) else self.hide(one)
                for key, one in value.items()
            }
        if type(value) in (list, tuple):
            return type(value)(self.hide(one) for one in value)
        return value

    def __or__(self, other: "Secrets") -> "Secrets":
        """Those of both."""
        return Secrets(tuple(sorted({*self.values, *other.values}, key=len, reverse=True)))

    def hide_command(self, words: Iterable[str]) -> str:
        """A command as a shell takes it."""
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
        """A YAML document; what is not secret keeps its looks, comments included."""
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
        option, equals, given = word.partition("=") if word.startswith("--") else ("", "", word)
        if given.lstrip().startswith(("{", "[")):
            with suppress(ValueError):  # the field that it is given for says what is wrong with it
                given = json.dumps(self.hide(json.loads(given)), ensure_ascii=False)
        return self._hide_text(f"{option}{equals}{given}")


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
    """Where the secret texts of a document are, from and to."""
    if isinstance(node, yaml.ScalarNode):
        if secret and node.tag in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:int"):
            yield node.start_mark.index, node.end_mark.index
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _secret_spans(item, secret)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _secret_spans(value, isinstance(key, yaml.ScalarNode) and is_secret_name(key.value))
