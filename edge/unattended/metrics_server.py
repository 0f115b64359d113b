"""Serves one text by HTTP on loopback, in a thread: a few lines of sockets, since a web server would cost the relay more memory."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable

import apsw

from edge.errors import CxrError
from edge.unattended.metrics import CONTENT_TYPE

log = logging.getLogger(__name__)

_PATIENCE_S = 2.0
_MOST_BYTES = 8192


def serve_in_thread(port: int, text: Callable[[], str]) -> None:
    """Serve `text()` at http://127.0.0.1:PORT/metrics, one request after the other, until the process ends.

    Raises:
        CxrError: if the port cannot be listened on.
    """
    try:
        server = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise CxrError(f"[metrics] port {port} cannot be listened on ({error.strerror}). Choose another one.") from None
    threading.Thread(target=_serve, args=(server, text), name="metrics", daemon=True).start()


def _serve(server: socket.socket, text: Callable[[], str]) -> None:
    while True:
        with contextlib.suppress(OSError):  # who asked has gone, or says nothing
            connection, _ = server.accept()
            with connection:
                connection.sendall(_answer(_request(connection), text))


def _request(connection: socket.socket) -> bytes:
    head, until = b"", time.monotonic() + _PATIENCE_S
    while b"\r\n\r\n" not in head and len(head) < _MOST_BYTES:
        connection.settimeout(max(until - time.monotonic(), 0.001))
        piece = connection.recv(_MOST_BYTES)
        if not piece:
            break
        head += piece
    return head


def _answer(request: bytes, text: Callable[[], str]) -> bytes:
    method, _, rest = request.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", "only GET is served\n")
    if path != b"/metrics":
        return _response("404 Not Found", "see /metrics\n")
    try:
        body = text()
    except (CxrError, apsw.Error, OSError) as error:
        log.warning("the metrics cannot be read (%s)", error)
        return _response("503 Service Unavailable", "the state of the device cannot be read\n")
    except Exception as error:  # one fault must not end this thread for good
        log.error("the metrics cannot be made (%s)", type(error).__name__)
        return _response("503 Service Unavailable", "the state of the device cannot be read\n")
    response = _response("200 OK", body, CONTENT_TYPE)
    return response if method == b"GET" else response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _response(status: str, body: str, content_type: str = "text/plain; charset=utf-8") -> bytes:
    content = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content
