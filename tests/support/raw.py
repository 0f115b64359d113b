"""A server that does with each connection what a test likes, down to the byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def raw_server(behave: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Accept one connection after the other and let `behave(socket)` do what it likes with each; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                with near, contextlib.suppress(OSError):
                    if context is None:
                        behave(near)
                        continue
                    with context.wrap_socket(near, server_side=True) as tls:
                        behave(tls)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
