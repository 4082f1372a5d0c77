"""The server as an application of Ray Serve: several replicas, each with a model, a queue and batches of its own."""

import dataclasses
import math
import os
import typing
from collections.abc import Mapping
from typing import Any

from ..serving.libraries import require
from ..serving.ray_translation import absolute
from ..utils.errors import InputError
from ..utils.type_checks import did_you_mean
from .loading import load_served_model
from .settings import LanguagePair, Settings, check_pairs, read_api_keys

_PURPOSE = "serve a model by Ray Serve"
_LOADING = ("engine", "task", "source_prefix", "source_template", "device", "dtype")
_NUMBERS = {"replicas": int, "threads": int, "gpus": float, "num_beams": int, "max_new_tokens": int}


def ray_application(
    name: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    replicas: int = 1,
    threads: int = 1,
    gpus: float = 0,
    **loading: Any,
) -> Any:
    """A `ray.serve.Application` with all endpoints of `create_app`, for `ray.serve.run`.

    ```python
    >>> serve.run(ray_application("/models/multi30k-int8", replicas=4, threads=2, pairs=[LanguagePair("en", "de")]))
    ```

    The model is loaded by each replica, from a folder that all machines have, or from the Hub. Ray Serve spreads
    requests over replicas, replaces those that die, and on its way out lets each answer what it accepted.

    Args:
        name: of the model. settings: limits, each of them one of a single replica.
        replicas: how many. threads: processors of each. gpus: accelerators of each.
        loading: further arguments of `load_served_model`.

    Raises:
        MissingLibraryError: Ray Serve is not installed. InputError: a number that is too low, or not finite.
    """
    serve = require("ray.serve", "ray", _PURPOSE)
    for field, value, lowest in (("replicas", replicas, 1), ("threads", threads, 1), ("gpus", gpus, 0)):
        if not lowest <= value < math.inf:
            raise InputError(f"{field} must be a finite number of at least {lowest}, got {value}")
    limits, model = settings or Settings(), absolute(name)

    def make_app() -> Any:  # called in the replica
        from . import create_app

        return create_app(load_served_model(model, threads=threads, **loading), limits)

    deployment = serve.deployment(
        serve.ingress(make_app)(),
        name="crossmask",
        num_replicas=replicas,
        # Above what the replica's own limits refuse, so that its answers are those that clients see.
        max_ongoing_requests=2 * (limits.max_queue + limits.max_streams),
        graceful_shutdown_timeout_s=limits.shutdown_timeout,
        ray_actor_options={"num_cpus": threads, "num_gpus": gpus},
    )
    return deployment.bind()


def build(arguments: Mapping[str, str]) -> Any:
    """`ray_application` of texts, as `serve run` and Serve's config files give them.

    ```bash
    serve run crossmask.server.ray_serve:build model=/models/multi30k-int8 languages=en:de replicas=4
    ```

    Args:
        arguments: `model`; `languages`, as of `crossmask serve`, separated by commas; `api_keys`, a file; and by their
            names the options of `ray_application`, `load_served_model` and `Settings` that are texts or numbers.

    Raises:
        InputError: an argument that is not known, missing, or not a number.
    """
    types = typing.get_type_hints(Settings)
    limits = [field.name for field in dataclasses.fields(Settings) if field.name not in ("api_keys", "allow_origins")]
    known = ("model", "languages", "api_keys", *_LOADING, *_NUMBERS, *limits)
    for name in arguments:
        if name not in known:
            fix = did_you_mean(name, known) or "leave it out"
            raise InputError(f"arguments must be among {', '.join(known)}, got {name!r}; {fix}")
    if "model" not in arguments:
        raise InputError("model must be given; write model=FOLDER")
    pairs = [LanguagePair.parse(text) for text in str(arguments.get("languages", "")).split(",") if text]
    check_pairs(pairs)
    numbers = {name: _number(name, arguments[name], kind) for name, kind in _NUMBERS.items() if name in arguments}
    options = {name: numbers.pop(name) for name in ("num_beams", "max_new_tokens") if name in numbers}
    chosen = {
        name: _number(name, arguments[name], float if types[name] is float else int)
        for name in limits
        if name in arguments
    }
    keys = read_api_keys(arguments["api_keys"]) if "api_keys" in arguments else frozenset()
    loading: dict[str, Any] = {name: arguments[name] for name in _LOADING if name in arguments}
    settings = Settings(**chosen, api_keys=keys)
    return ray_application(arguments["model"], settings, pairs=pairs, options=options, **numbers, **loading)


def _number(name: str, text: Any, kind: type) -> Any:
    try:
        return kind(str(text))  # a config file may have numbers, and int(1.5) would be 1
    except ValueError:
        raise InputError(f"{name} must be {'a' if kind is float else 'a whole'} number, got {text!r}") from None
