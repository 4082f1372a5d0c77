"""The application: the endpoints that the model has, errors in LibreTranslate's form, metrics and health."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from .. import __version__
from .errors import ApiError, ClientGone, one_line
from .libretranslate import translation_routes
from .metrics import MeasuredRequests
from .models import ServedModel, TextModel
from .service import Service
from .settings import Settings
from .simultaneous import simultaneous_routes
from .texts import answer_routes, summarization_routes

_DESCRIPTION = """Errors are `{"error": ...}`, as LibreTranslate gives them, with `Retry-After` where it helps to wait.

A WebSocket at `/translate/simultaneous` of a translation model takes words as they come; docs/server.md says how."""


def build_app(model: ServedModel, settings: Settings) -> FastAPI:
    """The application for a model. `app.state.service` is its `Service`."""
    service = Service(model, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title=f"crossmask: {model.task}",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.service = service
    _add_errors(app)
    _add_observation(app, service)
    if isinstance(model, TextModel) and model.task == "translation":
        app.include_router(translation_routes(service, model))
        app.include_router(simultaneous_routes(service, model))
    elif isinstance(model, TextModel) and model.task == "summarization":
        app.include_router(summarization_routes(service, model))
    else:
        app.include_router(answer_routes(service, model))  # type: ignore[arg-type]  # of one of the two classes
    app.add_middleware(MeasuredRequests, metrics=service.metrics)
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(ClientGone)
    async def gone(request: Request, error: ClientGone) -> Response:
        return Response(status_code=499)  # which nobody reads, but the metrics have it

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        reason = f"{request.method} {request.url.path[:80]!r}: {error.detail}; see /docs for what there is"
        return JSONResponse({"error": one_line(reason)}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:  # Starlette raises it again, and uvicorn logs it
        return JSONResponse({"error": "the server failed, which is logged; try again later"}, 500)


def _add_observation(app: FastAPI, service: Service) -> None:
    model = service.model

    @app.get("/health", tags=["server"], summary="Whether requests are answered")
    async def health() -> Response:
        is_well = service.scheduler.is_running and not service.is_draining.is_set()
        facts: dict[str, Any] = {"task": model.task, "engine": model.engine, "dtype": model.dtype}
        return JSONResponse({"status": "ok" if is_well else "ending", **facts}, 200 if is_well else 503)

    @app.get("/metrics", tags=["server"], summary="Measurements in Prometheus' format")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=service.metrics.content_type)
