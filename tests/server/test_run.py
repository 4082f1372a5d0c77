"""A real server on a loopback port: half-open sockets, an end that loses nothing, floods, malformed requests."""

import asyncio
import gc
import json
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

pytest.importorskip("fastapi")

import httpx2 as httpx
from servers import TEXTS, HeldModel, asking, expected, listening, translating, wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from crossmask.server import Settings

HEAD = b"POST /translate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


def exchange(address, *sent: bytes, close: bool = False) -> bytes:
    """What a server sends back for bytes, until it closes the connection."""
    with socket.create_connection(address, timeout=20) as connection:
        for data in sent:
            connection.sendall(data)
        if close:
            return b""
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            pass
        return received


def test_sockets_that_send_half_a_request_are_answered_or_closed():
    with listening(translating(), Settings(read_timeout=0.5)) as server:
        body = exchange(server.address, HEAD + b"Content-Length: 100\r\n\r\n{")
        assert body.startswith(b"HTTP/1.1 408")
        assert b'{"error":"the request must arrive within 0.5 seconds, got 1 bytes of it' in body
        for half in (b"", b"POST", HEAD, b"GET /health HTTP/1.1\r\n"):
            assert exchange(server.address, half) == b""
        for broken in (b"\x00\x01\r\n\r\n", b"GET /" + b"a" * 200_000):
            assert exchange(server.address, broken).startswith((b"HTTP/1.1 400", b""))
        assert exchange(server.address, HEAD + b"Content-Length: -1\r\n\r\n").startswith(b"HTTP/1.1 400")
        wait_for(lambda: not server.server.server_state.connections)
        answer = httpx.post(f"{server.url}/translate", json=asking(TEXTS[0]), timeout=20)
        assert answer.json() == {"translatedText": expected()[TEXTS[0]]}


def test_bodies_of_a_megabyte_and_control_characters_are_answered():
    control = "".join(map(chr, range(1, 32))) + "\x7f\u202e\ufeff\uffff\u2028"
    with (
        listening(translating(), Settings(max_body=2**19)) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        for q, status in (
            (control, 200),
            ("a" * 2**20, 413),
            ("\x00", 400),
            (["a"] * 2**18, 413),
            ("a" * 9 * 2**20, 413),
        ):
            answer = client.post("/translate", json=asking(q))
            assert answer.status_code == status, answer.text[:200]
        long = client.post("/translate", params=asking("ä" * 2000))
        assert long.status_code == 413
        assert "must have at most 64 tokens" in long.json()["error"]


def test_the_end_answers_everything_that_was_accepted():
    model = HeldModel()
    with listening(model) as server, ThreadPoolExecutor(12) as pool:
        answers = [
            pool.submit(httpx.post, f"{server.url}/translate", json=asking(text), timeout=30) for text in TEXTS[:12]
        ]
        wait_for(lambda: server.service.texts.taken == 12)
        server.end()
        wait_for(lambda: server.service.is_draining.is_set())
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"{server.url}/translate", json=asking(TEXTS[0])).raise_for_status()
        model.go.set()
        assert [answer.result().json()["translatedText"] for answer in answers] == [
            expected()[text] for text in TEXTS[:12]
        ]


async def flood(server, count: int, aborted: float, seed: int = 0) -> list[int]:
    """Concurrent requests of which some are aborted at random; the statuses of those that were answered.

    What is answered with 200 has the translation of its own text.
    """
    rng, statuses = random.Random(seed), []
    places = asyncio.Semaphore(64)

    async def ask(client):
        text, leaves = rng.choice(TEXTS), rng.random() < aborted
        async with places:
            request = asyncio.ensure_future(client.post("/translate", json=asking(text)))
            if leaves:
                await asyncio.sleep(rng.random() * 0.05)
                request.cancel()
                await asyncio.wait([request])
                return
            answer = await request
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                assert answer.json() == {"translatedText": expected()[text]}

    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        await asyncio.gather(*(ask(client) for _ in range(count)))
    return statuses


def check_idle(server) -> None:
    """Nothing waits and no place is taken."""
    wait_for(lambda: server.service.texts.taken == 0)
    assert len(server.service.scheduler.waiting) == 0
    assert server.service.scheduler.is_running


def test_no_answer_is_lost_among_requests_that_are_aborted():
    with listening(translating(max_new_tokens=4)) as server:
        wanted = {**expected()}
        expected().update(
            zip(TEXTS, translating(max_new_tokens=4).translator.translate(TEXTS, max_new_tokens=4), strict=True)
        )
        try:
            statuses = asyncio.run(flood(server, 300, aborted=0.3))
        finally:
            expected().update(wanted)
        assert set(statuses) == {200}
        assert 150 < len(statuses) < 300
        check_idle(server)


VALUES = [
    "",
    "a",
    "dog \x00",
    "\ud800",
    "x" * 200,
    0,
    -1,
    1e308,
    10**40,
    True,
    None,
    [],
    {},
    ["a"],
    ["a", None],
    [[]],
    "en",
    "de",
    "text",
]
KEYS = ["q", "source", "target", "format", "api_key", "alternatives", "", "\x00", "Q", "question"]
TYPES = [
    *["application/json"] * 5,
    "application/x-www-form-urlencoded",
    "text/plain",
    "multipart/form-data; boundary=x",
    "",
    "\x80",
]


