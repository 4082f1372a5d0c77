"""The explorer's server: every kind of model, what it refuses, and who may ask."""

import asyncio
import base64
import json
import logging
import random
import socket
from functools import cache
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("starlette")

import httpx2 as httpx
from attached_families import attached, plain
from bridge_families import bridge_of
from explorers import running
from random_masks import random_text
from streaming_cases import tiny
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from trained_models import SENTENCE, TEXTS, tokenizer, trained_model
from transformers import PreTrainedTokenizerFast

from crossmask import CrossMaskBridgeProcessor, translate_batch
from crossmask.explorer import app as application
from crossmask.explorer import load_explored_model, loading, run, serve
from crossmask.explorer.app import BODY_LIMIT, QUEUE_LIMIT, build_app
from crossmask.explorer.model import ExploredModel
from crossmask.explorer.question import Question, spans_of
from crossmask.masks import MaskError
from crossmask.masks.scope import SCOPES
from crossmask.streaming.text import TextStream
from crossmask.utils.errors import InputError

TEXT = " ".join(SENTENCE.split()[:6])
WORDS = SENTENCE.split()
STREAMED = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}


@cache
def own() -> ExploredModel:
    return ExploredModel(trained_model(), tokenizer(), "own")


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Of single words, with ids below 24."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *dict.fromkeys(WORDS)]
    backend = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def explored(kind: str) -> ExploredModel:
    """A model of one of the three kinds."""
    if kind == "own":
        return own()
    if kind == "bridge":
        return ExploredModel(bridge_of("bert", "llama"), CrossMaskBridgeProcessor(word_tokenizer()), kind)
    return ExploredModel(attached(kind), word_tokenizer(), kind)


KINDS = pytest.mark.parametrize("kind", ["own", "bridge", "marian", "t5"])


@KINDS
def test_every_kind_of_model_says_what_it_is_and_translates(kind):
    model = explored(kind)
    facts = model.facts
    assert facts["masks"]["decoder"] == "causal()"
    answer = model.translate(Question(TEXT, cross_mask="wait_k(3)"))
    shape = tuple(answer["attention"][name] for name in ("layers", "heads", "rows", "columns"))
    assert shape == (facts["layers"]["cross"], facts["heads"]["cross"], len(answer["target"]), len(answer["tokens"]))
    weights = np.frombuffer(base64.b64decode(answer["attention"]["data"]), np.uint8).reshape(shape)
    rows, columns = np.indices(shape[2:])
    assert (weights[:, :, columns >= rows + 3] == 0).all()
    assert (abs(weights.sum(-1, dtype=int) - 255) <= shape[3]).all()


@KINDS
def test_hidden_words_change_no_bit_and_open_ones_do(kind):
    model = explored(kind)
    hidden = [model.translate(Question(TEXT, hidden=(1, 2), replacement=number)) for number in range(4)]
    assert len({(answer["text"], answer["digest"]) for answer in hidden}) == 1
    assert len({tuple(answer["read"]) for answer in hidden}) == 4
    replaced = [model.translate(Question(TEXT, replaced=(1, 2), replacement=number)) for number in range(4)]
    assert len({answer["digest"] for answer in replaced}) == 4


def test_a_model_of_transformers_is_loaded_with_masks_and_others_are_refused(tmp_path, monkeypatch):
    plain("t5").save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    model = load_explored_model(str(tmp_path), "cpu")
    assert model.facts["name"] == tmp_path.name
    answer = model.translate(Question(TEXT, cross_mask="prefix(1)"))
    weights = np.frombuffer(base64.b64decode(answer["attention"]["data"]), np.uint8)
    assert set(weights.reshape(-1, answer["attention"]["columns"])[:, 0]) == {255}
    monkeypatch.setattr(loading, "attach", Mock(side_effect=ValueError("no attention")))
    with pytest.raises(InputError, match="a family that takes masks: no attention"):
        load_explored_model(str(tmp_path), "cpu")
    with pytest.raises(OSError, match="nowhere"):
        load_explored_model(str(tmp_path / "nowhere"), "cpu")


def test_an_output_is_that_of_generate():
    (expected,) = translate_batch(trained_model(), tokenizer(), [TEXT], progress=False, num_beams=1)
    assert own().translate(Question(TEXT))["text"] == expected
    masks = {"encoder_mask": "causal()", "cross_mask": "wait_k(2) & window(3)", "decoder_mask": "window(2)"}
    (expected,) = translate_batch(trained_model(), tokenizer(), [TEXT], progress=False, num_beams=1, **masks)
    assert own().translate(Question(TEXT, **masks))["text"] == expected


def test_words_of_tokens():
    tokens = ExploredModel(*tiny(), "tiny").source("a small  dog, xyzzy")[1]
    by_word: dict = {}
    for token in tokens:
        by_word.setdefault(token["word"], []).append(token["text"])
    assert [by_word[number][0] for number in range(3)] == ["a", "small", "dog"]
    assert "".join(by_word[3]) == "xyzzy"
    assert by_word[2][-1] == ","
    assert by_word[None][-1] == "</s>"


