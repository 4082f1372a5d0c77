"""Clients of LibreTranslate that others wrote, as they are: `pip install libretranslatepy deep-translator`."""

import pytest

pytest.importorskip("fastapi")

from servers import TEXTS, expected, listening, translating

from crossmask.server import Settings


@pytest.fixture(scope="module")
def server():
    with listening(translating(), Settings(api_keys=frozenset({"secret"}))) as running:
        yield running


def test_libretranslatepy(server):
    client = pytest.importorskip("libretranslatepy").LibreTranslateAPI(f"{server.url}/", api_key="secret")
    for text in TEXTS[:4]:
        assert client.translate(text, "en", "de") == expected()[text]
    assert [language["code"] for language in client.languages()] == ["en", "de", "fr"]


def test_libretranslatepy_sees_what_is_refused(server):
    from urllib.error import HTTPError

    library = pytest.importorskip("libretranslatepy")
    for key, target, status in (("secret", "xx", 400), ("wrong", "de", 403)):
        client = library.LibreTranslateAPI(f"{server.url}/", api_key=key)
        with pytest.raises(HTTPError) as caught:
            client.translate(TEXTS[0], "en", target)
        assert caught.value.code == status
    with pytest.raises(HTTPError) as caught:
        library.LibreTranslateAPI(f"{server.url}/", api_key="secret").detect(TEXTS[0])
    assert caught.value.code == 501


def test_deep_translator(server):
    library = pytest.importorskip("deep_translator")
    client = library.LibreTranslator(source="en", target="de", custom_url=f"{server.url}/", api_key="secret")
    assert [client.translate(text) for text in TEXTS[:4]] == [expected()[text] for text in TEXTS[:4]]
    assert client.translate_batch(TEXTS[4:6]) == [expected()[text] for text in TEXTS[4:6]]
    wrong = library.LibreTranslator(source="en", target="de", custom_url=f"{server.url}/", api_key="wrong")
    with pytest.raises(library.exceptions.AuthorizationException):
        wrong.translate(TEXTS[0])
