"""Files of lines: translated a portion at a time, so that memory is bounded and a run that was stopped goes on."""

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from ..data.features import cut
from ..hub.files import write_bytes, write_text
from ..utils.errors import InputError
from .texts import check_options, translate_ids

PORTION = 4096  # lines; their lengths are sorted, and a run that is stopped loses no more
_DIGEST = 16  # bytes
_BLANKS = str.maketrans("\t\n\r", "   ")


def portions(lines: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The lines, so many at a time."""
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
        check_options(dict(self.options))
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if self.max_source_length < 2 or (limit is not None and self.max_source_length > limit):
            raise InputError(f"max_source_length is {self.max_source_length}: expected 2 to the model's {limit}")

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
        kept = [at for at, ids in enumerate(sources) if ids]
        bar.update(len(lines) - len(kept))
        set_seed(int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0]))
        texts = translate_ids(
            self.model, self.tokenizer, [sources[at] for at in kept], self.batch_tokens, bar, **self.options
        )
        made = {at: text.translate(_BLANKS) for at, text in zip(kept, texts, strict=True)}
        if not self.pairs:
            return "".join(f"{made.get(at, '')}\n" for at in range(len(lines)))
        full = (at for at in kept if made[at].strip())
        return "".join(f"{made[at]}\t{lines[at].translate(_BLANKS)}\n" for at in full)

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
        sources = self.tokenizer([self.prefix + line for line in lines], verbose=False)["input_ids"]
        for at, ids in enumerate(sources):
            if not lines[at].strip():
                sources[at] = []
            elif len(ids) > self.max_source_length:
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
        ValueError: the output exists, or was begun with other settings, another model or other lines.
        OSError: it cannot be written.
    """
    if output.exists():
        raise InputError(f"{output} exists: delete it, or choose another output")
    parts = output.with_name(f"{output.name}.parts")
    _check_settings(parts, output, {**json.loads(json.dumps(settings)), "digests": translate.digests()})
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
    beside = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as whole:
            for part in files:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole)
        os.replace(beside, output)
    finally:
        beside.unlink(missing_ok=True)
    shutil.rmtree(parts)


def _check_settings(parts: Path, output: Path, settings: dict[str, Any]) -> None:
    path = parts / "settings.json"
    if not path.exists():
        write_text(path, json.dumps(settings, indent=2) + "\n")
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    mend = f"give the same to go on, choose another output, or delete {parts}"
    digests, begun_digests = settings.pop("digests"), begun.pop("digests", {})
    for name in sorted({*begun, *settings}):
        if begun.get(name) != settings.get(name):
            raise InputError(
                f"{output} was begun with {name}={begun.get(name)!r}, now it is {settings.get(name)!r}: {mend}"
            )
    if other := [name for name, digest in digests.items() if begun_digests.get(name) != digest]:
        raise InputError(f"{output} was begun with a model of another {' and '.join(other)}: {mend}")


def _digest(value: Any) -> str:
    """Of what JSON has; equal values have equal ones."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=_DIGEST).hexdigest()
