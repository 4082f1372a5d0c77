"""Outputs a piece at a time: tokens as Server-Sent Events, and words over a WebSocket while the source arrives."""

import asyncio
import copy
import json
from socket import SHUT_RDWR

import pytest

pytest.importorskip("fastapi")

from servers import TEXTS, asked, asking, events, in_process, listening, small, translating, wait_for
from streaming_cases import TEXTS as SENTENCES
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from crossmask import translate_batch
from crossmask.seq2seq.simultaneous.policies import AlignAtt
from crossmask.server import Settings
from crossmask.streaming.text import TextStream, translate

TEXT = TEXTS[2]


def test_tokens_come_as_events_and_joined_are_the_greedy_translation():
    wanted = translate_batch(*small(), [TEXT], num_beams=1, progress=False)[0]
    for options in ({}, {"num_beams": 3}):
        (answer,) = asked(translating(**options), None, {"json": asking(TEXT)}, path="/translate/stream")
        assert answer.headers["content-type"].startswith("text/event-stream")
        *pieces, end = events(answer.text)
        assert len(pieces) > 3
        assert "".join(piece["text"] for _, piece in pieces) == wanted
        assert end == ("end", {"translatedText": wanted})
    (answer,) = asked(translating(), None, {"json": asking(" ")}, path="/translate/stream")
    assert events(answer.text) == [("end", {"translatedText": ""})]


def test_streams_refuse_what_they_cannot_take_before_the_first_event():
    async def main():
        async with in_process(translating(), Settings(max_streams=1)) as client:
            answers = [
                await client.post("/translate/stream", json=fields)
                for fields in (asking(["a"]), asking("!?" * 45), {**asking("a"), "target": "zh"})
            ]
            with client.service.streams.take():
                answers.append(await client.post("/translate/stream", json=asking("a")))
            assert client.service.streams.taken == 0
            return answers

    answers = asyncio.run(main())
    assert [answer.status_code for answer in answers] == [400, 413, 400, 503]
    assert all(list(answer.json()) == ["error"] for answer in answers)


def test_a_reader_of_events_that_goes_away_frees_the_place():
    with listening(translating()) as server:
        import httpx2 as httpx

        with httpx.stream("POST", f"{server.url}/translate/stream", json=asking(TEXT), timeout=60) as answer:
            next(answer.iter_lines())
        wait_for(lambda: server.service.streams.taken == 0)
        answer = httpx.post(f"{server.url}/translate", json=asking(TEXT), timeout=20)
        assert answer.status_code == 200


def test_words_are_translated_while_they_arrive_as_the_policy_says():
    model, tokenizer = small()
    attention = model.config._attn_implementation
    with (
        listening(translating()) as server,
        connect(address_of(server)) as socket,
    ):
        ask(socket, policy="wait_k", k=3)
        for sentence in SENTENCES:  # one after the other
            (wanted,) = translate(model, tokenizer, [sentence], cross_mask="wait_k(3)")
            assert converse(socket, sentence) == (wanted.text, wanted.delays)
        assert server.service.streams.taken == 1
        with connect(address_of(server)) as other:
            ask(other, policy="align_att", f=2)
            text, delays = converse(other, SENTENCES[0])
        eager = copy.deepcopy(model)  # the server is about to begin the next text with its own
        eager.set_attn_implementation("eager")
        (wanted,) = translate(eager, tokenizer, SENTENCES[:1], policy=AlignAtt(2))
        assert (text, delays) == (wanted.text, wanted.delays)
        with connect(address_of(server)) as other:
            ask(other, target="fr", policy="wait_k", k=2)
            stream = TextStream(model, tokenizer, cross_mask="wait_k(2)")
            words = stream.push([["two", "old", *SENTENCES[0].split()]], ended=True)[0]
            other.send(json.dumps({"words": SENTENCES[0], "ended": True}))
            assert json.loads(other.recv()) == {"words": words, "read": 8, "finished": True}
    assert model.config._attn_implementation == attention
    assert server.service.streams.taken == 0


def address_of(server) -> str:
    return f"ws://127.0.0.1:{server.address[1]}/translate/simultaneous"


def ask(socket, **start) -> None:
    """The first message of a connection, and its answer."""
    socket.send(json.dumps({"source": "en", "target": "de", **start}))
    assert json.loads(socket.recv()) == {"ready": True}


def converse(socket, sentence: str) -> tuple[str, list[int]]:
    """A sentence sent word by word: its translation, and the words read before each word of it."""
    words, written, delays = sentence.split(), [], []
    for index, word in enumerate(words, start=1):
        socket.send(json.dumps({"words": word, "ended": index == len(words)}))
        answer = json.loads(socket.recv())
        assert answer["read"] == index
        written += answer["words"]
        delays += [answer["read"]] * len(answer["words"])
    assert answer["finished"]
    return " ".join(written), delays


