"""The TLS handshake of the HTTPS server, and who may stay: no flood of connections takes all descriptors or keeps devices out.

A newcomer is always let in. Where there is no place, the oldest connection of the same sender has to go, or of whoever has the
most: so a flood drives out itself. A device at the address of the flood is through if its handshake is quicker than the flood fills
that address's places; any other device is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable
from typing import cast

HANDSHAKE_S = 15.0
"""Longest TLS handshake; a device gives up after 10 s."""


class Places:
    """A bounded number of connections, each of a sender: an address before the handshake, the name in a certificate after it."""

    def __init__(self, total: int, each: int) -> None:
        """Args: total: connections at one time; each: of them those of one sender."""
        self._total = total
        self._each = each
        self._held: dict[asyncio.BaseTransport, str] = {}  # in the order in which they came
        self._count: Counter[str] = Counter()

    def enter(self, sender: str, connection: asyncio.BaseTransport) -> asyncio.BaseTransport | None:
        """Give a place to a connection; return the one that has to go for it, if any. That one has no place any more."""
        crowd = None
        if self._count[sender] >= self._each:
            crowd = sender
        elif len(self._held) >= self._total:
            crowd = self._count.most_common(1)[0][0]
        gone = None if crowd is None else next(one for one, whose in self._held.items() if whose == crowd)
        if gone is not None:
            self.leave(gone)
        self._held[connection] = sender
        self._count[sender] += 1
        return gone

    def leave(self, connection: asyncio.BaseTransport) -> None:
        """Take the place back, if the connection has one."""
        sender = self._held.pop(connection, None)
        if sender is not None:
            self._count[sender] -= 1
            if not self._count[sender]:
                del self._count[sender]


class Gate(asyncio.Protocol):
    """One connection until its handshake is done; then the inner protocol has it, and what came early."""

    def __init__(self, inner: asyncio.Protocol, context: ssl.SSLContext, places: Places, crowded: Callable[[], None]) -> None:
        """Args: crowded: told when a connection had to go for a newer one."""
        self._inner = inner
        self._context = context
        self._places = places
        self._crowded = crowded
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find a place, and begin the handshake."""
        plain = cast(asyncio.Transport, transport)
        plain.pause_reading()  # the first byte is for the handshake
        if (gone := self._places.enter((plain.get_extra_info("peername") or ("",))[0], plain)) is not None:
            cast(asyncio.Transport, gone).abort()
            self._crowded()
        self._task = asyncio.get_running_loop().create_task(self._let_in(plain))

    def data_received(self, data: bytes) -> None:
        """Keep what comes with the end of the handshake."""
        self._early += data

    async def _let_in(self, plain: asyncio.Transport) -> None:
        try:
            if plain.is_closing():
                return
            loop = asyncio.get_running_loop()
            tls = await loop.start_tls(plain, self, self._context, server_side=True, ssl_handshake_timeout=HANDSHAKE_S)
        except OSError:
            return  # no TLS, no certificate of ours, too slow, or gone; asyncio has closed it
        finally:
            self._places.leave(plain)
        if tls is None or tls.is_closing():
            return  # it had to go
        tls.set_protocol(self._inner)
        self._inner.connection_made(tls)
        if self._early:
            self._inner.data_received(self._early)
