"""Our metrics as `evaluate` modules, loaded from where this package is installed: no network.

A metric is one file here and one line in `LIBRARIES`. `evaluate` copies the file into its cache before it imports it,
and with it the files that it imports as `from .name import symbol`; nothing else of the package may be imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ...utils.errors import MissingLibraryError
from ...utils.type_checks import check_choice

if TYPE_CHECKING:
    import evaluate  # takes a second to import

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Library:
    """A library outside crossmask's core: the name that it is imported by, and the command that installs it."""

    name: str
    install: str


# Every metric, with the libraries that it imports beyond crossmask's core.
LIBRARIES: dict[str, tuple[Library, ...]] = {
    "rouge": (Library("rouge_score", "pip install rouge-score"),),
    "semantic_roles": (),
    "seq2seq_qa": (),
    "text_classification": (Library("sklearn", "pip install scikit-learn"),),
    "seq2seq_translation": (Library("sacrebleu", "pip install sacrebleu"),),
}


def check_libraries(metric: str) -> None:
    """Refuse a metric whose libraries are not installed; imports none of them.

    Raises:
        InputError: an unknown metric.
        MissingLibraryError: with the library and the command that installs it.
    """
    check_choice("metric", metric, sorted(LIBRARIES))
    for library in LIBRARIES[metric]:
        if find_spec(library.name) is None:
            raise MissingLibraryError(
                f"the metric {metric} needs {library.name}, which is not installed; {library.install}"
            )


def load_metric(name: str) -> evaluate.EvaluationModule:
    """The metric `name`, ready to `compute(predictions=..., references=...)`.

    ```python
    >>> load_metric("seq2seq_qa").compute(predictions=["the cat"], references=["Cat"])
    {'exact_match': 100.0, 'f1': 100.0}
    ```

    Raises:
        InputError, MissingLibraryError: as `check_libraries`.
    """
    check_libraries(name)
    return _metric_class(name)(keep_in_memory=True)


@cache
def _metric_class(name: str) -> type[evaluate.EvaluationModule]:
    import evaluate

    # In memory: nothing is left in the cache folder, and runs side by side share no lock file.
    return type(evaluate.load(str(FOLDER / f"{name}.py"), keep_in_memory=True))
