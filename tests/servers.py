"""Servers of a tiny model: in this process, and listening on a loopback port."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache

import httpx2 as httpx
from streaming_cases import tiny

from crossmask import translate_batch
from crossmask.inference.generate_translator import GenerateTranslator
from crossmask.server import LanguagePair, Settings, create_app
from crossmask.server.models import TextModel

WORDS = ["a", "small", "dog", "barks", "loudly", "at", "two", "cats", "the", "old", "man", "reads", "on", "train"]
TEXTS = [" ".join(WORDS[start : start + count]) for start in range(0, 12) for count in (1, 3, 6)]
PAIRS = (LanguagePair("en", "de"), LanguagePair("en", "fr", prefix="two old "))


def asking(q, **fields) -> dict:
    """The fields of a request for a translation."""
    return {"q": q, "source": "en", "target": "de", **fields}


small = cache(tiny)
"""An untrained model that writes varied words, and its tokenizer."""


@cache
def expected() -> dict[str, str]:
    """By text, what the model translates it to."""
    outputs = translate_batch(*small(), TEXTS, progress=False)
    return dict(zip(TEXTS, outputs, strict=True))


def translating(**options) -> TextModel:
    """The small model, for translation."""
    return TextModel(GenerateTranslator(*small()), "tiny", "translation", PAIRS, options)


class HeldModel(TextModel):
    """Computes a batch only when `go` is set, and counts the batches that it was given."""

    def __init__(self):
        super().__init__(GenerateTranslator(*small()), "held", "translation", PAIRS)
        self.go = threading.Event()
        self.batches: list[int] = []

    def run(self, payloads, batch_tokens):
        self.batches.append(len(payloads))
        assert self.go.wait(20)
        return super().run(payloads, batch_tokens)


@asynccontextmanager
async def in_process(model, settings: Settings | None = None) -> AsyncIterator:
    """A client whose requests an application in this process answers; `client.service` is the application's."""
    app = create_app(model, settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30) as client,
    ):
        client.service = app.state.service
        yield client


def asked(model, settings: Settings | None, *requests: dict, path: str = "/translate") -> list:
    """The answers to POSTs, one after the other."""

    async def ask():
        async with in_process(model, settings) as client:
            return [await client.post(path, **request) for request in requests]

    return asyncio.run(ask())


def events(text: str) -> list[tuple[str, dict]]:
    """The events of a stream: their names, `message` by default, and their data."""
    found = []
    for block in text.split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((lines.get("event", "message"), json.loads(lines["data"])))
    return found


class Listening:
    """A server on a loopback port."""

    def __init__(self, app, settings: Settings):
        from crossmask.server.run import make_server

        self.service, self.server = app.state.service, make_server(app, settings, "127.0.0.1", 0)
        self.server.config.log_config = None
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        wait_for(lambda: self.server.started)
        self.address = self.server.servers[0].sockets[0].getsockname()[:2]
        self.url = f"http://127.0.0.1:{self.address[1]}"

    def end(self) -> None:
        """What SIGTERM does."""
        self.server.should_exit = True


@contextmanager
def listening(model, settings: Settings | None = None) -> Iterator[Listening]:
    """A server of a model for the time of a block."""
    settings = settings or Settings()
    server = Listening(create_app(model, settings), settings)
    try:
        yield server
    finally:
        server.end()
        server.thread.join(20)
        assert not server.thread.is_alive()


def wait_for(condition, seconds: float = 20) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.005)
