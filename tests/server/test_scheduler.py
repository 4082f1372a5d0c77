"""Requests become batches, one thread computes them, and whoever leaves frees their place."""

import asyncio
import dataclasses
import gc
import threading

import pytest

pytest.importorskip("fastapi")

from servers import TEXTS, HeldModel, asked, asking, expected, in_process, translating

from crossmask.server import Settings
from crossmask.server.errors import ApiError
from crossmask.server.limits import ApiKeys, Places, RateLimiter
from crossmask.server.scheduler import Encoded, Scheduler


def scheduled(work, run, **options):
    """What the coroutine function `work` returns, called with a scheduler of `run`."""

    async def main():
        scheduler = Scheduler(run, **{"batch_tokens": 10, "max_delay": 0.02, **options})
        scheduler.start()
        try:
            return await work(scheduler)
        finally:
            await scheduler.close()
            assert not scheduler.waiting

    return asyncio.run(main())


def one(number: int) -> list[Encoded]:
    return [Encoded(number, 4)]


def test_a_batch_is_full_at_its_tokens_and_one_input_may_have_more():
    batches = []

    def run(numbers):
        batches.append(numbers)
        return [number * 2 for number in numbers]

    async def work(scheduler):
        several = scheduler.submit([Encoded(number, 4) for number in range(5)])
        return await asyncio.gather(several, scheduler.submit([Encoded(5, 50)]), scheduler.submit(one(6)))

    assert scheduled(work, run) == [[0, 2, 4, 6, 8], [10], [12]]
    assert batches == [[0, 1], [2, 3], [4], [5], [6]]


def test_an_input_waits_for_others_until_its_deadline_only():
    batches, times = [], {}

    def run(numbers):
        batches.append(numbers)
        return numbers

    async def work(scheduler):
        loop = asyncio.get_running_loop()
        first = asyncio.ensure_future(scheduler.submit([Encoded(0, 1)]))
        began = loop.time()
        await asyncio.sleep(0.02)
        await scheduler.submit([Encoded(1, 1)])
        times["both"] = loop.time() - began
        await first

    scheduled(work, run, max_delay=0.2)
    assert batches == [[0, 1]]
    assert times["both"] >= 0.19


def test_one_thread_computes_everything_and_one_thing_at_a_time():
    threads, running = set(), []

    def run(numbers):
        threads.add(threading.get_ident())
        running.append(1)
        assert len(running) == 1
        running.pop()
        return numbers

    def pieces():
        threads.add(threading.get_ident())
        yield from "abc"

    async def work(scheduler):
        async def stream():
            return [piece async for piece in scheduler.stream(pieces, 5)]

        calls = [scheduler.call(run, [number]) for number in range(5)]
        return await asyncio.gather(stream(), *(scheduler.submit(one(number)) for number in range(20)), *calls)

    assert scheduled(work, run)[0] == ["a", "b", "c"]
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_an_input_that_fails_does_not_fail_its_batch():
    def run(numbers):
        if 1 in numbers:
            raise ValueError("one")
        return numbers

    async def work(scheduler):
        return await asyncio.gather(*(scheduler.submit(one(n)) for n in range(3)), return_exceptions=True)

    first, failed, last = scheduled(work, run, batch_tokens=100)
    assert (first, str(failed), last) == ([0], "one", [2])


def test_a_caller_that_leaves_takes_its_inputs_out_of_the_queue():
    computed, go = [], threading.Event()

    def run(numbers):
        go.wait(10)
        computed.extend(numbers)
        return numbers

    async def work(scheduler):
        first = asyncio.ensure_future(scheduler.submit(one(0)))
        await asyncio.sleep(0.1)  # it is being computed
        second = asyncio.ensure_future(scheduler.submit([Encoded(1, 4), Encoded(2, 4)]))
        third = asyncio.ensure_future(scheduler.submit(one(3)))
        await asyncio.sleep(0)
        assert len(scheduler.waiting) == 3
        second.cancel()
        first.cancel()
        await asyncio.wait([first, second])
        assert len(scheduler.waiting) == 1
        go.set()
        return await third

    assert scheduled(work, run) == [3]
    assert computed == [0, 3]


def test_closing_computes_what_was_submitted():
    async def main():
        scheduler = Scheduler(lambda numbers: numbers, 4, 5.0)
        scheduler.start()
        results = [asyncio.ensure_future(scheduler.submit(one(number))) for number in range(5)]
        await asyncio.sleep(0)
        await scheduler.close()
        return await asyncio.gather(*results)

    assert asyncio.run(main()) == [[0], [1], [2], [3], [4]]


def test_a_stream_that_is_left_or_takes_too_long_stops_its_iterator():
    advanced, held = [], threading.Event()

    def endless():
        try:
            for number in range(1000):
                advanced.append(number)
                yield number
                held.wait(0.01)
        finally:
            advanced.append("closed")

    async def leave(scheduler):
        stream = scheduler.stream(endless, 5)
        assert await anext(stream) == 0
        await stream.aclose()

    async def wait(scheduler):
        return [number async for number in scheduler.stream(endless, 0.1)]

    scheduled(leave, list)
    assert advanced[-1] == "closed"
    assert len(advanced) < 500
    with pytest.raises(TimeoutError):
        scheduled(wait, list)
    assert advanced[-1] == "closed"


def test_what_an_iterator_raises_reaches_who_reads_it():
    def fails():
        yield 1
        raise ValueError("two")

    async def work(scheduler):
        return [number async for number in scheduler.stream(fails, 5)]

    with pytest.raises(ValueError, match="two"):
        scheduled(work, list)


