"""Benchmarks that read Multi30k read a few lines in its place."""

import gzip

import pytest


@pytest.fixture
def tiny_multi30k(tmp_path, monkeypatch):
    for part in ("train", "val", "test_2016_flickr"):
        for language, words in (("en", "a dog runs by the lake"), ("de", "ein Hund läuft am See vorbei")):
            path = tmp_path / "data" / "multi30k" / f"{part}.{language}.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress("".join(f"{words} {number}\n" for number in range(130)).encode()))
    monkeypatch.setenv("CROSSMASK_DATA", str(tmp_path / "data"))
