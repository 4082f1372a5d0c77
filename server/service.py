"""The life of a request: who asks, a place, its tokens, its batch, its answer; and what ends it early."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import HTTPConnection

from .errors import ApiError, ClientGone, bad_request
from .fields import read_fields
from .limits import ApiKeys, Places, RateLimiter
from .metrics import Metrics
from .models import ServedModel, TextModel
from .scheduler import Scheduler
from .settings import Settings

Result = TypeVar("Result")


class Service:
    """A model with its queue and its limits.

    Attributes:
        texts, streams: the places for those.
        is_draining: set when the server is told to end: streams of words then end after what they were given.
    """

    def __init__(self, model: ServedModel, settings: Settings):
        self.model, self.settings = model, settings
        self.keys, self.rate = ApiKeys(settings.api_keys), RateLimiter(settings.requests_per_minute)
        self.texts = Places(settings.max_queue, "texts", lambda: self.scheduler.seconds_to_empty)
        self.streams = Places(settings.max_streams, "streams")
        self.metrics = Metrics(
            lambda: len(self.scheduler.waiting), lambda: self.texts.taken, lambda: self.streams.taken
        )
        self.is_draining = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The threads of the model and of its tokenizer, for the time of a block; at its end all is computed."""
        settings = self.settings
        run = partial(self.model.run, batch_tokens=settings.batch_tokens)
        self.scheduler = Scheduler(run, settings.batch_tokens, settings.max_delay, self.metrics.on_batch)
        self.encoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")
        self.scheduler.start()
        try:
            yield
        finally:
            await self.scheduler.close()
            self.encoder.shutdown()

    async def fields(self, request: Request, *known: str, lists: Sequence[str] = ()) -> dict[str, Any]:
        """The fields of a request whose client may ask. Raises ApiError."""
        fields = await read_fields(request, self.settings, known, lists)
        self.admit(request, fields)
        return fields

    def admit(self, connection: HTTPConnection, fields: dict[str, Any]) -> None:
        """Take the key out of the fields of a request, check it and count the request.

        Raises:
            ApiError: 400 for a key that is not text, 403, 429, or 503 at the server's end.
        """
        key = fields.pop("api_key", None)
        if key is not None and not isinstance(key, str):
            raise bad_request(f"api_key must be text, got {type(key).__name__}; put it in quotes")
        if self.is_draining.is_set():
            raise ApiError(503, "the server must be running, got its end; ask again later", 5)
        scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            bearer = ""
        address = connection.client.host if connection.client else "unknown"
        self.rate.check(self.keys.client(key or bearer.strip(), address))

    async def answers(self, request: Request, inputs: Sequence[Any], **options: Any) -> list[Any]:
        """The model's results for inputs.

        Args:
            options: of the model's `encode`.

        Raises:
            ApiError: 400 or 413 for an input, 503 where there is no place, or where it takes too long.
            ClientGone: the client went away, and its inputs left the queue.
        """
        with self.texts.take(len(inputs)):
            return await self._in_time(_unless_gone(request, self._compute(inputs, options)))

    async def stream(self, request: Request, text: str, model: TextModel, **options: Any) -> "OpenStream":
        """The model's output for one text, a piece at a time; the first piece is there already when this returns.

        Args:
            options: of the model's `encode` and `stream`.

        Raises:
            ApiError, ClientGone: as `answers`, before the first piece.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(self.streams.take())
            await self._encode([text], options)  # to refuse what the model cannot take
            generator: Any = self.scheduler.stream(partial(model.stream, text, **options), self.settings.timeout)
            stream = await stack.enter_async_context(aclosing(generator))
            first = await self._in_time(_unless_gone(request, _next(stream)))
            return OpenStream(first, stream, stack.pop_all().aclose)

    async def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """A call in the thread of the model, in time. Raises ApiError 503 where it takes too long."""
        return await self._in_time(self.scheduler.call(function, *arguments))

    async def _compute(self, inputs: Sequence[Any], options: dict[str, Any]) -> list[Any]:
        return await self.scheduler.submit(await self._encode(inputs, options))

    async def _encode(self, inputs: Sequence[Any], options: dict[str, Any]) -> Any:
        encode = partial(self.model.encode, inputs, **options)
        return await asyncio.get_running_loop().run_in_executor(self.encoder, encode)

    async def _in_time(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            async with asyncio.timeout(self.settings.timeout):
                return await work
        except TimeoutError:
            raise ApiError(
                503,
                f"the answer must be there within {self.settings.timeout:g} seconds, got none; try again later",
                self.scheduler.seconds_to_empty,
            ) from None


@dataclass
class OpenStream:
    """Pieces of an output that is being written.

    Attributes:
        first: the first one, None if there is none. rest: the others.
        close: stops writing and gives the place of the stream back; must be awaited.
    """

    first: str | None
    rest: AsyncIterator[str]
    close: Callable[[], Awaitable[None]]

    async def __aiter__(self) -> AsyncIterator[str]:
        if self.first is not None:
            yield self.first
        async for piece in self.rest:
            yield piece


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns; it is cancelled when the client closes its connection. Raises ClientGone."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.wait([working, gone])


async def _next(stream: AsyncIterator[str]) -> str | None:
    return await anext(stream, None)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
