"""A WebSocket that takes source words as they come, and gives target words back as soon as the policy lets it.

The first message says how: `{"source": "en", "target": "de", "policy": "wait_k", "k": 3}`, or `"policy": "align_att",
"f": 2`, with `api_key` where the server asks for one. Then each message is `{"words": "A dog"}`, and `"ended": true`
with the last words of a text. Each is answered by `{"words": [...], "read": 2, "finished": false}`. After the end of a
text the next one may begin.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from ..inference.texts import encode, tokenizers_of
from ..seq2seq.simultaneous.policies import AlignAtt
from ..streaming.text import TextStream
from ..utils.errors import InputError
from ..utils.text import check_text, is_blank
from .errors import ApiError, as_bad_request, bad_request, too_large
from .fields import brief, check_known, json_object
from .libretranslate import find_pair
from .models import TextModel, check_tokens
from .service import Service

_START = ("source", "target", "policy", "api_key")
_OPTIONS = {"wait_k": ("k", 1), "align_att": ("f", 0)}
_MOST = 1000  # of k and of f
# Close codes of RFC 6455, by the status that an answer over HTTP would have.
_CLOSE_CODES = {400: 1008, 403: 1008, 408: 1001, 413: 1009, 429: 1013, 503: 1013}


def simultaneous_routes(service: Service, model: TextModel) -> APIRouter:
    """/translate/simultaneous."""
    router = APIRouter()

    @router.websocket("/translate/simultaneous")
    async def simultaneous(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await _converse(socket, service, model)
            code = 1001  # the server ends
        except WebSocketDisconnect:
            return
        except ApiError as error:
            code = _CLOSE_CODES[error.status]
            retry = {} if error.retry_after is None else {"retry_after": error.retry_after}
            await _send(socket, {**error.body, "status": error.status, **retry})
        await _close(socket, code)

    return router


async def _converse(socket: WebSocket, service: Service, model: TextModel) -> None:
    """Serve one connection, text after text, until it ends or the server does."""
    start = await _receive(socket, service, service.settings.read_timeout)
    if start is None:
        return
    if socket.scope["query_string"]:
        raise bad_request("the URL must be without a query, got one; send the fields in the first message")
    service.admit(socket, start)
    options = _options(start)
    prefix = model.prefix + find_pair(start, model.pairs).prefix
    if model.engine != "torch":
        raise bad_request(
            f"the engine must be torch for simultaneous translation, got {model.engine}; call /translate"
        )
    with service.streams.take():
        text = await service.call(_Text, model, prefix, options)
        await _send(socket, {"ready": True})
        while (message := await _receive(socket, service, service.settings.idle_timeout)) is not None:
            words, ended = _words(message, text, service)
            written = await service.call(text.push, words, ended)
            await _send(socket, {"words": written, "read": text.read, "finished": text.finished})
            if ended:
                text = await service.call(_Text, model, prefix, options)


class _Text:
    """One text that is translated while it arrives. Its methods are called in the thread of the model.

    Raises:
        ApiError: 400 for a policy that the model cannot follow, or words that it cannot take.
    """

    def __init__(self, model: TextModel, prefix: str, options: dict[str, Any]):
        translator: Any = model.translator  # of PyTorch
        self.model: Any = translator.model
        self.waiting: list[str] = []
        self.read, self.characters = 0, 0
        self.tokenizer, self.limit = tokenizers_of(translator.tokenizer)[0], translator.max_source_length
        self.ended_blank = False
        self.looks_at_attention = "policy" in options
        with as_bad_request(ValueError), self._attention():
            self.stream = TextStream(self.model, model.translator.tokenizer, prefix=prefix, **options)

    @property
    def finished(self) -> bool:
        return self.ended_blank or self.stream.finished[0]

    def push(self, words: list[str], ended: bool) -> list[str]:
        """The target words that source words complete."""
        self.read += len(words)
        if self.finished:
            return []
        self.waiting += words
        source = self.stream.source[0]
        if not source and is_blank(" ".join(self.waiting)):  # as everywhere, it stays blank
            self.ended_blank = ended
            return []
        words, self.waiting = self.waiting, []
        whole = " ".join([*source, *words])
        (ids,) = encode(self.tokenizer, [whole], self.stream.prefix)
        check_tokens(ids, self.limit, "the words of a text", whole, self.tokenizer)
        with as_bad_request(ValueError), self._attention():
            return self.stream.push([words], ended=ended)[0]

    @contextmanager
    def _attention(self) -> Iterator[None]:
        """The backend that gives attention weights, for a policy that asks for them; else the model's own."""
        own = self.model.config._attn_implementation
        if not self.looks_at_attention or own == "eager":
            yield
            return
        self.model.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.model.set_attn_implementation(own)


