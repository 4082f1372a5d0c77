"""What a server answers with where it cannot do what was asked: LibreTranslate's form, `{"error": ...}`."""

import math
from collections.abc import Iterator
from contextlib import contextmanager


class ApiError(Exception):
    """An answer with a status that is not 200.

    Args:
        status: of HTTP. message: what was given, what was expected and how to fix it, on one line.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.status, self.message = status, message
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))

    @property
    def headers(self) -> dict[str, str]:
        retry = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        # What is left of such a request may still arrive.
        return {**retry, **({"Connection": "close"} if self.status in (408, 413) else {})}

    @property
    def body(self) -> dict[str, str]:
        return {"error": one_line(self.message)}


class ClientGone(Exception):
    """The client closed its connection before it was answered."""


def bad_request(message: str) -> ApiError:
    """400: the request is not what the endpoint takes."""
    return ApiError(400, message)


@contextmanager
def as_bad_request(*errors: type[Exception]) -> Iterator[None]:
    """Answer errors of these classes with 400, in a block."""
    try:
        yield
    except errors as error:
        raise bad_request(str(error)) from error


def too_large(message: str) -> ApiError:
    """413: the request is more than the server takes."""
    return ApiError(413, message)


def one_line(text: object) -> str:
    """Text for an answer: one line of valid Unicode."""
    return " ".join(str(text).encode(errors="backslashreplace").decode().split())