def test_places_are_given_back_whatever_happens():
    places = Places(3, "texts", lambda: 2.5)
    with places.take(2), pytest.raises(ApiError, match="texts must be at most 3 at a time, got 2 with 2") as error:
        places.take(2).__enter__()
    assert (error.value.status, error.value.headers, places.taken) == (503, {"Retry-After": "3"}, 0)
    with pytest.raises(KeyError), places.take(3):
        raise KeyError
    assert places.taken == 0


def test_the_rate_of_each_client_comes_back_with_time():
    now = [0.0]
    rate = RateLimiter(60, lambda: now[0])
    for _ in range(60):
        rate.check("a")
    rate.check("b")
    with pytest.raises(ApiError) as error:
        rate.check("a")
    assert (error.value.status, error.value.retry_after) == (429, 1)
    now[0] = 1.01
    rate.check("a")
    with pytest.raises(ApiError):
        rate.check("a")
    for number in range(20_000):
        rate.check(f"client {number}")
    assert len(rate.buckets) == 10_000
    RateLimiter(None).check("a")


def test_keys_are_not_kept():
    keys = ApiKeys(frozenset({"secret"}))
    assert "secret" not in repr(vars(keys))
    assert keys.client("secret", "1.2.3.4") != keys.client("secret", "1.2.3.4").replace("key", "")
    assert ApiKeys(frozenset()).client(None, "1.2.3.4") == "address 1.2.3.4"


def test_concurrent_requests_are_computed_together():
    model = HeldModel()

    async def main():
        async with in_process(model) as client:
            asking_all = [asyncio.ensure_future(client.post("/translate", json=asking(text))) for text in TEXTS]
            while not model.batches:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            model.go.set()
            return [(await answer).json()["translatedText"] for answer in asking_all]

    assert asyncio.run(main()) == [expected()[text] for text in TEXTS]
    assert len(model.batches) < len(TEXTS) / 4


def test_a_full_queue_and_a_late_answer_are_503_and_free_their_places():
    model, settings = HeldModel(), Settings(max_queue=4, max_texts=4)
    written = expected()

    async def main():
        async with in_process(model, dataclasses.replace(settings, timeout=2)) as client:
            late = [asyncio.ensure_future(client.post("/translate", json=asking(TEXTS[:2]))) for _ in range(2)]
            await asyncio.sleep(0.1)
            full = await client.post("/translate", json=asking(TEXTS[:1]))
            assert client.service.texts.taken == 4
            late = [await answer for answer in late]
            assert client.service.texts.taken == 0
            assert len(client.service.scheduler.waiting) == 0
            model.go.set()
            client.service.settings = settings
            again = await client.post("/translate", json=asking(TEXTS[:4]))
            return full, late, again

    full, late, again = asyncio.run(main())
    assert full.status_code == 503
    assert "texts must be at most 4 at a time, got 1 with 4 before it" in full.json()["error"]
    assert int(full.headers["retry-after"]) >= 1
    for answer in late:
        assert answer.status_code == 503
        assert "the answer must be there within 2 seconds" in answer.json()["error"]
        assert int(answer.headers["retry-after"]) >= 1
    assert again.json() == {"translatedText": [written[text] for text in TEXTS[:4]]}


def test_a_client_that_goes_away_frees_its_place():
    model = HeldModel()

    async def main():
        async with in_process(model) as client:
            asking_all = [asyncio.ensure_future(client.post("/translate", json=asking(TEXTS[0]))) for _ in range(9)]
            while not model.batches:
                await asyncio.sleep(0.005)
            for request in asking_all:
                request.cancel()
            await asyncio.wait(asking_all)
            assert client.service.texts.taken == 0
            assert len(client.service.scheduler.waiting) == 0
            model.go.set()
            return await client.post("/translate", json=asking(TEXTS[1]))

    assert asyncio.run(main()).json() == {"translatedText": expected()[TEXTS[1]]}
    gc.collect()


def test_an_error_of_the_model_is_500_without_its_details():
    model = translating()
    model.run = lambda payloads, batch_tokens: 1 / 0
    with pytest.raises(ZeroDivisionError):  # which a server logs
        asked(model, None, {"json": asking(TEXTS[0])})


def test_metrics_count_requests_texts_and_tokens():
    async def main():
        async with in_process(translating()) as client:
            await client.post("/translate", json=asking(TEXTS[:3]))
            await client.post("/translate", json=asking(3))
            await client.get("/some/path")
            answer = await client.get("/metrics")
            assert answer.headers["content-type"].startswith("text/plain")
            health = await client.get("/health")
            assert health.json() == {"status": "ok", "task": "translation", "engine": "torch", "dtype": "float32"}
            client.service.is_draining.set()
            assert (await client.get("/health")).status_code == 503
            assert (await client.post("/translate", json=asking(TEXTS[0]))).status_code == 503
            return answer.text

    text = asyncio.run(main())
    for line in (
        'crossmask_requests_total{path="/translate",status="200"} 1.0',
        'crossmask_requests_total{path="/translate",status="400"} 1.0',
        'crossmask_requests_total{path="other",status="404"} 1.0',
        'crossmask_request_seconds_count{path="/translate"} 2.0',
        "crossmask_batch_texts_sum 3.0",
        "crossmask_accepted_texts 0.0",
        "crossmask_waiting_texts 0.0",
        "crossmask_open_streams 0.0",
    ):
        assert line in text, line
    assert "/some/path" not in text
