"""A server of the explorer on a loopback port."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from crossmask.explorer.model import ExploredModel
from crossmask.explorer.run import make_server


@contextmanager
def running(model: ExploredModel) -> Iterator[tuple[str, int]]:
    """The address at which a model's page is served, in a thread of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address: tuple[str, int] = probe.getsockname()
    server = make_server(model, *address)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield address
    finally:
        server.should_exit = True
        thread.join()
