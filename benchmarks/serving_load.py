"""A server under load: requests a second and how long they take, over translating one by one with `generate()`.

    python -m benchmarks.serving_load --model runs/multi30k-en-de --requests 512

Each engine serves the same model on a loopback port, and 1, 8 and 64 clients ask for one text at a time, each as soon
as its last one is answered. The first row is a program that calls `generate()` for one text after the other. Without
`--model` a model of random weights is served, whose outputs all have `--new-tokens`. Client and server are one
process, and the clients' time is counted.
"""

import argparse
import asyncio
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx2 as httpx
import torch

from benchmarks.harness import add_page_options, machine, parse_options, publish, table
from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.inference.texts import translate_batch
from crossmask.server import LanguagePair, Settings, create_app, load_served_model
from crossmask.server.models import ServedModel
from crossmask.serving import export, load_translator
from crossmask.serving.ctranslate2_refusals import refusals

WORDS = [
    "a",
    "small",
    "dog",
    "barks",
    "loudly",
    "at",
    "two",
    "cats",
    "near",
    "the",
    "old",
    "train",
    "of",
    "red",
    "paper",
]
PAIR = LanguagePair("en", "de")


def texts_of(count: int) -> list[str]:
    """Texts of 5 to 20 words, in an order that mixes lengths."""
    return [" ".join(itertools.islice(itertools.cycle(WORDS[i % 15 :]), 5 + i * 7 % 16)) for i in range(count)]


def random_model(folder: Path, size: int, new_tokens: int) -> None:
    """Save a model of random weights that CTranslate2 can express, and a tokenizer."""
    tokenizer = train_tokenizer(texts_of(200), vocab_size=400)
    torch.manual_seed(0)
    config = CrossMaskConfig(
        vocab_size=len(tokenizer), hidden_size=size, intermediate_size=2 * size, memory_length=None
    )
    model = CrossMaskForConditionalGeneration(config)
    model.generation_config.update(max_new_tokens=new_tokens, num_beams=1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def served(model: ServedModel) -> Iterator[str]:
    """The address of a server of a model, in a thread of this process."""
    from crossmask.server.run import make_server

    settings = Settings(max_queue=1024)
    server = make_server(create_app(model, settings), settings, "127.0.0.1", 0)
    server.config.log_level = "warning"
    server.config.configure_logging()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


async def load(address: str, texts: Sequence[str], clients: int) -> tuple[float, list[float]]:
    """Seconds for all texts, and of each request."""
    remaining, seconds = iter(texts), []

    async def ask(client: httpx.AsyncClient) -> None:
        for text in remaining:
            began = time.perf_counter()
            answer = await client.post("/translate", json={"q": text, "source": "en", "target": "de"})
            answer.raise_for_status()
            seconds.append(time.perf_counter() - began)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client:
        began = time.perf_counter()
        await asyncio.gather(*(ask(client) for _ in range(clients)))
        return time.perf_counter() - began, seconds


def row(name: str, clients: int | str, elapsed: float, seconds: Sequence[float], base: float) -> list[str]:
    """A line of the table. Args: base: requests a second of the first line."""
    cuts = statistics.quantiles(seconds, n=100)
    rate = len(seconds) / elapsed
    ratio = rate / base if base else 1.0
    return [name, str(clients), f"{rate:.1f} ({ratio:.2f})", *(f"{cuts[at - 1] * 1e3:,.0f}" for at in (50, 90, 99))]


def measure(folder: Path, place: Path, texts: Sequence[str], clients: Sequence[int]) -> list[list[str]]:
    """All lines of the table."""
    options = {"device": "cpu", "dtype": "float32", "threads": torch.get_num_threads()}
    translator = load_translator(folder, "torch", **options)
    network, tokenizer = translator.model, translator.tokenizer  # type: ignore[attr-defined]  # of PyTorch
    translate_batch(network, tokenizer, texts[:2], progress=False)
    seconds = []
    for text in texts:
        began = time.perf_counter()
        translate_batch(network, tokenizer, [text], progress=False)
        seconds.append(time.perf_counter() - began)
    base = len(seconds) / sum(seconds)
    rows = [row("`generate()` one by one", "", sum(seconds), seconds, 0.0)]
    folders = {"torch": (folder, "float32")}
    if find_spec("ctranslate2") and not refusals(network.config, network.generation_config):
        for dtype in ("float32", "int8"):
            folders[f"ctranslate2, {dtype}"] = export(folder, "ctranslate2", place / dtype, dtype=dtype).folder, "auto"
    for name, (path, dtype) in folders.items():
        model = load_served_model(path, pairs=[PAIR], **{**options, "dtype": dtype})
        with served(model) as address:
            asyncio.run(load(address, texts[:2], 1))
            for count in clients:
                rows.append(row(name, count, *asyncio.run(load(address, texts, count)), base))
        model.close()
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a trained model (random weights)")
    parser.add_argument("--requests", type=int, default=512, help="for each number of clients")
    parser.add_argument("--new-tokens", type=int, default=20, help="of each output of random weights")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (1)")
    add_page_options(parser, "serving_load")
    options = parse_options(parser, argv, quick=("requests", "new_tokens"))
    size, clients = 256, (1, 8, 64)
    if options.quick:
        size, clients, options.requests, options.new_tokens = 16, (1, 8), 16, 4
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = options.model or Path(place, "model")
        if options.model is None:
            random_model(folder, size, options.new_tokens)
        rows = measure(folder, Path(place), texts_of(options.requests), clients)
    header = ["engine", "clients", "requests/s (ratio)", "p50, ms", "p90, ms", "p99, ms"]
    what = options.model or f"random weights, hidden size {size}, {options.new_tokens} new tokens"
    page = (
        f"# A server under load\n\n{machine()}\n\n{what}; {options.requests} requests of 5 to 20 words for each "
        f"line\n\n{table(header, rows)}"
    )
    publish(page, options.output)


if __name__ == "__main__":
    main()