def test_spans_join_neighbours():
    assert spans_of((0, 1, 2, 5, 7, 8)) == [(0, 3), (5, 6), (7, 9)]
    assert spans_of((4,)) == [(4, 5)]


def test_a_stream_writes_as_a_text_stream_does():
    model, own_tokenizer = tiny()
    question = Question("a small dog barks loudly", cross_mask="wait_k(2)")
    events = [*ExploredModel(model, own_tokenizer, "tiny").stream(question)]
    stream = TextStream(model, own_tokenizer, cross_mask="wait_k(2)", max_new_tokens=20)
    words = question.text.split()
    for number, (event, word) in enumerate(zip(events, words, strict=False), start=1):
        assert event["written"] == stream.push([[word]], ended=number == len(words))[0]
        assert (event["read"], event["word"]) == (number, word)
    assert events[-1]["finished"]


def test_an_audit_holds_and_its_report_is_passed_on():
    report = own().audit(Question(TEXT, encoder_mask="causal()", cross_mask="wait_k(2)", hidden=(1,)))
    assert report["ok"]
    assert "no leak" in report["report"]


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ({"text": " "}, InputError, "must have a word"),
        ({"text": "a" * 401}, InputError, "at most 400 characters"),
        ({"text": "dog " * 70}, InputError, "at most 64 tokens"),
        ({"text": 3}, InputError, "text must be text"),
        ({"text": "\ud800"}, InputError, "Unicode"),
        ({"text": TEXT, "cross_mask": "windw(2)"}, MaskError, "known name"),
        ({"text": TEXT, "cross_mask": "keep((2, 60))"}, MaskError, "must end within"),
        ({"text": TEXT, "cross_mask": "~full()"}, MaskError, "never"),
        ({"text": TEXT, "cross_mask": "full()" + " & full()" * 300}, InputError, "at most 2000 characters"),
        ({"text": TEXT, "hidden": [40]}, InputError, "hidden must name tokens"),
        ({"text": TEXT, "hidden": [True]}, InputError, "positions"),
        ({"text": TEXT, "hidden": "3"}, InputError, "positions"),
        ({"text": TEXT, "replacement": 99}, InputError, "replacement"),
        ({"text": TEXT, "pause": 60}, InputError, "pause"),
        ({"text": TEXT, "crossmask": "full()"}, InputError, "cross_mask"),
        ({}, InputError, "text"),
        ([], InputError, "object"),
    ],
)
def test_questions_that_cannot_be_answered(fields, error, reason):
    with pytest.raises(error, match=reason):
        own().translate(Question.read(fields))


@KINDS
def test_random_masks_are_answered_or_are_errors_of_the_question(kind):
    """Nothing else may be raised, since a question cannot cause it."""
    rng, model, refused, asked_for = random.Random(17), explored(kind), 0, 12
    for number in range(asked_for):
        fields = {f"{scope}_mask": random_text(rng) for scope in rng.sample(SCOPES, rng.choice([1, 1, 3]))}
        hidden = rng.choice([(), (0,), (1, 2), (5, 60)])
        method = rng.choice([model.translate, model.audit, lambda question: [*model.stream(question)]])
        try:
            assert method(Question(TEXT, hidden=hidden, replacement=number % 3, **fields))
        except (InputError, MaskError):
            refused += 1
    assert 0 < refused < asked_for


def asked(*requests, host: str = "127.0.0.1", base: str = "http://127.0.0.1:7860", model=None) -> list:
    """The answers to requests, each a method, a path and options of httpx, one after the other."""

    async def ask():
        app = build_app(model or own(), host)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.app.router.lifespan_context(app.app),
            httpx.AsyncClient(transport=transport, base_url=base) as client,
        ):
            return [await client.request(method, path, **options) for method, path, options in requests]

    return asyncio.run(ask())


def test_the_page_and_its_answers_have_headers_of_security():
    page, script, facts = asked(("GET", "/", {}), ("GET", "/masks.js", {}), ("GET", "/api/facts", {}))
    assert "crossmask explorer" in page.text
    assert script.headers["content-type"].startswith("text/javascript")
    assert facts.json()["kind"] == "server"
    for answer in (page, script, facts):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-inline" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "base", "status"),
    [
        ("127.0.0.1", "http://localhost:7860", 200),
        ("127.0.0.1", "http://[::1]:7860", 200),
        ("127.0.0.2", "http://127.0.0.2:7860", 200),
        ("127.0.0.2", "http://attacker.example", 421),
        ("::1", "http://attacker.example", 421),
        ("127.0.0.1", "http://127.0.0.1.attacker.example", 421),
        ("localhost", "http://192.168.0.7", 421),
        ("0.0.0.0", "http://192.168.0.7", 200),
    ],
)
def test_on_loopback_only_this_machine_s_names_are_answered(host, base, status):
    for answer in asked(("GET", "/", {}), ("GET", "/api/facts", {}), host=host, base=base):
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"json": {"text": TEXT, **STREAMED}}, 200),
        ({"content": json.dumps({"text": TEXT}), "headers": {"content-type": "text/plain"}}, 415),
        ({"content": "{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": "[" * 10_000, "headers": {"content-type": "application/json"}}, 400),
        ({"json": {"text": "a" * BODY_LIMIT}}, 413),
        ({"json": {"text": TEXT, "cross_mask": "wait_k(0)"}}, 400),
    ],
)
def test_requests_that_are_refused_have_a_status_and_one_line(options, status):
    answers = asked(*(("POST", f"/api/{name}", options) for name in ("translate", "stream", "audit")))
    for answer in answers:
        assert answer.status_code == status, answer.text
        if status != 200:
            assert answer.json()["error"]
            assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/vendor/../../model.py", "/api/nothing"]
)
def test_only_the_page_s_files_are_read(path):
    (answer,) = asked(("GET", path, {}))
    assert answer.status_code == 404


