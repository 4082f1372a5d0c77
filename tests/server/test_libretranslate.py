"""LibreTranslate's API: what its clients send is answered as they expect, and what cannot be used is refused."""

import asyncio
import json
from urllib.parse import urlencode

import pytest

pytest.importorskip("fastapi")

from servers import PAIRS, TEXTS, asked, asking, expected, in_process, small, translating

from crossmask import translate_batch
from crossmask.server import Settings

TEXT = TEXTS[2]
FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_every_way_in_which_clients_send_a_text():
    fields = asking(TEXT)
    ways = {
        "JSON, as its documentation": {"json": fields},
        "a form, as curl and its page": {"data": fields},
        "as libretranslatepy": {"content": urlencode(fields), "headers": FORM},
        "a query, as deep_translator": {"params": {**fields, "format": "text"}},
        "another spelling": {
            "content": json.dumps(fields),
            "headers": {"content-type": "Application/JSON; charset=x"},
        },
    }
    for name, answer in zip(ways, asked(translating(), None, *ways.values()), strict=True):
        assert (answer.status_code, answer.json()) == (200, {"translatedText": expected()[TEXT]}), name


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"max_new_tokens": 2}])
def test_lists_are_answered_in_order_and_equal_translate_batch(options):
    texts = [*TEXTS[:20], " \n", "", "\u200b\x01", *TEXTS[20:]]
    wanted = translate_batch(*small(), texts, progress=False, **options)
    form = urlencode([("q", texts[0]), ("q", texts[1]), ("source", "en"), ("target", "de")])
    requests = {"json": asking(texts)}, {"content": form, "headers": FORM}
    answers = [answer.json()["translatedText"] for answer in asked(translating(**options), None, *requests)]
    assert answers == [wanted, wanted[:2]]
    assert wanted[20:23] == ["", "", ""]


def test_a_pair_of_languages_may_have_a_prefix():
    (answer,) = asked(translating(), None, {"json": {**asking(["man", " ", "\u200b"]), "target": "fr"}})
    wanted = translate_batch(*small(), ["two old man"], progress=False)
    assert answer.json() == {"translatedText": [*wanted, "", ""]}


def test_the_languages_and_their_targets():
    async def get():
        async with in_process(translating()) as client:
            return (await client.get("/languages")).json()

    assert asyncio.run(get()) == [
        {"code": "en", "name": "English", "targets": ["de", "fr"]},
        {"code": "de", "name": "German", "targets": []},
        {"code": "fr", "name": "French", "targets": []},
    ]


WRONG = [
    ({}, 400, "q must be a text that is not empty, got nothing"),
    (asking(""), 400, "q must be a text that is not empty, got ''"),
    (asking([]), 400, "q must be a text or a list of texts, got an empty list"),
    (asking(None), 400, "got nothing"),
    (asking(3), 400, "q must be a text that is not empty, got 3"),
    (asking(["a", 3]), 400, "q[1] must be text, got 3"),
    (asking({"a": 1}), 400, "got dict"),
    (asking("a\ud800"), 400, "q must be valid Unicode, got a lone surrogate '\\ud800' at character 2"),
    ({**asking("a\ud800"), "target": "fr"}, 400, "at character 2"),
    (asking("a\0"), 400, "q must be without NUL, got one at character 2; leave it out"),
    ({**asking(["a", "\0"]), "target": "fr"}, 400, "q[1] must be without NUL, got one at character 1"),
    ({"q": "a", "target": "de"}, 400, "source must be the code of a language, got nothing"),
    ({"q": "a", "source": "en"}, 400, "target must be the code of a language, got nothing"),
    ({"q": "a", "source": ["en"], "target": "de"}, 400, "source must be the code of a language, got list"),
    ({**asking("a"), "source": True}, 400, "source must be the code of a language, got True"),
    ({**asking("a"), "source": ""}, 400, "source must be the code of a language, got ''"),
    ({**asking("a"), "target": 3}, 400, "target must be the code of a language, got 3"),
    ({**asking("a"), "target": {}}, 400, "target must be the code of a language, got dict"),
    ({**asking("a"), "source": "auto"}, 400, "this server detects no languages"),
    ({**asking("a"), "source": "de"}, 400, "source must be one of en, got 'de'"),
    ({**asking("a"), "target": "zh"}, 400, "target must be one of de, fr for source en, got 'zh'"),
    ({**asking("a"), "target": "\ud800"}, 400, r"\ud800"),
    (asking("a", format="html"), 400, "format must be 'text', got 'html'"),
    (asking("a", format=["text"]), 400, "format must be 'text', got list"),
    (asking("a", alternatives=3), 400, "alternatives must be 0, since one translation is given, got 3"),
    (asking("a", alternatives=False), 400, "alternatives must be 0, since one translation is given, got False"),
    (asking("a", alternatives=[]), 400, "alternatives must be 0, since one translation is given, got list"),
    (asking("a", beams=3), 400, "fields must be among q, source, target, format, alternatives, api_key, got 'beams'"),
    (asking("a", api_key=3), 400, "api_key must be text, got int"),
    (asking("x" * 101), 413, "q must have at most 100 characters, got 101"),
    (asking(["a", "x" * 101]), 413, "q[1] must have at most 100 characters, got 101"),
    (asking(["a"] * 5), 413, "q must have at most 4 texts, got 5"),
    (asking("!?" * 45), 413, "text 1 must have at most 64 tokens, which is what the model takes, got"),
    ({**asking(["a", "!?" * 45]), "target": "fr"}, 413, "text 2 must have at most 61 tokens, which is what the model"),
    (asking("a", format="y" * 3000), 413, "the body must have at most 2000 bytes"),
]