def _options(start: dict[str, Any]) -> dict[str, Any]:
    """Options of a `TextStream` by the policy that a first message names. Raises ApiError 400."""
    policy = start.get("policy")
    if not isinstance(policy, str) or policy not in _OPTIONS:
        raise bad_request(f"policy must be one of {', '.join(_OPTIONS)}, got {brief(policy)}; give one")
    name, lowest = _OPTIONS[policy]
    check_known(start, (*_START, name))
    value = start.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= _MOST:
        raise bad_request(
            f"{name} must be a whole number from {lowest} to {_MOST} for {policy}, got {brief(value)}; give one"
        )
    return {"cross_mask": f"wait_k({value})"} if policy == "wait_k" else {"policy": AlignAtt(value)}


def _words(message: dict[str, Any], text: _Text, service: Service) -> tuple[list[str], bool]:
    """The words of a message, and whether they are the last of their text. Raises ApiError: 400, 413."""
    check_known(message, ("words", "ended"))
    words, ended = message.get("words", ""), message.get("ended", False)
    if not isinstance(words, str | list):
        raise bad_request(f"words must be a text or a list of texts, got {brief(words)}; give one, or leave it out")
    named = {"words": words} if isinstance(words, str) else {f"words[{i}]": word for i, word in enumerate(words)}
    for name, word in named.items():
        if not isinstance(word, str):
            raise bad_request(f"{name} must be text, got {brief(word)}; put it in quotes")
        with as_bad_request(InputError):
            check_text(word, name)
    if not isinstance(ended, bool):
        raise bad_request(f"ended must be true or false, got {brief(ended)}; give one, or leave it out")
    joined = " ".join(named.values())
    text.characters += len(joined)
    if text.characters > service.settings.max_characters:
        raise too_large(
            f"the words of a text must have at most {service.settings.max_characters} characters, got "
            f"{text.characters}; end it"
        )
    return joined.split(), ended


async def _receive(socket: WebSocket, service: Service, timeout: float) -> dict[str, Any] | None:
    """The next message, or None when the server is told to end.

    Raises:
        ApiError: 400, 408, 413. WebSocketDisconnect: the client has gone.
    """
    receiving = asyncio.ensure_future(socket.receive())
    draining = asyncio.ensure_future(service.is_draining.wait())
    try:
        await asyncio.wait([receiving, draining], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            if draining.done():
                return None
            raise ApiError(408, f"a message must come within {timeout:g} seconds, got none; open another connection")
        message = receiving.result()
    finally:
        receiving.cancel()
        draining.cancel()
        await asyncio.wait([receiving, draining])
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    body = (message.get("bytes") or b"") if text is None else text.encode(errors="surrogatepass")
    if len(body) > service.settings.max_body:
        raise too_large(
            f"a message must have at most {service.settings.max_body} bytes, got {len(body)}; send several"
        )
    return json_object(body, "a message")


async def _send(socket: WebSocket, values: dict[str, Any]) -> None:
    """Send a message; a client that has gone is not an error of the server."""
    try:
        await socket.send_text(json.dumps(values, ensure_ascii=False))
    except (RuntimeError, OSError) as error:  # how Starlette and uvicorn say so
        raise WebSocketDisconnect(1006) from error


async def _close(socket: WebSocket, code: int) -> None:
    try:
        await socket.close(code)
    except (RuntimeError, OSError):
        return
