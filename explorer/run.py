"""The server, and where it listens."""

from typing import Any

from ..serving.libraries import require
from .model import ExploredModel

_HEAD = 16384  # bytes of a request's head
_READ_TIMEOUT = 10.0  # seconds in which it must arrive


def check_libraries() -> None:
    """Refuse to go on without the libraries of a server.

    Raises:
        MissingLibraryError: one is not installed; the message has the command that installs it.
    """
    for name in ("starlette", "uvicorn"):
        require(name, "serve", "show the explorer")


def make_server(model: ExploredModel, host: str, port: int) -> Any:
    """A `uvicorn.Server` that has not begun. Raises MissingLibraryError."""
    check_libraries()
    import uvicorn

    from ..server.run import TimedProtocol
    from .app import build_app

    protocol = type("TimedProtocol", (TimedProtocol,), {"read_timeout": _READ_TIMEOUT})
    return uvicorn.Server(
        uvicorn.Config(
            build_app(model, host),
            host=host,
            port=port,
            http=protocol,
            ws="none",
            h11_max_incomplete_event_size=_HEAD,
            timeout_graceful_shutdown=3,
            log_level="warning",
            access_log=False,  # the page asks after every change of a text
            server_header=False,
        )
    )


def serve(model: ExploredModel, *, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Show the explorer until SIGINT or SIGTERM.

    Raises:
        MissingLibraryError: the extra `serve` is not installed.
        OSError: the address cannot be listened at.
    """
    server = make_server(model, host, port)
    from ..server.run import check_address  # needs uvicorn

    check_address(host, port)
    server.run()
