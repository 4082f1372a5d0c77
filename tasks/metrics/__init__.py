"""Our metrics as `evaluate` modules, one folder each, loaded from where this package is installed: no network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import evaluate

from ...utils.errors import InputError, MissingLibraryError

FOLDER = Path(__file__).resolve().parent

# Module, and the libraries outside crossmask's core that it imports.
_NEEDS = {"seq2seq_qa": (), "seq2seq_translation": ("sacrebleu",)}


def load_metric(name: str) -> evaluate.EvaluationModule:
    """The metric `name`, ready to `compute(predictions=..., references=...)`.

    Raises ValueError for an unknown name, MissingLibraryError where the metric's library is not installed.

    >>> load_metric("seq2seq_qa").compute(predictions=["the cat"], references=["Cat"])
    {'exact_match': 100.0, 'f1': 100.0}
    """
    if name not in _NEEDS:
        raise InputError(f"unknown metric {name!r}; known metrics: {', '.join(sorted(_NEEDS))}")
    missing = [library for library in _NEEDS[name] if find_spec(library) is None]
    if missing:
        libraries = ", ".join(missing)
        raise MissingLibraryError(
            f"the metric {name} needs {libraries}, not installed here; pip install 'crossmask[metrics]'"
        )
    # In memory: nothing is left in the cache folder, and runs side by side share no lock file.
    return evaluate.load(str(FOLDER / name), keep_in_memory=True)
