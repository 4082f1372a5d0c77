"""The server under Ray Serve: the same answers from every replica, and what cannot be started is refused."""

import asyncio
import os
import signal
import socket
import sys
from functools import partial

import pytest

pytest.importorskip("fastapi")

import httpx2 as httpx
from servers import TEXTS, asking, expected, small, wait_for

from crossmask.server import ray_serve
from crossmask.utils.errors import InputError, MissingLibraryError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "model must be given; write model=FOLDER"),
        ({"model": "m", "replica": "2"}, "arguments must be among model, .*, got 'replica'; did you mean 'replicas'"),
        ({"model": "m", "replicas": "two"}, "replicas must be a whole number, got 'two'"),
        ({"model": "m", "replicas": 1.5}, "replicas must be a whole number, got 1.5"),
        ({"model": "m", "threads": None}, "threads must be a whole number, got None"),
        ({"model": "m", "max_delay": "x"}, "max_delay must be a number, got 'x'"),
        ({"model": "m", "max_texts": "0"}, "max_texts must be"),
        ({"model": "m", "languages": "en:de,en:de=<2de> "}, "languages must have each pair once, got en:de twice"),
        ({"model": "m", "languages": "en-de"}, "languages must be SOURCE:TARGET"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ray_serve.build(arguments)


def test_texts_become_what_the_application_takes(monkeypatch):
    given = {}
    monkeypatch.setattr(ray_serve, "ray_application", lambda name, settings, **rest: given.update(rest, all=settings))
    ray_serve.build(
        {
            "model": "m",
            "languages": "en:de,en:fr=<2fr> ",
            "replicas": "3",
            "num_beams": "2",
            "max_delay": "0.5",
            "gpus": "0.5",
        }
    )
    assert [(pair.target, pair.prefix) for pair in given["pairs"]] == [("de", ""), ("fr", "<2fr> ")]
    assert (given["replicas"], given["options"], given["all"].max_delay) == (3, {"num_beams": 2}, 0.5)
    assert given["gpus"] == 0.5


def test_without_ray_its_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'crossmask\[ray\]'"):
        ray_serve.ray_application("m")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of Ray's own names
def test_replicas_answer_as_one_process_and_one_that_is_killed_is_replaced(tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'crossmask[ray]'")
    serve = pytest.importorskip("ray.serve")
    for part in small():
        part.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="replicas must be a finite number of at least 1, got 0"):
        ray_serve.ray_application(tmp_path, replicas=0)
    arguments = {"task": "translation", "languages": "en:de", "device": "cpu", "dtype": "float32", "replicas": "2"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(ray_serve.build({"model": str(tmp_path), **arguments}))
        url = f"http://127.0.0.1:{port}"
        asyncio.run(_ask_all(url))
        victim = _replicas()[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(_replicas()) == 2 and victim not in _replicas(), 120)
        asyncio.run(_ask_all(url))
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.post("/translate", json=asking("x" * 20_000)).status_code == 413
            assert client.get("/health").json()["engine"] == "torch"
            stream = client.post("/translate/stream", json=asking(TEXTS[2]))
            assert stream.text.count("event: end") == 1
    finally:
        serve.shutdown()
        ray.shutdown()


async def _ask_all(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        ask = partial(client.post, "/translate")
        answers = await asyncio.gather(*(ask(json=asking(text)) for text in TEXTS))
    assert [answer.json() for answer in answers] == [{"translatedText": expected()[text]} for text in TEXTS]


def _replicas() -> list[int]:
    import psutil

    return [
        process.pid
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
        and any("ServeReplica:default:crossmask" in part for part in process.cmdline())
    ]
