"""The model's code beside its weights, so that a saved folder loads where crossmask is not installed.

`from_pretrained(..., trust_remote_code=True)` copies the module that `auto_map` names, and what it imports by lines of
the form `from .name import symbol`, from one flat folder. Our modules are in several folders. So when a model is
saved, the modules that it needs are written beside its weights as a few files: masks, configuration, network, its
head, if any, and pipelines.
"""

import os
import re
from functools import cache
from importlib import import_module
from pathlib import Path

from ..pipelines.registration import kinds_of
from ..utils.atomic_write import write_text
from .code_bundle import write_bundles
from .module_imports import Bundle

PACKAGE = Path(__file__).resolve().parent.parent
NAME = __name__.partition(".")[0]
ENTRIES = {
    "crossmask": ("configuration/crossmask.py", "modeling/crossmask.py"),
    "crossmask-bridge": ("configuration/bridge.py", "bridge/bridge.py", "bridge/processing.py"),
    "crossmask-sequence-classification": ("heads/sequence_classification.py",),
    "crossmask-token-classification": ("heads/token_classification.py",),
    "crossmask-question-answering": ("question_answering/configuration.py", "question_answering/modeling.py"),
}
"""The modules of the classes that an `auto_map` of a config or processor names, by model type."""
PIPELINES = {
    "crossmask": ("AutoModelForSeq2SeqLM",),
    "crossmask-bridge": ("AutoModelForSeq2SeqLM",),
    "crossmask-sequence-classification": ("AutoModelForSequenceClassification",),
    "crossmask-token-classification": ("AutoModelForTokenClassification",),
    "crossmask-question-answering": ("AutoModelForQuestionAnswering",),
}
"""The Auto classes whose pipelines a saved model has, by model type."""
BUNDLES = (
    Bundle(
        "masks_crossmask.py", ("masks",), "What may see what: masks as values that are read, written and combined."
    ),
    Bundle("configuration_crossmask.py", ("configuration",), "What a crossmask model is: its config."),
    Bundle("modeling_crossmask.py", ("attention", "seq2seq", "modeling", "bridge"), "A crossmask model."),
    Bundle("heads_crossmask.py", ("heads",), "An encoder of any kind with a head of crossmask."),
    Bundle("question_answering_crossmask.py", ("question_answering",), "A crossmask model that answers by pointing."),
    Bundle("pipelines_crossmask.py", ("pipelines",), "Pipelines for crossmask models."),
)

# Up to version 0.1.0 each module was a file of its own, which begins like this.
_OLD_HEADER = re.compile(rf"# SPDX-License-Identifier: Apache-2\.0\n# {NAME}: \S+\.py, flattened\.\n")


def write_code_files(folder: str | os.PathLike[str], model_type: str = "crossmask") -> None:
    """Write the code files of a model's classes into `folder`, each one whole, and remove older ones of ours.

    Args:
        model_type: the config's, one of `ENTRIES`.

    Raises:
        ValueError: a module of the package cannot go into a shared file as it is.
        OSError: the folder cannot be written.
    """
    files = _own_files(model_type)
    for name, text in files.items():
        write_text(Path(folder) / name, text)
    for path in Path(folder).glob("*.py"):
        if path.name not in files and _is_old(path):
            path.unlink()


@cache
def _own_files(model_type: str) -> dict[str, str]:
    kinds = [kind for auto_class in PIPELINES.get(model_type, ()) for kind in kinds_of(auto_class)]
    entries = (*ENTRIES[model_type], *dict.fromkeys(kind.module for kind in kinds))
    return write_bundles(PACKAGE, entries, BUNDLES, NAME, import_module(NAME).__version__)


def _is_old(path: Path) -> bool:
    """Whether an earlier version of crossmask wrote this file. A link is never one."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return _OLD_HEADER.match(file.read(500)) is not None