def test_a_stream_is_a_line_for_each_word():
    (answer,) = asked(("POST", "/api/stream", {"json": {"text": TEXT, **STREAMED}}))
    assert answer.headers["content-type"] == "application/x-ndjson"
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert [event["read"] for event in events] == [*range(1, len(events) + 1)]
    assert events[-1]["finished"]


BUGS = (
    TypeError("got an unexpected argument"),
    ValueError("bad"),
    KeyError("x"),
    RuntimeError("shape"),
    OSError("disk"),
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
def test_a_bug_is_not_an_error_of_the_question(bug, monkeypatch, caplog):
    """It has status 500 and a sentence, is logged, and takes no place in the queue."""
    question = {"json": {"text": TEXT, **STREAMED}}
    names = ("source", "translate", "audit", "stream")
    with monkeypatch.context() as broken:
        broken.setattr(ExploredModel, "source", Mock(side_effect=bug))
        answers = asked(*(("POST", f"/api/{name}", question) for name in names * QUEUE_LIMIT))
    for answer in answers:
        assert answer.status_code == 500
        assert "which is a bug" in answer.json()["error"]
        assert str(bug) not in answer.text
        assert "content-security-policy" in answer.headers

    def events(self, question):
        yield {"read": 1, "word": "a", "written": [], "finished": False}
        raise bug

    monkeypatch.setattr(ExploredModel, "stream", events)
    with caplog.at_level(logging.ERROR):
        broken = asked(*[("POST", "/api/stream", question)] * QUEUE_LIMIT)
    for answer in broken:
        first, last = (json.loads(line) for line in answer.text.splitlines())
        assert (first["read"], last["finished"]) == (1, True)
        assert "which is a bug" in last["error"]
    assert {record.exc_info[1] for record in caplog.records} == {bug}


def test_a_request_that_does_not_arrive_whole_is_answered_and_closed(monkeypatch):
    monkeypatch.setattr(application, "BODY_TIMEOUT", 0.3)
    monkeypatch.setattr(run, "_READ_TIMEOUT", 0.3)
    body = json.dumps({"text": TEXT}).encode()
    kind = b"Content-Type: application/json\r\n"
    with running(own()) as address:
        for name in (b"translate", b"source", b"audit", b"stream"):
            head = b"POST /api/" + name + b" HTTP/1.1\r\nHost: localhost\r\n" + kind
            for sent, status in (
                (head[:-20], b""),
                (head + b"Content-Length: %d\r\n\r\n" % len(body), b"HTTP/1.1 408"),
                (head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:-1], b"HTTP/1.1 408"),
                (head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"HTTP/1.1 408"),
            ):
                with socket.create_connection(address, timeout=20) as connection:
                    connection.sendall(sent)
                    received = b"".join(iter(lambda: connection.recv(65536), b""))
                assert received.startswith(status)
                assert bool(received) == bool(status)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "nowhere.invalid"])
def test_an_address_is_refused_before_a_model_is_loaded(host, monkeypatch):
    load = Mock()
    monkeypatch.setattr(run, "load_explored_model", load)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"http://{host}:{port} must be an address at which .*; give another"):
            serve("model", host=host, port=port)
    assert not load.called


def test_more_requests_than_may_wait_are_refused():
    async def ask():
        app = build_app(own())
        async with (
            app.app.router.lifespan_context(app.app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
        ):
            calls = (client.post("/api/translate", json={"text": text}) for text in TEXTS[: QUEUE_LIMIT + 4])
            return [answer.status_code for answer in await asyncio.gather(*calls)]

    statuses = asyncio.run(ask())
    assert statuses.count(200) == QUEUE_LIMIT
    assert statuses.count(503) == 4


def test_nothing_is_computed_for_a_page_that_has_gone(monkeypatch):
    translate = Mock()
    monkeypatch.setattr(ExploredModel, "translate", translate)
    app = build_app(own())
    body = json.dumps({"text": TEXT}).encode()
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/api/translate", "query_string": b"", "headers": headers}
    sent = []

    async def ask():
        received = iter([{"type": "http.request", "body": body}, {"type": "http.disconnect"}])

        async def receive():
            return next(received)

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 499
    assert not translate.called
