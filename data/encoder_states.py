"""An encoder's states on disk: each source is encoded once, and read in every epoch.

They lie in a folder of safetensors files, each with the `states` (N, hidden) of some sources one after the other, the
`keys` (n, 16) uint8 of these sources and the `ends` (n,) int64 of their states.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from .collator import Feature

FILE_BYTES = 2**27
"""About how large a file becomes; writing holds some times that in memory."""


def key_of(input_ids: Sequence[int] | np.ndarray) -> bytes:
    """By which the states of a source are found: a digest of its token ids."""
    return hashlib.blake2b(np.asarray(input_ids, np.int32).tobytes(), digest_size=16).digest()


def write_states(folder: Path, encoded: Iterable[tuple[bytes, torch.Tensor]]) -> None:
    """Write the states (S, hidden) of sources; the folder appears under its name when it is whole.

    Args:
        folder: must not exist yet; the folder above it must.
    """
    with tempfile.TemporaryDirectory(prefix=unfinished(folder), dir=folder.parent) as place:
        target = Path(place, "states")
        target.mkdir()
        waiting: list[tuple[bytes, torch.Tensor]] = []
        size = 0
        for key, states in encoded:
            waiting.append((key, states))
            size += states.nbytes
            if size >= FILE_BYTES:
                _write_file(target, waiting)
                waiting, size = [], 0
        if waiting:
            _write_file(target, waiting)
        os.replace(target, folder)


def unfinished(folder: Path) -> str:
    """With what the names of folders begin that are not finished, beside the folder that they become."""
    return f".{folder.name}-"


def _write_file(folder: Path, encoded: Sequence[tuple[bytes, torch.Tensor]]) -> None:
    number = len(list(folder.iterdir()))
    tensors = {
        "states": torch.cat([states for _, states in encoded]),
        "keys": torch.tensor([list(key) for key, _ in encoded], dtype=torch.uint8),
        "ends": torch.tensor([len(states) for _, states in encoded]).cumsum(0),
    }
    # Written by Python, whose errors say that a disk is full.
    (folder / f"states-{number:05}.safetensors").write_bytes(save(tensors))


class EncoderStates:
    """The states of sources, read from disk as they are asked for.

    Args:
        folder: of `write_states`; it need not be there before `open` is called.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[torch.Tensor] = []  # mapped into memory
        self._places: dict[bytes, tuple[int, int, int]] = {}

    def open(self) -> None:
        """Read which sources there are.

        Raises:
            SafetensorError: a file is not whole.
        """
        self._files, self._places = [], {}
        for number, path in enumerate(sorted(self.folder.glob("*.safetensors"))):
            tensors = load_file(path)
            start = 0
            for key, end in zip(tensors["keys"].numpy(), tensors["ends"].tolist(), strict=True):
                self._places[key.tobytes()] = (number, start, end)
                start = end
            self._files.append(tensors["states"])

    def __len__(self) -> int:
        return len(self._places)

    @property
    def nbytes(self) -> int:
        """The size of all states."""
        return sum(states.nbytes for states in self._files)

    def get(self, input_ids: Sequence[int] | np.ndarray) -> torch.Tensor | None:
        """(S, hidden) of a source of S tokens; None where it was not encoded."""
        place = self._places.get(key_of(input_ids))
        return None if place is None else self._files[place[0]][place[1] : place[2]]

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "is_open": bool(self._files)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]  # a process of its own maps the files itself
        if state["is_open"]:
            self.open()


@dataclass(frozen=True)
class CollatorWithStates:
    """Adds the encoder's states to batches of a collator, as `encoder_outputs`, a tuple of (B, S, hidden).

    The values at padding are 0. A batch with a source that was not encoded stays without: the model encodes it.

    Args:
        collate: `Seq2SeqCollator`, whose batches are of examples, or `PackedCollator`, whose are of rows of examples.
    """

    collate: Any
    states: EncoderStates

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        batch = self.collate(examples)
        features = [feature for example in examples for feature in _row(example)]
        found = [states for feature in features if (states := self.states.get(feature["input_ids"])) is not None]
        if not found or len(found) < len(features):
            return batch
        together = torch.cat(found)
        is_token = batch["segment_ids"] != 0 if "segment_ids" in batch else batch["attention_mask"] != 0
        padded = together.new_zeros(*is_token.shape, together.shape[-1])
        padded[is_token] = together  # row by row, as they were put together
        return {**batch, "encoder_outputs": (padded,)}


def _row(example: Feature | Sequence[Feature]) -> Sequence[Feature]:
    """The examples of a packed row, or the one example that a row is otherwise."""
    return [example] if isinstance(example, Mapping) else example
