"""Files of lines, translated a portion at a time: memory is bounded, and a run that was stopped can continue."""

import gzip
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock, Timeout
from transformers import set_seed

from ..data.text_files import read_json
from ..data.tokenization import Overlong, cut
from ..pipelines.pieces import Splitter, join, sentences
from ..utils.atomic_write import write_bytes, write_text
from ..utils.disk import naming_full_disks
from ..utils.errors import InputError
from ..utils.text import is_blank
from .digests import digest
from .reranking import NoisyChannelReranker
from .texts import Bar, encode
from .translator import Translator

PORTION = 1024  # lines; sorted by length among themselves, and a run that is stopped loses no more than these
NumberedPortion = tuple[int, tuple[str, ...]]
_BLANKS = str.maketrans("\t\n\r", "   ")


def portions(lines: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The lines, a portion at a time."""
    remaining = iter(lines)
    while portion := tuple(islice(remaining, PORTION)):
        yield portion


@dataclass(frozen=True)
class LineTranslator:
    """Translates lines. The output depends on the lines and on these settings only.

    Args:
        pairs: write `translation TAB original`, without lines of which one of the two is empty. Otherwise every line
            has its translation, and an empty line an empty one. Tabs and line ends within a text become spaces.
        json_key: write every output as JSON, `{json_key: output}`, instead.
        prefix: put before every line.
        max_source_length: the most tokens that the model reads of a line, prefix and end token included.
        overlong: what is done with longer lines: `error`, `truncate` (the end is cut off), `drop` (their translation
            is empty) or `split` (their sentences are translated, and joined with the whitespace between these).
        splitter: gives the sentences of a line, as `pipelines.pieces.sentences` takes it.
        seed: of sampling.
        options: of generation.

    Raises:
        InputError: `max_source_length` or an option that the model or its engine cannot take.
    """

    translator: Translator
    max_source_length: int
    pairs: bool = False
    json_key: str | None = None
    prefix: str = ""
    overlong: Overlong = "error"
    splitter: Splitter | None = None
    batch_tokens: int = 4096
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.translator.check_options(self.options)
        limit = self.translator.max_source_length
        if self.max_source_length < 2 or (limit is not None and self.max_source_length > limit):
            bounds = "at least 2" if limit is None else f"from 2 to the model's {limit}"
            raise InputError(f"max_source_length must be {bounds}, got {self.max_source_length}")

    def __call__(self, lines: Iterable[str], bar: Bar) -> Iterator[str]:
        """The output of all lines, one text for each portion, in their order."""
        for _, text in self.portions(enumerate(portions(lines)), bar):
            yield text

    def portions(self, numbered: Iterable[NumberedPortion], bar: Bar) -> Iterator[tuple[int, str]]:
        """The number and the output of each portion, in any order. Raises InputError, as `portion`."""
        for number, lines in numbered:
            yield number, self.portion(lines, number, bar)

    def digests(self) -> dict[str, str]:
        """Of the model, and of one that reranks: a run continues only with the same ones."""
        reranker = self.options.get("custom_generate")
        reverse = {"reverse model": reranker.digest()} if isinstance(reranker, NoisyChannelReranker) else {}
        return self.translator.digests() | reverse

    def portion(self, lines: tuple[str, ...], number: int, bar: Bar) -> str:
        """The output of the portion with this number, every line with its line end.

        Raises:
            ValueError: a line that is too long, with its number.
        """
        pieces = self._pieces(lines, number * PORTION + 1)
        sources = [ids for of_line in pieces for ids, _ in of_line]
        if bar.total is not None:
            bar.total += len(sources) - len(lines)
        set_seed(int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0]))
        outputs = iter(self.translator.translate_ids(sources, self.batch_tokens, bar, self.options))
        texts = [join([next(outputs) for _ in own], [separator for _, separator in own]) for own in pieces]
        if self.json_key is not None:
            return "".join(json.dumps({self.json_key: text}, ensure_ascii=False) + "\n" for text in texts)
        translations = [text.translate(_BLANKS) for text in texts]
        if not self.pairs:
            return "".join(f"{translation}\n" for translation in translations)
        pairs = zip(translations, lines, strict=True)
        return "".join(f"{text}\t{line.translate(_BLANKS)}\n" for text, line in pairs if not is_blank(text))

    def _pieces(self, lines: tuple[str, ...], first: int) -> list[list[tuple[list[int], str]]]:
        """The token ids of every line, by pieces, each with what stands behind it; a line that is not split is one.

        A blank line, and one that is dropped, has no ids. `first` is the number of the first line.
        """
        sources = encode(self.translator.tokenizer, lines, self.prefix)
        pieces = [[(ids, "")] for ids in sources]
        for index, ids in enumerate(sources):
            if len(ids) <= self.max_source_length:
                continue
            name = f"line {first + index}"
            if self.overlong == "error":
                raise InputError(
                    f"{name} must have at most {self.max_source_length} tokens, got {len(ids)}; shorten it, or give "
                    "--overlong split, truncate or drop"
                )
            if self.overlong == "split":
                pieces[index] = self._sentences(lines[index], name)
            else:
                pieces[index] = [(cut(ids, self.max_source_length) if self.overlong == "truncate" else [], "")]
        return pieces

    def _sentences(self, line: str, name: str) -> list[tuple[list[int], str]]:
        parts = sentences(line, self.splitter, name)
        encoded = encode(self.translator.tokenizer, [part.text for part in parts], self.prefix)
        for part, ids in zip(parts, encoded, strict=True):
            if len(ids) > self.max_source_length:
                raise InputError(
                    f"{name}: the sentence {part.text[:40]!r}... must have at most {self.max_source_length} tokens, "
                    f"got {len(ids)}; shorten it, or give --overlong truncate or drop"
                )
        return [(ids, part.separator) for part, ids in zip(parts, encoded, strict=True)]


class Lines(Protocol):
    """What translates lines: a `LineTranslator` in this process, or many of them elsewhere."""

    def portions(self, numbered: Iterable[NumberedPortion], bar: Bar) -> Iterator[tuple[int, str]]:
        """As `LineTranslator.portions`."""

    def digests(self) -> dict[str, str]:
        """As `LineTranslator.digests`."""


def translate_file(
    translate: Lines, lines: Iterable[str], output: Path, settings: Mapping[str, Any], bar: Bar
) -> None:
    """Write the translations of the lines to `output`, gzipped if its name ends with .gz.

    The file appears when it is complete. Until then every portion is a file in the folder `OUTPUT.parts`, with a
    digest of its lines in its name. A run that finds such a folder continues from it, and writes the same file as a
    run that was not stopped.

    Args:
        settings: of the run, values that JSON has. A run continues only with the same settings, model and lines.

    Raises:
        InputError: the output exists, was begun with other settings, another model or other lines, or is being written
            by another run.
        OSError: it cannot be written.
    """
    _check_absent(output)
    parts = output.with_name(f"{output.name}.parts")
    with naming_full_disks(parts, "free space and give the same command to continue"), _locked(parts, output):
        _check_absent(output)  # another run may have finished it meanwhile
        _check_settings(parts, output, {**json.loads(json.dumps(settings)), "digests": translate.digests()})
        part_paths, joined = _write_parts(translate, lines, output, parts, bar), parts / ".joined.tmp"
        with joined.open("wb") as joined_file:
            for path in part_paths:
                with path.open("rb") as part_file:
                    shutil.copyfileobj(part_file, joined_file)
        os.replace(joined, output)
        shutil.rmtree(parts)


def _write_parts(translate: Lines, lines: Iterable[str], output: Path, parts: Path, bar: Bar) -> list[Path]:
    """The files of all portions, in order; those that do not exist yet are written."""
    existing = {path.name.partition("-")[0]: path for path in parts.glob("*-*")}
    paths: list[Path] = []

    def missing() -> Iterator[NumberedPortion]:
        for number, portion in enumerate(portions(lines)):
            paths.append(parts / f"{number:06}-{digest(portion)}")
            if (path := existing.get(f"{number:06}")) is None:
                yield number, portion
            elif path == paths[number]:
                bar.update(len(portion))
            else:
                first = number * PORTION + 1
                raise InputError(
                    f"lines {first} to {first + len(portion) - 1} must be those that {output} was begun with, got "
                    f"others; give the same input to continue, choose another output, or delete {parts}"
                )

    for number, text in translate.portions(missing(), bar):
        data = text.encode()
        write_bytes(paths[number], gzip.compress(data, mtime=0) if output.suffix == ".gz" else data)
    return paths


def _check_absent(output: Path) -> None:
    if output.exists():
        raise InputError(f"{output} must not exist yet; delete it, or choose another output")


@contextmanager
def _locked(parts: Path, output: Path) -> Iterator[None]:
    """Keep other runs out of the folder of parts, and delete unfinished files of a killed run.

    Raises:
        InputError: another run uses it.
    """
    parts.mkdir(parents=True, exist_ok=True)
    lock = FileLock(parts / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(
            f"{output} must not be in use by another run; wait for it, or choose another output"
        ) from None
    try:
        for path in parts.glob(".*.tmp"):
            path.unlink()
        yield
    finally:
        lock.release()


def _check_settings(parts: Path, output: Path, settings: dict[str, Any]) -> None:
    path = parts / "settings.json"
    if not path.exists():
        write_text(path, json.dumps(settings, indent=2) + "\n")
        return
    begun = read_json(path)
    if not isinstance(begun, dict) or not isinstance(begun.get("digests"), dict):
        raise InputError(f"{path} must hold the settings of a run, {{...}}; delete {parts}")
    fix = f"give the same to continue, choose another output, or delete {parts}"
    digests, begun_digests = settings.pop("digests"), begun.pop("digests")
    for name in sorted({*begun, *settings}):
        if begun.get(name) != settings.get(name):
            raise InputError(
                f"{name} must be {begun.get(name)!r}, with which {output} was begun, got {settings.get(name)!r}; {fix}"
            )
    if changed := [name for name, value in digests.items() if begun_digests.get(name) != value]:
        raise InputError(
            f"the model must be the one that {output} was begun with, got another {' and '.join(changed)}; {fix}"
        )
