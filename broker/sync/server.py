"""The HTTPS server of `/v1/sync`: uvicorn in a thread beside the aggregator's loop, mutual TLS, one request for each connection.

uvicorn does not tell an application whose certificate the other end showed. The protocol class here puts the name in it into the
scope.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.errors import StartError
from broker.sync.app import PEER

_CONNECTION_S = 60.0
"""Longest life of one connection, whatever the other end does or leaves undone."""

_CONNECTIONS = 64
_LOOPBACK = {"127.0.0.1", "localhost"}


@dataclass(frozen=True)
class Listen:
    """Where to listen; `https://` with the server's certificate and the authority of the devices, `http://` on loopback without."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str, ca: Path | None, cert: Path | None, key: Path | None) -> Listen:
        """Read `https://host:port` or, for this machine alone, `http://127.0.0.1:port`.

        Raises:
            StartError: if `url` is neither, or the files are missing or cannot be used.
        """
        parts = urlsplit(url)
        try:
            port = parts.port or 8444
        except ValueError:
            port = 0
        host = parts.hostname or ""
        if parts.scheme not in {"http", "https"} or not host or not port or parts.path.strip("/"):
            raise StartError(f"{url!r} is no address to listen at; write https://0.0.0.0:8444.")
        if parts.scheme == "http":
            if host not in _LOOPBACK:
                raise StartError("http:// is for this machine alone; write https://, or http://127.0.0.1:8444.")
            return cls(host, port, None)
        if ca is None or cert is None or key is None:
            raise StartError("https:// needs --sync-ca, --sync-cert and --sync-key.")
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(ca)
            context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise StartError(f"The certificates of --sync cannot be used ({error}).") from None
        return cls(host, port, context)


class SyncServer:
    """Serves an application until it is closed."""

    def __init__(self, app: ASGIApp, listen: Listen) -> None:
        """Begin to listen.

        Raises:
            StartError: if the address cannot be used.
        """
        try:
            self._socket = socket.create_server((listen.host, listen.port), backlog=_CONNECTIONS)
        except OSError as error:
            raise StartError(f"{listen.host}:{listen.port} cannot be used ({error.strerror}); choose another --sync.") from None
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
        config.load()
        config.ssl = listen.tls  # a context of our own: uvicorn's options leave the oldest protocol version open
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="sync", daemon=True)

    def start(self) -> None:
        """Begin to answer; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Finish the requests in hand and stop."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(10.0)
        self._socket.close()


class _Protocol(H11Protocol):
    """One connection: its peer's name goes into the scope of its request, and its time is limited."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._end = self.loop.call_later(_CONNECTION_S, transport.abort)
        tls = transport.get_extra_info("ssl_object")
        peer = None if tls is None else common_name(tls.getpeercert())
        app = self.app

        async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
            scope[PEER] = peer
            await app(scope, receive, send)

        self.app = with_peer

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.transport.close()


def common_name(certificate: dict[str, Any] | None) -> str:
    """Return the one common name of a certificate as `ssl` describes it; empty, which is no device, if there is not exactly one."""
    subject = (certificate or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else ""