def malformed(rng: random.Random) -> tuple[bytes, dict[str, bytes]]:
    """A body and headers: fields of random values, some of whose bytes are changed."""
    fields = {rng.choice(KEYS): rng.choice(VALUES) for _ in range(rng.randint(0, 5))}
    fields = {**(asking(rng.choice(["dog", "x" * 200])) if rng.random() < 0.5 else {}), **fields}
    body = bytearray(json.dumps(fields).encode())
    for _ in range(rng.choice([0, 0, 1, 5])):
        body[rng.randrange(len(body)) if body else 0 :][:1] = bytes([rng.randrange(256)])
        body.insert(rng.randrange(len(body) + 1), rng.randrange(256))
    if rng.random() < 0.2:
        body = body[: rng.randrange(len(body) + 1)]
    return bytes(body), {"content-type": rng.choice(TYPES).encode("latin-1")}


def fuzz(server, count: int) -> set[int]:
    """The statuses of requests that are malformed in random ways."""
    rng, statuses = random.Random(0), set()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(count):
            body, headers = malformed(rng)
            path = rng.choice(["/translate", "/translate", "/translate/stream", "/detect", "/languages", "/x"])
            answer = client.post(path, content=body, headers=headers)
            statuses.add(answer.status_code)
            if answer.status_code != 200:
                assert answer.json().keys() <= {"error"}, answer.text
    return statuses


def test_malformed_requests_are_never_an_error_of_the_server():
    with listening(translating(max_new_tokens=2), Settings(max_characters=100)) as server:
        statuses = fuzz(server, 300)
        assert {200, 400, 404, 405, 413, 415} <= statuses
        assert not {status for status in statuses if status >= 500 and status != 501}
        check_idle(server)


@pytest.mark.slow
def test_ten_thousand_requests_leave_memory_flat():
    """Aborted ones, malformed ones and half-open sockets among them."""
    process = psutil.Process()
    with listening(translating(max_new_tokens=4)) as server:
        wanted = translating(max_new_tokens=4).translator.translate(TEXTS, max_new_tokens=4)
        expected().update(zip(TEXTS, wanted, strict=True))
        sizes = []
        for turn in range(5):
            statuses = asyncio.run(flood(server, 1800, aborted=0.3, seed=turn))
            assert set(statuses) == {200}
            assert not {status for status in fuzz(server, 200) if status >= 500 and status != 501}
            half_open = [socket.create_connection(server.address) for _ in range(50)]
            check_idle(server)
            for connection in half_open:
                connection.close()
            gc.collect()
            sizes.append(process.memory_info().rss / 2**20)
        assert sizes[-1] - sizes[1] < 25, sizes
        assert threading.active_count() < 20
    expected.cache_clear()


SECRET = "geheim"


def ask_in_every_way(server) -> None:
    """Requests that have the secret in every place, some of which uvicorn or websockets refuse."""
    address = f"ws://127.0.0.1:{server.address[1]}/translate/simultaneous"
    secret = {"Authorization": f"Bearer {SECRET}", "X-Secret": SECRET}
    start = json.dumps({"source": "en", "target": "de", "policy": "wait_k", "k": 3})
    httpx.post(f"{server.url}/translate", params=asking(SECRET, api_key=SECRET), headers=secret, timeout=20)
    httpx.post(f"{server.url}/translate", json=asking(SECRET), timeout=20)
    httpx.post(f"{server.url}/{SECRET}", content=SECRET.encode(), timeout=20)
    httpx.get(f"{server.url}/health", headers={**secret, "Connection": "upgrade", "Upgrade": SECRET}, timeout=20)
    upgrade = b"Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    for line in (
        b"GET /%b?q=%b HTTP/1.1\r\n%bSec-WebSocket-Key: %b\r\n\r\n",
        b"GET /%b?q=%b HTTP/1.1\r\n%bSec-WebSocket-Key: MDEyMzQ1Njc4OUFCQ0RFRg==\r\nX: \xff%b\r\n\r\n",
        b"GET /%b" + b"a" * 10_000 + b"?q=%b HTTP/1.1\r\n%bX: %b\r\n\r\n",
        b"GET %b %b %b %b\r\n\r\n",
    ):
        exchange(server.address, line % (SECRET.encode(), SECRET.encode(), upgrade, SECRET.encode()))
    for path in ("", f"/{SECRET}", f"?q={SECRET}"):
        try:
            with connect(address + path, additional_headers=secret) as websocket:
                websocket.send(start)
                websocket.recv()
                websocket.send(json.dumps({"words": SECRET, "ended": True}))
                websocket.recv()
        except (InvalidStatus, ConnectionClosed):
            pass
    for message in (SECRET, json.dumps({SECRET: SECRET}), SECRET * 2**18):
        with connect(address) as websocket, suppress(ConnectionClosed):
            websocket.send(message)
            websocket.recv()
    for frame in (b"\x81\x87\0\0\0\0\xff" + SECRET.encode(), b"\xff" + SECRET.encode()):  # not UTF-8, and no frame
        with connect(address) as websocket, suppress(ConnectionClosed):
            websocket.socket.sendall(frame)
            websocket.recv()


def test_nothing_of_a_request_is_logged(capsys, monkeypatch):
    def fail(self, *arguments, **options):
        raise RuntimeError(SECRET) from KeyError(SECRET)

    with listening(translating()) as server:
        ask_in_every_way(server)
        assert "Exception" not in capsys.readouterr().err
    monkeypatch.setattr("crossmask.server.models.TextModel.run", fail)
    monkeypatch.setattr("crossmask.server.simultaneous._Text.push", fail)
    with listening(translating()) as server:
        ask_in_every_way(server)
    logged = "".join(capsys.readouterr())
    assert "Uvicorn running on" in logged
    assert logged.count("in fail\n") == logged.count("KeyError\n") == logged.count("RuntimeError\n") > 2
    assert SECRET not in logged
