"""The server, and where it listens."""

from typing import Any

from ..serving.libraries import require
from .loading import load_explored_model
from .model import ExploredModel

_HEAD = 16384  # bytes of a request's head
_READ_TIMEOUT = 10.0  # seconds in which it must arrive


def make_server(model: ExploredModel, host: str, port: int) -> Any:
    """A `uvicorn.Server` that has not begun."""
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


def serve(name: str, *, device: str | None = None, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Load a model, print the address of its page, and serve that until SIGINT or SIGTERM.

    Args:
        name: of the model. device: an accelerator where there is one by default; both as for `load_explored_model`.

    Raises:
        MissingLibraryError: the extra `serve` is not installed.
        OSError: the address cannot be listened at, or the model cannot be fetched.
        InputError, MaskError: the model cannot be shown.
    """
    for library in ("starlette", "uvicorn"):
        require(library, "serve", "show the explorer")
    from ..server.run import check_address, url_of  # which need uvicorn

    check_address(host, port)  # before a model is loaded, which takes long
    server = make_server(load_explored_model(name, device=device), host, port)
    print(url_of(host, port), flush=True)
    server.run()
