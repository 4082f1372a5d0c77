"""Files of lines: translated a portion at a time, so that memory is bounded and a run that was stopped goes on."""

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from ..data.text_files import read_json
from ..data.tokenization import cut
from ..utils.atomic_write import write_bytes, write_text
from ..utils.disk import naming_full_disks
from ..utils.errors import InputError
from .options import check_options
from .texts import encode, is_blank, translate_ids

PORTION = 4096  # lines; their lengths are sorted, and a run that is stopped loses no more
_DIGEST = 16  # bytes
_BLANKS = str.maketrans("\t\n\r", "   ")


def portions(lines: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The lines, a portion at a time."""
    remaining = iter(lines)
    while portion := tuple(islice(remaining, PORTION)):
        yield portion


@dataclass(frozen=True)
class LineTranslator:
    """How lines become lines of output; a function of the lines and of these settings alone.

    Args:
        pairs: write `translation TAB original`, without the lines where one of them is empty; otherwise every line has
            its translation, empty lines an empty one. Tabs and line ends within a text become spaces.
        prefix: goes before every line as the model reads it.
        max_source_length: the most tokens that the model reads of a line, prefix and end token included.
        overlong: what becomes of longer lines: `error`, `truncate` (the end is cut off) or `drop` (they have no
            translation).
        seed: of sampling.
        options: for `model.generate`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_source_length: int
    pairs: bool = False
    prefix: str = ""
    overlong: Literal["error", "truncate", "drop"] = "error"
    batch_tokens: int = 4096
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_options(self.model, self.options)
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if self.max_source_length < 2 or (limit is not None and self.max_source_length > limit):
            most = "any number" if limit is None else f"the model's {limit}"
            raise InputError(f"max_source_length is {self.max_source_length}: expected 2 to {most}")

    def __call__(self, lines: Iterable[str], bar: tqdm) -> Iterator[str]:
        """The output of all lines, one text a portion."""
        for number, portion in enumerate(portions(lines)):
            yield self.portion(portion, number, bar)

    def portion(self, lines: tuple[str, ...], number: int, bar: tqdm) -> str:
        """The output of portion `number`, every line with its end.

        Raises:
            ValueError: a line that is too long, with its number.
        """
        sources = self._ids(lines, number * PORTION + 1)
        set_seed(int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0]))
        texts = translate_ids(self.model, self.tokenizer, sources, self.batch_tokens, bar, **self.options)
        made = [text.translate(_BLANKS) for text in texts]
        if not self.pairs:
            return "".join(f"{text}\n" for text in made)
        full = ((text, line) for text, line in zip(made, lines, strict=True) if not is_blank(text))
        return "".join(f"{text}\t{line.translate(_BLANKS)}\n" for text, line in full)

    def digests(self) -> dict[str, str]:
        """Of all that is loaded and decides what is written: a path may hold another model a day later."""
        files = [json.loads(c.to_json_string()) for c in (self.model.config, self.model.generation_config)]
        for file in files:
            file.pop("transformers_version", None)  # the one that is installed
        weights = hashlib.blake2b(digest_size=_DIGEST)
        for name, weight in self.model.state_dict().items():
            weights.update(name.encode())
            weights.update(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        fast = self.tokenizer.is_fast
        subwords = self.tokenizer.backend_tokenizer.to_str() if fast else self.tokenizer.get_vocab()
        return {"config": _digest(files), "tokenizer": _digest(subwords), "weights": weights.hexdigest()}

    def _ids(self, lines: tuple[str, ...], first: int) -> list[list[int]]:
        """Token ids of every line; none of a line without text, and of one that is dropped."""
        sources = encode(self.tokenizer, lines, self.prefix)
        for at, ids in enumerate(sources):
            if len(ids) > self.max_source_length:
                if self.overlong == "error":
                    raise InputError(
                        f"line {first + at} has {len(ids)} tokens, more than {self.max_source_length}: split it, or "
                        "give --overlong truncate or drop"
                    )
                sources[at] = cut(ids, self.max_source_length) if self.overlong == "truncate" else []
        return sources


def translate_file(
    translate: LineTranslator, lines: Iterable[str], output: Path, settings: Mapping[str, Any], bar: tqdm
) -> None:
    """Write what becomes of the lines to `output`, gzipped where its name ends with .gz; it appears when it is whole.

    Until then every portion is a file in the folder `OUTPUT.parts`, with a digest of its lines in its name. A run that
    finds such a folder goes on with it, and writes the same file as one that nothing stopped.

    Args:
        settings: of the run, as JSON has them; a run goes on only with the same, the same model and the same lines.

    Raises:
        InputError: the output exists, was begun with other settings, another model or other lines, or is being written
            by another run.
        OSError: it cannot be written.
    """
    _check_absent(output)
    parts = output.with_name(f"{output.name}.parts")
    with naming_full_disks(parts, "free space and give the same command to go on"), _locked(parts, output):
        _check_absent(output)  # which another run may have finished meanwhile
        _check_settings(parts, output, {**json.loads(json.dumps(settings)), "digests": translate.digests()})
        files, whole = _parts(translate, lines, output, parts, bar), parts / ".whole.tmp"
        with whole.open("wb") as file:
            for part in files:
                with part.open("rb") as made:
                    shutil.copyfileobj(made, file)
        os.replace(whole, output)
        shutil.rmtree(parts)


def _parts(translate: LineTranslator, lines: Iterable[str], output: Path, parts: Path, bar: tqdm) -> list[Path]:
    """The files of all portions, in their order; those that are not there yet are made."""
    begun = {path.name.partition("-")[0]: path for path in parts.glob("*-*")}
    files = []
    for number, portion in enumerate(portions(lines)):
        part = parts / f"{number:06}-{_digest(portion)}"
        if (found := begun.get(f"{number:06}")) is not None:
            if found != part:
                first = number * PORTION + 1
                raise InputError(
                    f"{output} was begun with another text in lines {first} to {first + len(portion) - 1}: give the "
                    f"same input to go on, choose another output, or delete {parts}"
                )
            bar.update(len(portion))
        else:
            data = translate.portion(portion, number, bar).encode()
            write_bytes(part, gzip.compress(data, mtime=0) if output.suffix == ".gz" else data)
        files.append(part)
    return files


def _check_absent(output: Path) -> None:
    if output.exists():
        raise InputError(f"{output} exists: delete it, or choose another output")


@contextmanager
def _locked(parts: Path, output: Path) -> Iterator[None]:
    """Keep other runs from the folder of parts, and clear away what a killed run was writing.

    Raises:
        InputError: another run has it.
    """
    parts.mkdir(parents=True, exist_ok=True)
    lock = FileLock(parts / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"another run is writing {output}: wait for it, or choose another output") from None
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
        raise InputError(f"{path} must hold the settings of the run, {{...}}: delete {parts}")
    fix = f"give the same to go on, choose another output, or delete {parts}"
    digests, begun_digests = settings.pop("digests"), begun.pop("digests")
    for name in sorted({*begun, *settings}):
        if begun.get(name) != settings.get(name):
            raise InputError(
                f"{output} was begun with {name}={begun.get(name)!r}, now it is {settings.get(name)!r}: {fix}"
            )
    if other := [name for name, digest in digests.items() if begun_digests.get(name) != digest]:
        raise InputError(f"{output} was begun with a model of another {' and '.join(other)}: {fix}")


def _digest(value: Any) -> str:
    """Of what JSON has; equal values have equal ones."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=_DIGEST).hexdigest()
