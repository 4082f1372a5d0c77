"""Whatever bytes a client sends, the server answers below 500 or closes the connection, and goes on."""

import json
import socket

import pytest

pytest.importorskip("fastapi")

import httpx2 as httpx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from servers import asking, listening, translating, wait_for

from crossmask.server import Settings

ANSWERS = {200, 400, 403, 404, 405, 408, 413, 415, 431, 501, 503}
PATHS = [
    "/translate",
    "/translate/stream",
    "/detect",
    "/languages",
    "/health",
    "/metrics",
    "/x",
    "/%00",
    "/translate?q=%ff",
]

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(["q", "source", "target", "format", "alternatives", "api_key", "", "\0", "Q"])
control = st.text(st.characters(max_codepoint=0x9F, exclude_categories=["Lu", "Ll"]), max_size=40)
bodies = st.one_of(
    st.dictionaries(names, anything, max_size=5).map(lambda fields: json.dumps(asking("dog") | fields).encode()),
    control.map(lambda text: json.dumps(asking(text)).encode()),
    st.binary(max_size=60),
    st.binary(max_size=20).map(lambda data: b'{"q": "' + data + b'", "source": "en", "target": "de"}'),
    st.sampled_from([b"[", b'{"q":', b'{"q":[', b"-", b"9", b'"']).flatmap(
        lambda unit: st.sampled_from([1, 50, 5000, 100_000]).map(lambda count: unit * count)
    ),
)
JSON = [(b"Content-Type", b"application/json")]
headers = st.just(JSON) | st.lists(
    st.tuples(
        st.sampled_from(
            [b"Content-Type", b"Accept", b"X-A", b"Authorization", b"X-Forwarded-For", b"Expect", b"Upgrade"]
        ),
        st.one_of(
            st.sampled_from(
                [b"application/json", b"text/plain", b"application/x-www-form-urlencoded", b"100-continue"]
            ),
            st.binary(max_size=20),
            st.sampled_from([1, 5000, 60_000]).map(lambda count: b"a" * count),
        ),
    ),
    max_size=4,
)
seen: set[int] = set()
"""The statuses of all answers."""
FRAMES = ("right", "none", "short", "twice", "negative", "chunked", "chunked badly")


def request(method: str, path: str, lines: list[tuple[bytes, bytes]], flood: int, frame: str, body: bytes) -> bytes:
    """The bytes of a request; `flood` more headers, and a length of the body that need not be its own."""
    lengths = {
        "right": [(b"Content-Length", b"%d" % len(body))],
        "none": [],
        "short": [(b"Content-Length", b"%d" % (len(body) // 2))],
        "twice": [(b"Content-Length", b"1"), (b"Content-Length", b"%d" % len(body))],
        "negative": [(b"Content-Length", b"-1")],
        "chunked": [(b"Transfer-Encoding", b"chunked")],
        "chunked badly": [(b"Transfer-Encoding", b"chunked")],
    }
    if frame == "chunked":
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    head = [(b"Host", b"a"), (b"Connection", b"close"), *lengths[frame], *lines, *[(b"X-Flood", b"y" * 20)] * flood]
    text = b"".join(name + b": " + value + b"\r\n" for name, value in head)
    return f"{method} {path} HTTP/1.1\r\n".encode() + text + b"\r\n" + body


@pytest.fixture(scope="module")
def server():
    seen.clear()
    limits = Settings(max_characters=100, max_body=2**16, read_timeout=0.3)
    with listening(translating(max_new_tokens=2), limits) as running:
        yield running


def exchange(address, data: bytes) -> bytes:
    with socket.create_connection(address, timeout=20) as connection:
        received = b""
        try:
            connection.sendall(data)
            while part := connection.recv(65536):
                received += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # it closed before it had read all
        return received


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@example("POST", "/translate", JSON, 0, "right", json.dumps(asking("a small dog\0\x1b\u2028")).encode())
@example("POST", "/translate", JSON, 0, "right", b'"%b"' % (b"a" * 2**16))
@example("POST", "/translate", JSON, 0, "right", b'"%b"' % (b"a" * 2**20))
@example("POST", "/translate", JSON, 0, "right", b"[" * 60_000)
@example("POST", "/translate", JSON, 0, "right", b'{"q": ' + b"9" * 5000 + b"}")
@example("POST", "/translate", JSON, 2000, "right", b"{}")
@example("POST", "/translate", [(b"Content-Type", b"\xff\0")], 0, "right", b"{}")
@example("POST", "/translate", [(b"Content-Type", b"text/plain")], 0, "right", b"{}")
@example("PUT", "/translate", JSON, 0, "right", b"{}")
@example("GET", "/nothing", [], 0, "none", b"")
@example("GET", "/" + "a" * 60_000, [], 0, "none", b"")
@given(
    st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "BREW"]),
    st.sampled_from(PATHS),
    headers,
    st.sampled_from([0, 0, 0, 100, 2000]),
    st.sampled_from(["right", "right", "right", *FRAMES]),
    bodies,
)
def test_any_bytes_are_answered_below_500_or_refused(server, method, path, lines, flood, frame, body):
    answer = exchange(server.address, request(method, path, lines, flood, frame, body))
    if not answer:
        return
    head, _, rest = answer.partition(b"\r\n\r\n")
    statuses = [int(head.split(b" ")[1])]
    if statuses == [100]:  # it was asked to say that it goes on
        head, _, rest = rest.partition(b"\r\n\r\n")
        statuses = [int(head.split(b" ")[1])] if head else []
    assert set(statuses) <= ANSWERS, answer[:300]
    seen.update(statuses)
    if b"content-type: application/json" in head and statuses != [200] and rest and b"chunked" not in head:
        error = json.loads(rest)
        if path != "/health":
            assert error.keys() == {"error"}
            assert "\n" not in error["error"]


def test_it_goes_on_afterwards(server):
    assert seen == set() or {200, 400, 404, 405, 413, 415} <= seen
    wait_for(lambda: server.service.texts.taken == server.service.streams.taken == 0)
    answer = httpx.post(f"{server.url}/translate", json=asking("a small dog"), timeout=20)
    assert answer.status_code == 200
    assert httpx.get(f"{server.url}/health", timeout=20).json()["status"] == "ok"
    assert 'status="5' not in httpx.get(f"{server.url}/metrics", timeout=20).text.replace('status="501"', "")
