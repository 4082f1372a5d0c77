"""What a server is started with: languages, batches, limits and keys."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ..data.text_files import read_lines
from ..utils.errors import InputError
from ..utils.text import check_text

_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class LanguagePair:
    """A direction that a model translates in.

    Args:
        source, target: codes of languages, such as `en` and `zh-Hans`.
        prefix: put before each text, such as `"<2de> "` for a model of several languages.

    Raises:
        InputError: a code that is none.
    """

    source: str
    target: str
    prefix: str = ""

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            if not _CODE.fullmatch(getattr(self, name)):
                raise InputError(f"{name} must be the code of a language such as en, got {getattr(self, name)!r}")
        check_text(self.prefix, f"the prefix of {self.source}:{self.target}")

    @classmethod
    def parse(cls, text: str) -> "LanguagePair":
        """`en:de`, or `en:de=<2de> ` with a prefix. Raises InputError."""
        codes, _, prefix = text.partition("=")
        source, colon, target = codes.partition(":")
        if not colon:
            raise InputError(f"languages must be SOURCE:TARGET or SOURCE:TARGET=PREFIX, such as en:de, got {text!r}")
        return cls(source, target, prefix)


def check_pairs(pairs: Sequence[LanguagePair]) -> None:
    """Refuse a direction that is given twice, of which only one prefix could be used. Raises InputError."""
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        if (pair.source, pair.target) in seen:
            raise InputError(
                f"languages must have each pair once, got {pair.source}:{pair.target} twice; leave one of them out"
            )
        seen.add((pair.source, pair.target))


@dataclass(frozen=True)
class Settings:
    """Limits and batches of a server.

    Args:
        api_keys: one of them must come with each request; none is asked for where there are none.
        requests_per_minute: of one key, or of one address where no keys are asked for; None for any number.
        max_characters: of one text, and of a question with its context.
        max_texts: in one request.
        max_body: bytes of one request or message.
        max_queue: texts that are waiting or computed at a time.
        max_streams: streams of tokens and of words that are open at a time.
        batch_tokens: source tokens that are computed together at most.
        max_delay: seconds that a text waits for others to join its batch.
        timeout: seconds from a request to its answer. read_timeout: for a request to arrive.
        idle_timeout: seconds that a stream of words waits for the next.
        shutdown_timeout: seconds for what was accepted to be answered after the server was told to end.
        allow_origins: origins whose pages in browsers may call the server, `*` for all.

    Raises:
        InputError: a number out of its bounds, a key that cannot be sent in a header.
    """

    api_keys: frozenset[str] = frozenset()
    requests_per_minute: int | None = None
    max_characters: int = 10_000
    max_texts: int = 64
    max_body: int = 2**20
    max_queue: int = 512
    max_streams: int = 16
    batch_tokens: int = 4096
    max_delay: float = 0.005
    timeout: float = 60.0
    read_timeout: float = 10.0
    idle_timeout: float = 60.0
    shutdown_timeout: float = 90.0
    allow_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value, lowest = getattr(self, field.name), 0 if field.name == "max_delay" else 1
            if field.type is float:
                if not (math.isfinite(value) and value >= 0 and (value > 0 or lowest == 0)):
                    raise InputError(f"{field.name} must be a finite number of seconds above 0, got {value}")
            elif isinstance(value, int) and value < 1:
                raise InputError(f"{field.name} must be at least 1, got {value}")
        if self.max_texts > self.max_queue:
            raise InputError(
                f"max_queue must be at least max_texts={self.max_texts}, got {self.max_queue}; a request of that many "
                "texts could never be accepted"
            )
        for key in self.api_keys:
            _check_key(key)


def read_api_keys(path: str | Path) -> frozenset[str]:
    """The keys in a file, one a line; blank lines and lines that begin with # are passed over.

    Raises:
        OSError: the file cannot be read. InputError: it has no key, or one that cannot be sent in a header.
    """
    keys = set()
    for number, line in enumerate(read_lines(path), start=1):
        if (key := line.strip()) and not key.startswith("#"):
            _check_key(key, f"{path}, line {number}: ")
            keys.add(key)
    if not keys:
        raise InputError(f"{path} must have an API key on a line, got none; write one, or serve without keys")
    return frozenset(keys)


def _check_key(key: str, place: str = "") -> None:
    """Refuse a key that clients cannot send in a header, whose bytes beyond ASCII have no encoding (RFC 9110)."""
    if not re.fullmatch(r"[!-~]+", key):
        raise InputError(
            f"{place}API keys must be of visible ASCII characters, got one with others or none; make another, for "
            "example by `openssl rand -hex 16`"
        )
