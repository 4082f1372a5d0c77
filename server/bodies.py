"""The body of a request, within limits of size and time."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from .errors import ApiError, ClientGone, too_large

_DRAINED = 16  # times the largest body: what is read of one that is too large, so that its sender sees the answer


async def read_body(request: Request, *, limit: int, timeout: float, fix: str) -> bytes:
    """All bytes of a request's body.

    Args:
        limit: bytes at most. timeout: seconds in which all of it must arrive.
        fix: what the sender of a body that is too large should do.

    Raises:
        ApiError: 408 for a body that does not arrive in time, 413 for one that is too large.
        ClientGone: the connection was closed.
    """
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    body += chunk
                elif size > _DRAINED * limit:
                    break
    except ClientDisconnect:
        raise ClientGone from None
    except TimeoutError:
        raise ApiError(
            408, f"the request must arrive within {timeout:g} seconds, got {size} bytes of it; send it again"
        ) from None
    if size > limit:
        raise too_large(f"the body must have at most {limit} bytes, got more; {fix}")
    return bytes(body)