JSON = {"content-type": "application/json"}
UNREADABLE = [
    ({"content": b"{", "headers": JSON}, 400, "the body must be JSON"),
    ({"content": b"[" * 100_000, "headers": JSON}, 400, "the body must be JSON"),
    ({"content": b"[]", "headers": JSON}, 400, "must be a JSON object"),
    ({"content": b'{"q": "a", "q": "b"}', "headers": JSON}, 400, "'q' must be given once, got it several times"),
    ({"content": b'{"q": "\xff"}', "headers": JSON}, 400, "the body must be JSON"),
    ({"content": b"1" * 5000, "headers": JSON}, 400, "the body must be JSON"),
    ({"content": b"q=%ff", "headers": FORM}, 400, "the form must be URL-encoded UTF-8"),
    ({"content": b"&q=" * 2000, "headers": FORM}, 400, "the form must be URL-encoded"),
    ({"content": b"q=a", "headers": {"content-type": "text/plain"}}, 415, "Content-Type must be"),
    ({"files": {"q": b"a"}}, 415, "Content-Type must be"),
    ({"content": b"source=en&source=de", "headers": FORM}, 400, "'source' must be given once"),
    ({"json": asking("a"), "params": {"q": "b"}}, 400, "'q' must be given once, got it in the query and in"),
]


def test_what_cannot_be_used_is_refused_as_libretranslate_does():
    settings = Settings(max_characters=100, max_texts=4, max_body=2000)
    requests = [{"content": json.dumps(fields), "headers": JSON} for fields, _, _ in WRONG]
    cases = [*zip(asked(translating(), settings, *requests), WRONG, strict=True)]
    cases += zip(asked(translating(), None, *(request for request, _, _ in UNREADABLE)), UNREADABLE, strict=True)
    for answer, (_, status, message) in cases:
        assert list(answer.json()) == ["error"], message
        assert message in answer.json()["error"]
        assert answer.status_code == status, message
        assert "\n" not in answer.json()["error"], message


def test_detection_is_refused_and_says_what_to_do():
    (answer,) = asked(translating(), None, {"data": {"q": TEXT}}, path="/detect")
    assert answer.status_code == 501
    assert answer.json() == {"error": "/detect must not be called: this server detects no languages; give source, en"}


def test_other_errors_have_the_same_form():
    async def get(method, path):
        async with in_process(translating()) as client:
            return await client.request(method, path)

    for method, path, status in [("GET", "/translate", 405), ("GET", "/nothing", 404)]:
        answer = asyncio.run(get(method, path))
        assert answer.status_code == status
        assert "see /docs for what there is" in answer.json()["error"]


def test_keys_are_asked_for_in_the_body_or_the_header():
    cases = [
        ({}, {}, 403),
        ({"api_key": "wrong"}, {}, 403),
        ({"api_key": ""}, {}, 403),
        ({"api_key": "one"}, {}, 200),
        ({}, {"authorization": "Bearer two"}, 200),
        ({}, {"authorization": "bearer two"}, 200),
        ({}, {"authorization": "BEARER  two "}, 200),
        ({}, {"authorization": "Bearer "}, 403),
        ({}, {"authorization": "two"}, 403),
        ({}, {"authorization": "Basic two"}, 403),
        ({}, {"authorization": b"Bearer zw\xc3\xb6lf"}, 403),
    ]
    requests = [{"data": asking(TEXT, **fields), "headers": headers} for fields, headers, _ in cases]
    answers = asked(translating(), Settings(api_keys=frozenset({"one", "two"})), *requests)
    for answer, (_, _, status) in zip(answers, cases, strict=True):
        assert answer.status_code == status
        assert answer.json().get("translatedText") == (expected()[TEXT] if status == 200 else None)
        assert ("api_key must be" in answer.json().get("error", "")) == (status == 403)


def test_more_requests_than_the_rate_are_told_when_to_come_back():
    answers = asked(translating(), Settings(requests_per_minute=2), *[{"data": asking(TEXT)}] * 3)
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert "requests must be at most 2 a minute" in answers[2].json()["error"]


def test_pages_of_browsers_may_call_only_where_their_origin_is_allowed():
    for allowed, given in (("https://a.example", "https://a.example"), ("https://b.example", None), (None, None)):
        settings = Settings(allow_origins=() if allowed is None else (allowed,))
        request = {"data": asking(TEXT), "headers": {"origin": "https://a.example"}}
        (answer,) = asked(translating(), settings, request)
        assert answer.headers.get("access-control-allow-origin") == given


def test_the_openapi_page_has_the_endpoints_that_the_model_has():
    async def get():
        async with in_process(translating()) as client:
            return (await client.get("/openapi.json")).json(), (await client.get("/docs")).text

    described, page = asyncio.run(get())
    assert described["paths"].keys() == {
        "/health", "/metrics", "/languages", "/detect", "/translate", "/translate/stream",
    }  # fmt: skip
    post = described["paths"]["/translate"]["post"]
    assert post["requestBody"]["content"].keys() == {"application/json", "application/x-www-form-urlencoded"}
    assert {"200", "400", "403", "413", "429", "503"} <= post["responses"].keys()
    example = post["requestBody"]["content"]["application/json"]["example"]
    assert (example["source"], example["target"]) == (PAIRS[0].source, PAIRS[0].target)
    assert "swagger" in page
