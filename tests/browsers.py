"""Node and Chromium, where a machine has them: tests that need one are skipped elsewhere, with a reason."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


def find_node() -> str:
    """Node.js: the machine's own, or the one that Playwright brings."""
    found = shutil.which("node")
    if found is None:
        playwright = pytest.importorskip("playwright", reason="neither Node.js nor Playwright is installed")
        found = str(Path(playwright.__file__).parent / "driver" / "node")
    return found


@contextmanager
def chromium() -> Iterator:
    """A headless Chromium of Playwright: the one that `CROSSMASK_CHROMIUM` names, or Playwright's own."""
    pytest.importorskip("playwright", reason="Playwright is not installed; run: make test-browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = os.environ.get("CROSSMASK_CHROMIUM") or playwright.chromium.executable_path
        if not Path(path).is_file():
            pytest.skip(f"there is no Chromium at {path}; run: playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing."""


@contextmanager
def serving_files(folder: Path) -> Iterator[str]:
    """The address at which the files of a folder are served on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
