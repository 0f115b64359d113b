"""The HTTPS server of `/v1/sync`: uvicorn in a thread beside the aggregator's loop, mutual TLS, one request for each connection.

uvicorn does not tell an application whose certificate the other end showed. The protocol class here puts the name in it into the
scope. The aggregator needs descriptors for MQTT and the database, so connections get about half of all at most.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.errors import StartError
from broker.sync.app import PEER, Peer
from broker.sync.gate import Gate, Places

log = logging.getLogger(__name__)

_CONNECTION_S = 60.0
"""Longest life of one connection, whatever the other end does or leaves undone."""

_CONNECTIONS = 64
"""Requests at one time; also how many connections are accepted in one go."""

_SHAKING = 256
"""Connections at one time whose handshake is not done; a quarter of them from one address, which many devices may share."""

_OPEN = 2 * _CONNECTIONS
"""Connections at one time after it, so that some are left to be told that there are too many; an eighth of them of one device."""

_QUEUE = 1024
"""Connections that wait in the system to be accepted, without descriptors. A short queue costs a device seconds in a flood."""

_SAY_EVERY_S = 60.0
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
            self._socket = socket.create_server((listen.host, listen.port), backlog=_QUEUE)
        except OSError as error:
            raise StartError(f"{listen.host}:{listen.port} cannot be used ({error.strerror}); choose another --sync.") from None
        share = _share_of_descriptors()
        shaking, open_ = (
            Places(max(most // share, 8), max(most // share // part, 2)) for most, part in ((_SHAKING, 4), (_OPEN, 8))
        )
        notices = _Notices()

        def protocol(**given: Any) -> asyncio.Protocol:
            inner = _Protocol(open_, **given)
            return inner if listen.tls is None else Gate(inner, listen.tls, shaking, notices.crowded)

        config = uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type]  # uvicorn only calls it
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            backlog=max(_CONNECTIONS // share, 8),
            timeout_graceful_shutdown=5,
        )
        self._server = _Server(config, notices)
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


class _Notices:
    """What goes wrong with connections, each in a sentence and at most once a minute: strangers must not fill the log."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def crowded(self) -> None:
        """A connection had to go for a newer one."""
        self._say("Many connections to --sync without a TLS handshake; the oldest are ended. Check who may reach this port.")

    def failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error of the loop's own: one of the system, as when no descriptor is left, or a defect."""
        error = context.get("exception")
        if isinstance(error, OSError):
            self._say(f"--sync has trouble with a connection: {error.strerror or type(error).__name__}.")
        else:
            loop.default_exception_handler(context)

    def _say(self, sentence: str) -> None:
        now = time.monotonic()
        if now - self._said.get(sentence, -_SAY_EVERY_S) >= _SAY_EVERY_S:
            self._said[sentence] = now
            log.warning(sentence)


class _Server(uvicorn.Server):
    """uvicorn with a longer queue in front of it, and fewer words."""

    def __init__(self, config: uvicorn.Config, notices: _Notices) -> None:
        super().__init__(config)
        self._notices = notices

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._notices.failed)
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(_QUEUE)  # asyncio takes one number for this and for how many it accepts in one go


class _Protocol(H11Protocol):
    """One connection after its handshake: its peer's name goes into the scope of its request, and its time is limited."""

    def __init__(self, places: Places, **given: Any) -> None:
        super().__init__(**given)
        self._places = places

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._end = self.loop.call_later(_CONNECTION_S, transport.abort)
        tls = transport.get_extra_info("ssl_object")
        shown = None if tls is None else tls.getpeercert() or {}
        peer = None if shown is None else Peer(common_name(shown), str(shown.get("serialNumber", "0")))
        # Without TLS nobody has a name: then each connection stands for itself.
        if (gone := self._places.enter(f"{id(self)}" if peer is None else peer.name, transport)) is not None:
            cast(asyncio.Transport, gone).abort()
        app = self.app

        async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
            scope[PEER] = peer
            await app(scope, receive, send)

        self.app = with_peer

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        self._places.leave(self.transport)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.transport.close()


def _share_of_descriptors() -> int:
    """Return by how much all bounds are to be divided: 1 where the system allows the usual 1024 descriptors or more."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 if soft == resource.RLIM_INFINITY else max(1, -(-1024 // soft))


def common_name(certificate: dict[str, Any] | None) -> str:
    """Return the one common name of a certificate as `ssl` describes it; empty, which is no device, if there is not exactly one."""
    subject = (certificate or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else ""
