"""What Prometheus is told of a server: no texts, no keys, no addresses."""

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The measurements of one application.

    Args:
        waiting, texts, streams: called for how many texts wait, how many were accepted and not yet answered, and how
            many streams are open.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], int], texts: Callable[[], int], streams: Callable[[], int]):
        self.registry = CollectorRegistry()
        options: Any = {"registry": self.registry}
        self.requests = Counter(
            "crossmask_requests", "Requests by endpoint and status.", ["path", "status"], **options
        )
        self.seconds = Histogram(
            "crossmask_request_seconds",
            "From a request to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            **options,
        )
        self.batch_texts = Histogram("crossmask_batch_texts", "Texts in a batch.", buckets=_TEXTS, **options)
        self.batch_seconds = Histogram("crossmask_batch_seconds", "Seconds of a batch.", buckets=_SECONDS, **options)
        self.tokens = Counter("crossmask_source_tokens", "Source tokens that were computed.", **options)
        for name, what, count in (
            ("waiting_texts", "Texts that wait for the model.", waiting),
            ("accepted_texts", "Texts that were accepted and are not yet answered.", texts),
            ("open_streams", "Streams of tokens and of words.", streams),
        ):
            Gauge(f"crossmask_{name}", what, **options).set_function(count)

    def on_batch(self, inputs: int, tokens: int, seconds: float) -> None:
        """Count a batch that was computed."""
        self.batch_texts.observe(inputs)
        self.batch_seconds.observe(seconds)
        self.tokens.inc(tokens)

    def text(self) -> bytes:
        """All of them in Prometheus' format."""
        return generate_latest(self.registry)


class MeasuredRequests:
    """ASGI middleware that counts HTTP requests, by the path of the endpoint and not by that of the request."""

    def __init__(self, app: Any, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.monotonic(), 500

        async def send_and_look(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_look)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - began)
