"""uvicorn with the limits of the server: connections that send nothing are closed, and streams end in order."""

import asyncio
import copy
import logging
import socket
import traceback
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.logging import DefaultFormatter
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .settings import Settings

_HEAD = 16384  # bytes of a request's head, beside a text in its query
_KEEP_ALIVE = 30  # seconds; longer than clients keep idle connections, which then are not closed under a new request
_ENCODED = 12  # of a character of a text, URL-encoded


class TimedProtocol(H11Protocol):
    """Closes a connection on which the head of a request does not arrive in time; uvicorn waits for ever."""

    read_timeout = 10.0
    head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._look_at_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look_at_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _look_at_head(self) -> None:
        """Let the timer run where a request has begun to arrive, or the first has not; uvicorn's is for the others."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering or self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._stop()
        elif self.head_timer is None:
            self.head_timer = self.loop.call_later(self.read_timeout, self.transport.close)

    def _stop(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


class QuietWebSocket(WebSocketsSansIOProtocol):
    """Logs no URLs, as `access_log=False` does for HTTP alone, and closes a connection whose head cannot be read."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.logger = self.conn.logger = logging.getLogger("uvicorn.error.websocket")
        self.logger.setLevel(logging.ERROR)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:  # the whole head is there, with a line that is longer than websockets takes
            self.transport.close()

    def handle_text(self, event: Any) -> None:
        self.handle_bytes(event)  # so that the application answers what is not UTF-8, as over HTTP


class ErrorFormatter(DefaultFormatter):
    """Says of an exception what it is and where it was raised, but not its message, which may have a text."""

    def formatException(self, ei: Any) -> str:
        parts: list[str] = []
        error: BaseException | None = ei[1]
        while error is not None:
            parts = [*traceback.format_tb(error.__traceback__), f"{type(error).__name__}\n", *parts]
            error = error.__cause__ or error.__context__
        return "".join(parts).rstrip()


class Server(uvicorn.Server):
    """Ends in order: what was accepted is answered, and streams of words end after the words that they were given."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        service = app.state.service
        service.is_draining.set()
        deadline = asyncio.get_running_loop().time() + service.settings.timeout
        while service.streams.taken and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


def make_server(app: Any, settings: Settings, host: str, port: int) -> Server:
    """A server that has not begun."""
    protocol = type("TimedProtocol", (TimedProtocol,), {"read_timeout": settings.read_timeout})
    log_config = copy.deepcopy(LOGGING_CONFIG)
    log_config["formatters"]["default"]["()"] = ErrorFormatter
    log_config["loggers"]["asyncio"] = {"handlers": ["default"], "level": "WARNING", "propagate": False}
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=protocol,
            ws=QuietWebSocket,
            ws_max_size=settings.max_body,
            h11_max_incomplete_event_size=_HEAD + _ENCODED * settings.max_characters,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=int(settings.shutdown_timeout),
            access_log=False,  # queries have texts and keys
            log_config=log_config,
            server_header=False,
        )
    )


def run(app: Any, settings: Settings, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM. Raises OSError for an address that cannot be listened at."""
    check_address(host, port)
    make_server(app, settings, host, port).run()


def check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at; uvicorn would end the process with a status of its own.

    Raises:
        OSError: with the address and the reason.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise OSError(
            f"{url_of(host, port)} must be an address at which this machine can listen, got: {error.strerror}; give "
            "another host or port"
        ) from error


def url_of(host: str, port: int) -> str:
    """The address of a server, as a browser takes it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
