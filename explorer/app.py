"""The server's side: the page's files, and what the page asks a model."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..masks import MaskError
from ..server.bodies import read_body
from ..server.errors import ApiError, ClientGone, bad_request, one_line
from ..utils.errors import InputError
from .model import ExploredModel
from .page_files import PAGE, POLICY
from .question import Question

BODY_LIMIT = 2**15
"""Bytes of a request: a sentence and three masks."""
QUEUE_LIMIT = 8
"""Requests that wait for the model at a time, streams included."""
BODY_TIMEOUT = 10.0
"""Seconds in which the body of a request must arrive."""

logger = logging.getLogger(__name__)
_BUG = "the explorer failed, which is a bug; it printed where, please report that. Another sentence or mask may work"
_OF_A_QUESTION = (InputError, MaskError)
"""The errors that a question can cause. Any other is a bug."""

Handler = Callable[[Request], Awaitable[Response]]
Method = Callable[[Request, Question], Awaitable[Response]]


def build_app(model: ExploredModel, host: str = "127.0.0.1") -> "Guarded":
    """The ASGI application for a model.

    Args:
        host: that it listens at. At a loopback address requests under another name are refused, which is how a page
            of another site would reach it (DNS rebinding).
    """
    answering = _Answering(model)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with answering.pool:
            yield

    routes = [
        Route("/api/facts", answering.facts),
        *(
            Route(f"/api/{name}", answering.to(getattr(answering, name)), methods=["POST"])
            for name in ("source", "translate", "audit", "stream")
        ),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={Exception: _answer_to_a_bug})
    return Guarded(app, is_loopback=is_loopback(host))


async def _answer_to_a_bug(request: Request, error: Exception) -> Response:
    """What the page shows; Starlette raises the error again, so that uvicorn prints it."""
    return JSONResponse({"error": _BUG}, 500)


class _Answering:
    """Asks the model in one thread, a request after the other."""

    def __init__(self, model: ExploredModel):
        self.model, self.pool, self.turn, self.taken = model, ThreadPoolExecutor(1), asyncio.Lock(), 0

    async def call(self, request: Request | None, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives, in the model's thread; nothing is computed for a page that no longer waits."""
        async with self.turn:
            if request is not None and await request.is_disconnected():
                raise ClientGone
            return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    def to(self, method: Method) -> Handler:
        """From a method that takes a question to a handler of requests, with errors as JSON."""

        async def handle(request: Request) -> Response:
            try:
                question = await _question(request)
                if self.taken >= QUEUE_LIMIT:
                    raise ApiError(503, f"{QUEUE_LIMIT} requests are waiting already; try again in a few seconds")
                self.taken += 1
                try:
                    return await method(request, question)
                finally:
                    self.taken -= 1
            except ClientGone:
                return Response(status_code=499)  # which nobody reads
            except ApiError as error:
                return JSONResponse(error.body, error.status, error.headers)
            except _OF_A_QUESTION as error:
                return JSONResponse({"error": one_line(error)}, 400)

        return handle

    async def facts(self, request: Request) -> Response:
        return JSONResponse(await self.call(request, lambda: self.model.facts))

    async def source(self, request: Request, question: Question) -> Response:
        _, tokens = await self.call(request, self.model.source, question.text)
        return JSONResponse({"tokens": tokens})

    async def translate(self, request: Request, question: Question) -> Response:
        return JSONResponse(await self.call(request, self.model.translate, question))

    async def audit(self, request: Request, question: Question) -> Response:
        return JSONResponse(await self.call(request, self.model.audit, question))

    async def stream(self, request: Request, question: Question) -> Response:
        events = self.model.stream(question)
        first = await self.call(request, next, events, None)  # whose errors are an answer with a status

        async def lines() -> AsyncIterator[str]:
            self.taken += 1
            try:
                event = first
                while event is not None:
                    yield json.dumps(event, ensure_ascii=False) + "\n"
                    if question.pause and not event["finished"]:
                        await asyncio.sleep(question.pause)
                    event = await self.next_event(events)
            finally:
                self.taken -= 1

        return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"X-Accel-Buffering": "no"})

    async def next_event(self, events: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
        """The next event of a stream, or one with an error: the answer has begun, so that it cannot have a status."""
        call = asyncio.ensure_future(self.call(None, next, events, None))
        await asyncio.wait([call])
        error = call.exception()
        if error is None:
            return call.result()
        if not isinstance(error, _OF_A_QUESTION):
            logger.error("an error in a stream", exc_info=error)
        return {"error": one_line(error) if isinstance(error, _OF_A_QUESTION) else _BUG, "finished": True}


async def _question(request: Request) -> Question:
    # Of this type only: a page of another site cannot send it without asking first.
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ApiError(415, "a request must be application/json")
    body = await read_body(request, limit=BODY_LIMIT, timeout=BODY_TIMEOUT, fix="shorten the sentence or the masks")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise bad_request("a request must be JSON") from None
    return Question.read(given)


class Guarded:
    """An application behind a check of the Host header, with headers of security on every answer."""

    def __init__(self, app: Any, is_loopback: bool):
        self.app, self.is_loopback = app, is_loopback
        # Elsewhere, as in a Space of the Hub, the page may be in a frame.
        policy = f"{POLICY}; frame-ancestors 'none'" if is_loopback else POLICY
        self.headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-cache",
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.is_loopback and not is_loopback(_host_of(scope)):
            reason = "the explorer listens at this machine only; open it as http://localhost or http://127.0.0.1"
            await JSONResponse({"error": reason}, 421)(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own; no other name counts, whatever it resolves to."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_of(scope: Any) -> str:
    """The name in the Host header, without the port."""
    header = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
    if header.startswith("["):
        return header.partition("]")[0].removeprefix("[")
    return header.partition(":")[0]
