"""The explorer's page in Chromium: on a server, and as static files, both of a tiny trained model."""

import os
import shutil
from pathlib import Path

import pytest
from browsers import chromium, serving_files
from trained_models import tokenizer, trained_model

import crossmask

EXPLORER = Path(crossmask.__file__).parent / "explorer"


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    """A folder with the model and its tokenizer."""
    folder = tmp_path_factory.mktemp("explored") / "tiny"
    trained_model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def browser():
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="session")
def server_url(saved, browser):
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from explorers import running

    from crossmask.explorer.loading import load_explored_model

    with running(load_explored_model(str(saved), device="cpu")) as (host, port):
        yield f"http://{host}:{port}/"


@pytest.fixture(scope="session")
def static_folder(saved, browser, tmp_path_factory) -> Path:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    from crossmask.explorer import write_static

    modules = os.environ.get("CROSSMASK_EXPLORER_MODULES") or EXPLORER / "node_modules"
    is_there = Path(modules).is_dir()
    if not is_there and shutil.which("npm") is None:
        pytest.skip("npm is not installed, which installs what runs a model in a browser")
    folder = tmp_path_factory.mktemp("static") / "site"
    return write_static(str(saved), folder, node_modules=modules if is_there else None)


@pytest.fixture(scope="session")
def static_url(static_folder):
    with serving_files(static_folder) as url:
        yield url


@pytest.fixture(params=["server", "static"])
def url(request) -> str:
    """The address of the page, of either version."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def open_page(browser):
    """A function that opens a page; at the end of a test there must have been no error in any console."""
    contexts, errors = [], []

    def open_at(url: str, width: int = 1280, *, ready: bool = True, allow_errors: bool = False, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        if not allow_errors:
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(url)
        if ready:
            page.wait_for_selector(".alignment")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert not errors
