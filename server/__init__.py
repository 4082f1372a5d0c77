"""A trained model behind HTTP: LibreTranslate's API, questions, summaries, token streams and simultaneous translation.

The modules with routes import FastAPI, and are themselves imported by `create_app` and `serve` alone, so that this
package can be imported without the extra `serve`.
"""

from typing import Any

from ..serving.libraries import require
from .loading import load_served_model
from .models import ServedModel
from .settings import LanguagePair, Settings

_PURPOSE = "serve a model"

__all__ = ["LanguagePair", "ServedModel", "Settings", "check_libraries", "create_app", "load_served_model", "serve"]


def check_libraries() -> None:
    """Refuse to go on without the libraries of a server.

    Raises:
        MissingLibraryError: one is not installed; the message has the command that installs it.
    """
    for name in ("fastapi", "uvicorn", "websockets", "prometheus_client"):
        require(name, "serve", _PURPOSE)


def create_app(model: ServedModel, settings: Settings | None = None) -> Any:
    """The ASGI application (`fastapi.FastAPI`) for a model; its lifespan owns the thread that runs the model.

    ```python
    >>> model = load_served_model("runs/multi30k-en-de", pairs=[LanguagePair("en", "de")])
    >>> app = create_app(model, Settings(max_texts=32))
    ```

    Raises:
        MissingLibraryError: the extra `serve` is not installed.
    """
    check_libraries()
    from .app import build_app

    return build_app(model, settings or Settings())


def serve(model: ServedModel, settings: Settings | None = None, *, host: str = "127.0.0.1", port: int = 5000) -> None:
    """Serve a model until the process gets SIGINT or SIGTERM; all requests that were accepted are answered first.

    Raises:
        MissingLibraryError: the extra `serve` is not installed.
        OSError: the address cannot be listened at.
    """
    check_libraries()
    from .run import run

    run(create_app(model, settings), settings or Settings(), host, port)
