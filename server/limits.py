"""What a server takes at a time: places for texts and streams, requests a minute, and who may ask."""

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import ApiError

_CLIENTS = 10_000  # whose requests are counted; beyond, those seen longest ago are forgotten


class Places:
    """Places that are taken by what the server has accepted and not yet done.

    Args:
        most: how many there are. name: of what takes them, in errors.
        retry_after: about how many seconds until some are free.
    """

    def __init__(self, most: int, name: str, retry_after: Callable[[], float] = lambda: 1.0):
        self.most, self.name, self.retry_after, self.taken = most, name, retry_after, 0

    @contextmanager
    def take(self, count: int = 1) -> Iterator[None]:
        """Take places for the time of a block. Raises ApiError 503 where not enough are free."""
        if self.taken + count > self.most:
            raise ApiError(
                503,
                f"{self.name} must be at most {self.most} at a time, got {count} with {self.taken} before it; try "
                "again later",
                self.retry_after(),
            )
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count


class RateLimiter:
    """A token bucket for each client: `per_minute` requests at once, then as they come back.

    Args:
        per_minute: None for any number. clock: seconds.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic):
        self.per_minute, self.clock = per_minute, clock
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and when

    def check(self, client: str) -> None:
        """Count a request. Raises ApiError 429 where a client has none left."""
        if self.per_minute is None:
            return
        now = self.clock()
        left, since = self.buckets.pop(client, (float(self.per_minute), now))
        left = min(self.per_minute, left + (now - since) * self.per_minute / 60)
        self.buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self.buckets) > _CLIENTS:
            self.buckets.popitem(last=False)
        if left < 1:
            raise ApiError(
                429,
                f"requests must be at most {self.per_minute} a minute, got more; slow down",
                (1 - left) * 60 / self.per_minute,
            )


class ApiKeys:
    """The keys with which requests are answered; without any, every request is.

    Only digests are kept, and compared in constant time.
    """

    def __init__(self, keys: frozenset[str]):
        self.digests = [_digest(key) for key in keys]

    def client(self, key: str | None, address: str) -> str:
        """By what the requests of a client are counted: its key, or its address where no keys are asked for.

        Raises:
            ApiError: 403, as LibreTranslate answers, for a key that is missing or unknown.
        """
        if not self.digests:
            return f"address {address}"
        if not key:
            raise ApiError(403, "api_key must be given; ask whoever runs this server for one")
        digest = _digest(key)
        if sum(hmac.compare_digest(digest, known) for known in self.digests) == 0:
            raise ApiError(403, "api_key must be one of this server's, got another; check it")
        return f"key {digest.hex()}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
