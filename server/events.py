"""Server-Sent Events: an output a piece at a time."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi.responses import StreamingResponse

from .errors import one_line
from .service import OpenStream

EXAMPLE = 'data: {"text": "Ein"}\n\ndata: {"text": " Hund"}\n\nevent: end\ndata: {"translatedText": "Ein Hund"}\n\n'


class EventStream(StreamingResponse):
    """The pieces of a stream as events: `{"text": piece}` each, then `end` with the whole, or `error`.

    Args:
        whole: from the whole text to what the event `end` has.
    """

    def __init__(self, stream: OpenStream, whole: Callable[[str], dict[str, Any]]):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # so that proxies pass each on at once
        super().__init__(_events(stream, whole), media_type="text/event-stream", headers=headers)
        self.stream = stream

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:  # also where the client is gone before the first event
            await self.stream.close()


async def _events(stream: OpenStream, whole: Callable[[str], dict[str, Any]]) -> AsyncIterator[str]:
    text = ""
    try:
        async for piece in stream:
            text += piece
            yield _event({"text": piece})
    except TimeoutError:
        yield _event({"error": one_line("the output must be complete in time, got a part of it; shorten it")}, "error")
        return
    yield _event(whole(text), "end")


def _event(data: dict[str, Any], name: str | None = None) -> str:
    line = f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
    return line if name is None else f"event: {name}\n{line}"