START = {"source": "en", "target": "de", "policy": "wait_k", "k": 3}
REFUSED = [
    (["{"], 1008, "a message must be JSON"),
    ([b"{\xff}"], 1008, "a message must be JSON"),
    (['{"source": "en", "source": "de"}'], 1008, "'source' must be given once, got it several times in a message"),
    (["[" * 2000], 1008, "a message must be JSON"),
    (["[]"], 1008, "a message must be a JSON object"),
    ([{**START, "policy": "guess"}], 1008, "policy must be one of wait_k, align_att, got 'guess'"),
    ([{**START, "k": 0}], 1008, "k must be a whole number from 1 to 1000 for wait_k, got 0"),
    ([{**START, "k": 10**9}], 1008, "k must be a whole number from 1 to 1000"),
    ([{**START, "f": 2}], 1008, "fields must be among source, target, policy, api_key, k, got 'f'"),
    ([{**START, "target": "zh"}], 1008, "target must be one of de, fr"),
    ([START, {"word": "a"}], 1008, "did you mean 'words'?"),
    ([START, {"words": "a\ud800"}], 1008, "lone surrogate"),
    ([START, {"words": "a\0"}], 1008, "words must be without NUL, got one at character 2"),
    ([START, {"words": ["a", "\0"]}], 1008, "words[1] must be without NUL, got one at character 1"),
    ([START, {"words": "x" * 101}], 1009, "the words of a text must have at most 100 characters"),
    ([START, {"words": "!?" * 45}], 1009, "the words of a text must have at most 64 tokens"),
    ([{**START, "target": "fr"}, {"words": "!?" * 45}], 1009, "of a text must have at most 61 tokens"),
]


def test_messages_that_cannot_be_used_are_answered_and_end_the_connection():
    settings = Settings(max_characters=100, max_streams=1, max_body=4000)
    with listening(translating(), settings) as server:
        address = address_of(server)
        for messages, code, error in REFUSED:
            with connect(address) as socket:
                for message in messages:
                    socket.send(json.dumps(message) if isinstance(message, dict) else message)
                answers = [json.loads(socket.recv()) for _ in messages]
                assert error in answers[-1]["error"]
                assert answers[-1]["status"] == (413 if code == 1009 else 400)
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv()
                assert closed.value.rcvd.code == code, error
            wait_for(lambda: server.service.streams.taken == 0)
        with connect(address) as socket:
            socket.send(b'{"source": "\xff"}', text=True)
            assert "a message must be JSON: 'utf-8' codec" in json.loads(socket.recv())["error"]
        with connect(address) as socket:
            socket.send(" " * (settings.max_body + 1))
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv()
        assert closed.value.rcvd.code == 1009
        with connect(address) as first:
            ask(first, policy="wait_k", k=3)
            with connect(address) as second:
                second.send(json.dumps(START))
                answer = json.loads(second.recv())
                assert (answer["status"], answer["retry_after"]) == (503, 1)
        wait_for(lambda: server.service.streams.taken == 0)
        with connect(address) as gone:
            ask(gone, policy="wait_k", k=3)
            gone.socket.shutdown(SHUT_RDWR)  # without a word
            wait_for(lambda: server.service.streams.taken == 0)


VALUES = [None, True, -1, 2.5, 10**400, float("nan"), "", "x", [], ["a", 3], [[]], {}, {"a": {}}]
FIELDS = {
    "source": (START, []),
    "target": (START, []),
    "policy": (START, []),
    "k": (START, []),
    "f": ({"source": "en", "target": "de", "policy": "align_att"}, []),
    "api_key": (START, [None, "", "x"]),
    "words": ({}, ["", "x", []]),
    "ended": ({"words": "a"}, [True]),
}
"""The message of each field, and those of the values that it may have."""


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_a_message_that_has_another_type_is_named_with_what_it_has(field):
    message, usable = FIELDS[field]
    with listening(translating()) as server:
        for value in VALUES:
            if any(value == other and type(value) is type(other) for other in usable):
                continue
            with connect(address_of(server)) as socket:
                if field in ("words", "ended"):
                    ask(socket, policy="wait_k", k=3)
                socket.send(json.dumps({**message, field: value}))
                answer = json.loads(socket.recv())
                assert answer["error"].startswith((f"{field} must be", f"{field}[")), answer
                assert ", got " in answer["error"]
                assert answer["status"] == 400
                assert len(answer["error"]) < 250
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv()
                assert closed.value.rcvd.code == 1008
        wait_for(lambda: server.service.streams.taken == 0)


def test_a_query_in_the_url_of_a_stream_of_words_is_refused():
    with listening(translating()) as server, connect(f"{address_of(server)}?api_key=one") as socket:
        socket.send(json.dumps(START))
        assert "the URL must be without a query" in json.loads(socket.recv())["error"]


@pytest.mark.parametrize("target", ["de", "fr"])
def test_a_text_with_nothing_visible_stays_blank(target):
    with listening(translating()) as server, connect(address_of(server)) as socket:
        ask(socket, target=target, policy="wait_k", k=1)
        for words, read in (("", 0), (" \n", 0), ("\u200b \ufeff", 2), (["\x01"], 1)):
            for message in ({"words": words}, {"ended": True}):
                socket.send(json.dumps(message))
                answer = json.loads(socket.recv())
                assert answer == {"words": [], "read": read, "finished": message.get("ended", False)}
        socket.send(json.dumps({"words": SENTENCES[0], "ended": True}))
        assert json.loads(socket.recv())["words"]


def test_a_stream_of_words_ends_when_nothing_comes_and_when_the_server_ends():
    with listening(translating(), Settings(idle_timeout=0.3)) as server, connect(address_of(server)) as socket:
        ask(socket, policy="wait_k", k=3)
        assert "a message must come within 0.3 seconds" in json.loads(socket.recv())["error"]
    with listening(translating()) as server, connect(address_of(server)) as socket:
        ask(socket, policy="wait_k", k=3)
        socket.send(json.dumps({"words": SENTENCES[0], "ended": True}))
        assert json.loads(socket.recv())["finished"]
        server.end()
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
        assert closed.value.rcvd.code == 1001
