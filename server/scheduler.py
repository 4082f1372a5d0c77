"""One thread that owns the model, and what waits for it: dynamic batches by tokens and deadline.

All state is the event loop's. The thread gets one batch, or one call, at a time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any, TypeVar

Result = TypeVar("Result")
_END = object()


@dataclass(frozen=True)
class Encoded:
    """An input as the model takes it, and how many tokens it has."""

    payload: Any
    tokens: int


@dataclass(eq=False)
class _Waiting:
    encoded: Encoded
    future: "asyncio.Future[Any]"
    arrived: float = field(default_factory=time.monotonic)


class Scheduler:
    """Collects inputs to batches and has them computed, in the order in which they arrive.

    A batch begins when it has `batch_tokens`, or when its first input has waited for `max_delay`. While one is
    computed the next one fills. An input whose caller was cancelled leaves the queue at once; one that is being
    computed already is computed to its end, and its result is dropped.

    Args:
        run: from payloads to results, one for each; called in the thread that owns the model.
        batch_tokens: in a batch; an input with more has a batch of its own.
        max_delay: seconds.
        on_batch: told the inputs, tokens and seconds of each batch that was computed.
    """

    def __init__(
        self,
        run: Callable[[list[Any]], list[Any]],
        batch_tokens: int,
        max_delay: float,
        on_batch: Callable[[int, int, float], None] = lambda inputs, tokens, seconds: None,
    ):
        self.run, self.batch_tokens, self.max_delay, self.on_batch = run, batch_tokens, max_delay, on_batch
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self.waiting: dict[_Waiting, None] = {}
        self.changed = asyncio.Event()
        self.dispatcher: asyncio.Task[None] | None = None
        self.seconds_per_token = 0.0

    def start(self) -> None:
        """Begin to compute. Must be called in the event loop."""
        self.dispatcher = asyncio.create_task(self._dispatch())

    @property
    def is_running(self) -> bool:
        return self.dispatcher is not None and not self.dispatcher.done()

    @property
    def seconds_to_empty(self) -> float:
        """About how long what is waiting now will take."""
        return self._tokens_waiting() * self.seconds_per_token

    async def submit(self, inputs: Sequence[Encoded]) -> list[Any]:
        """The results of inputs, in their order. Raises what `run` raises for one of them."""
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(encoded, loop.create_future()) for encoded in inputs]
        self.waiting.update(dict.fromkeys(waiting))
        self.changed.set()
        try:
            if waiting:
                await asyncio.wait([item.future for item in waiting])
        finally:
            for item in waiting:
                self.waiting.pop(item, None)
                item.future.cancel()
        errors = [error for item in waiting if (error := item.future.exception()) is not None]
        if errors:
            raise errors[0]
        return [item.future.result() for item in waiting]

    async def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The result of a function that is called in the thread that owns the model, between batches."""
        return await asyncio.get_running_loop().run_in_executor(self.worker, function, *arguments)

    async def stream(self, begin: Callable[[], Iterator[Result]], timeout: float) -> AsyncIterator[Result]:
        """The items of an iterator that is made and advanced in the thread that owns the model.

        Nothing else is computed until it ends, or until what this returns is closed.

        Raises:
            TimeoutError: it has not ended after `timeout` seconds; it is stopped at its next item.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        items: asyncio.Queue[Any] = asyncio.Queue()
        closed = Event()

        def advance() -> None:
            iterator = begin()
            for item in iterator:
                if closed.is_set():
                    getattr(iterator, "close", lambda: None)()
                    return
                loop.call_soon_threadsafe(items.put_nowait, item)

        advancing = loop.run_in_executor(self.worker, advance)
        advancing.add_done_callback(lambda _: items.put_nowait(_END))
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    item = await items.get()
                if item is _END:
                    break
                yield item
            advancing.result()  # raises what the iterator raised
        finally:
            closed.set()
            advancing.cancel()  # if it has not begun

    async def close(self) -> None:
        """End when all that was submitted is computed."""
        while self.waiting and self.is_running:
            self.changed.set()
            await asyncio.wait([item.future for item in self.waiting])
        if self.dispatcher is not None:
            self.dispatcher.cancel()
            await asyncio.wait([self.dispatcher])
        await asyncio.to_thread(self.worker.shutdown)

    async def _dispatch(self) -> None:
        while True:
            await self._fill()
            batch = self._take()
            if len(batch) > 1 and not await self._compute(batch, raises=False):
                for item in batch:  # so that one input does not fail the others
                    await self._compute([item], raises=True)
            elif len(batch) == 1:
                await self._compute(batch, raises=True)

    async def _fill(self) -> None:
        """Wait until a batch is to begin, or until nothing waits any more."""
        while not self.waiting:
            self.changed.clear()
            await self.changed.wait()
        deadline = next(iter(self.waiting)).arrived + self.max_delay
        while self.waiting and self._tokens_waiting() < self.batch_tokens:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            self.changed.clear()
            changed = asyncio.ensure_future(self.changed.wait())
            try:
                await asyncio.wait([changed], timeout=remaining)
            finally:
                changed.cancel()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        tokens = 0
        for item in self.waiting:
            tokens += item.encoded.tokens
            if batch and tokens > self.batch_tokens:
                break
            batch.append(item)
        for item in batch:
            del self.waiting[item]
        return batch

    async def _compute(self, batch: list[_Waiting], raises: bool) -> bool:
        """Compute a batch and hand out its results, or its error if `raises`; whether there was none."""
        began = time.monotonic()
        work = asyncio.get_running_loop().run_in_executor(self.worker, self.run, [i.encoded.payload for i in batch])
        await asyncio.wait([work])
        error = work.exception()
        for index, item in enumerate(batch):
            if item.future.done():  # its caller was cancelled
                continue
            if error is None:
                item.future.set_result(work.result()[index])
            elif raises:
                item.future.set_exception(error)
        if error is None:
            seconds, tokens = time.monotonic() - began, sum(item.encoded.tokens for item in batch)
            self.seconds_per_token += 0.2 * (seconds / max(1, tokens) - self.seconds_per_token)
            self.on_batch(len(batch), tokens, seconds)
        return error is None

    def _tokens_waiting(self) -> int:
        return sum(item.encoded.tokens for item in self.waiting)
