"""Files of lines translated by actors of Ray Data, on one machine or many.

The driver reads lines, cuts them into the same portions as one process does, and writes what comes back; an actor has
a model, and translates a portion at a time. A portion is translated alike wherever that happens. So the output is that
of one process, and a run that was stopped may be continued with Ray or without.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..inference.files import LineTranslator, NumberedPortion, portions
from ..inference.texts import Bar
from ..utils.errors import InputError, errors_of_input
from .libraries import require
from .loading import load_translator

_PURPOSE = "translate on a cluster"
ROWS = 512
"""Portions that the driver holds at a time, two million lines. Actors are started anew for the next ones."""


@dataclass(frozen=True)
class RayLines:
    """Translates portions of lines as `lines` does, by many actors.

    Ray restarts an actor that dies, and gives its portion to one that lives.

    ```python
    >>> loading = {"model": "multi30k-int8", "threads": 1}
    >>> with load_translator(**loading) as translator:
    ...     lines = LineTranslator(translator, max_source_length=128)
    ...     translate_file(RayLines(lines, loading, actors=4), read_lines("a.en"), Path("a.de"), {}, bar)
    ```

    Args:
        lines: of this process, which checks the settings before Ray starts. Its model must be the actors'.
        loading: arguments of `load_translator` in the actors. Each gets `threads` processors, 1 by default,
            and an accelerator where `lines` has its model on one.
        actors: how many; by default those that the cluster has processors or accelerators for.

    Raises:
        MissingLibraryError: Ray is not installed. InputError: `actors` is not a positive number.
    """

    lines: LineTranslator
    loading: Mapping[str, Any]
    actors: int | None = None
    _digests: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        require("ray.data", "ray", _PURPOSE)
        if self.actors is not None and self.actors < 1:
            raise InputError(f"actors must be at least 1, got {self.actors}; leave it out to use the whole cluster")
        object.__setattr__(self, "_digests", self.lines.digests())

    def digests(self) -> dict[str, str]:
        """Of the model, as `LineTranslator.digests`."""
        return self._digests

    def __call__(self, lines: Iterable[str], bar: Bar) -> Iterator[str]:
        """The output of all lines, one text for each portion, in their order."""
        for _, text in self._translate(enumerate(portions(lines)), bar, in_order=True):
            yield text

    def portions(self, numbered: Iterable[NumberedPortion], bar: Bar) -> Iterator[tuple[int, str]]:
        """The number and the output of each portion, as they are done.

        Raises:
            InputError: a line that cannot be translated, a model that an actor cannot load, more actors than the
                cluster has processors for.
        """
        return self._translate(numbered, bar, in_order=False)

    def _translate(self, numbered: Iterable[NumberedPortion], bar: Bar, in_order: bool) -> Iterator[tuple[int, str]]:
        remaining = iter(numbered)
        rows = plan_rows(islice(remaining, ROWS))
        if not rows:
            return
        with _cluster() as ray:
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars, context.execution_options.preserve_order = False, in_order
            while rows:
                for row in self._results(ray, rows):
                    if row["error"]:
                        raise InputError(row["error"])
                    bar.update(row["count"])
                    yield row["number"], row["text"]
                rows = plan_rows(islice(remaining, ROWS))

    def _results(self, ray: Any, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        needs = self.needs()
        actors = choose_actors(self.actors, len(rows), needs, ray.cluster_resources())
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor,
            fn_constructor_args=(self._worker_settings(),),
            compute=ray.data.ActorPoolStrategy(size=actors),
            **needs,
        )
        # Without prefetching, each portion is given as soon as it is there, and is not lost if the run ends.
        for batch in results.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
            yield from batch.to_pylist()

    def needs(self) -> dict[str, float]:
        """What an actor needs of Ray's resources: `num_cpus`, `num_gpus`."""
        needs: dict[str, float] = {"num_cpus": self.loading.get("threads") or 1}
        translator = self.lines.translator
        on = self.loading.get("device") if translator.engine == "ctranslate2" else translator.model.device.type
        return needs if on in (None, "cpu") else {**needs, "num_gpus": 1}

    def _worker_settings(self) -> dict[str, Any]:
        own = {item.name: getattr(self.lines, item.name) for item in dataclasses.fields(self.lines)}
        translator = own.pop("translator")
        threads = {"threads": self.loading.get("threads") or 1}
        # The engine and the dtype in use: `auto` may be others on another machine.
        model = absolute(self.loading["model"])
        loading = {**self.loading, **threads, "model": model, "engine": translator.engine, "dtype": translator.dtype}
        return {"loading": loading, "lines": own, "digests": self._digests}


def absolute(model: str | os.PathLike[str]) -> str:
    """A folder by its whole path, since processes of Ray have folders of their own; a name on the Hub as it is."""
    return str(Path(model).resolve()) if Path(model).exists() else os.fspath(model)


def plan_rows(numbered: Iterable[NumberedPortion]) -> list[dict[str, Any]]:
    """A row of Ray Data for each portion: its number, its lines as JSON, and how many they are."""
    return [
        {"number": number, "lines": json.dumps(lines, ensure_ascii=False), "count": len(lines)}
        for number, lines in numbered
    ]


def choose_actors(wanted: int | None, rows: int, needs: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """How many actors run: those that were asked for, or that the cluster has resources for; no more than rows.

    Args:
        needs: of one actor, `num_cpus` and `num_gpus`. resources: of the cluster, `CPU` and `GPU`.

    Raises:
        InputError: the cluster does not have them.
    """
    have = {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0)}
    most = min(int(have[name] // amount) for name, amount in needs.items())
    if most < (wanted or 1):
        each = " and ".join(f"{name}={amount:g}" for name, amount in needs.items())
        of = " and ".join(f"{name}={have[name]:g}" for name in needs)
        raise InputError(
            f"actors must be at most {most}, since the cluster has {of} and each needs {each}, got {wanted or 1}; "
            "lower actors or threads, or start more nodes"
        )
    return min(most if wanted is None else wanted, rows)


class _Actor:
    """A model in a process of Ray's. What cannot be translated is returned, since Ray would wrap what is raised."""

    def __init__(self, settings: Mapping[str, Any]):
        self.error = ""
        try:
            translator = load_translator(**settings["loading"])
            self.lines = LineTranslator(translator, **settings["lines"])
            if self.lines.digests() != settings["digests"]:
                raise InputError(
                    f"{settings['loading']['model']} must be the same model on every machine, got another on "
                    f"{os.uname().nodename}; copy it, or give a folder that they share"
                )
        except errors_of_input() as error:
            self.error = str(error)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        text, error = "", self.error
        if not error:
            try:
                with tqdm(disable=True) as bar:
                    text = self.lines.portion(tuple(json.loads(row["lines"])), row["number"], bar)
            except InputError as refused:
                error = str(refused)
        return {"number": row["number"], "count": row["count"], "text": text, "error": error}


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected to the cluster that `RAY_ADDRESS` or this machine has, else with one of this machine's own."""
    ray = require("ray", "ray", _PURPOSE)
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    try:
        yield ray
    finally:
        ray.shutdown()
