"""Connections that cannot shut the page: one that asks for nothing is closed, and one address has a share of them only.

uvicorn limits how many there are and not how long one may say nothing. A film over bad Wi-Fi takes minutes, and must get through.
"""

from __future__ import annotations

import asyncio
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0
"""From the beginning of a connection, or its last answer, until the whole head of a request is there."""

STALLED_S = 60.0
"""Without one byte in or out while a body or an answer is on its way."""

EACH = 32
"""Connections of one address: a browser opens six, and several may stand behind one address."""

_LOOK_S = 0.5
_REST_BYTES = 4096
"""Of a body that was refused: what has to come in REQUEST_S. Browsers read the refusal only when they have sent everything."""

_PROBES = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class Connection(H11Protocol):
    """One connection of a browser; `uvicorn.Config(http=Connection)` takes it instead of its own."""

    @property
    def address(self) -> str:
        """Whose it is."""
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch it, unless its address has too many."""
        super().connection_made(transport)
        self._received = 0
        self._mark: object = None
        self._since = self.loop.time()
        self._timer = self.loop.call_later(_LOOK_S, self._look)
        beside = [other for other in self.connections if isinstance(other, Connection) and other.address == self.address]
        if len(beside) > EACH:
            transport.abort()
            return
        own: socket.socket = transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES:
            own.setsockopt(socket.IPPROTO_TCP, option, value)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note that something came."""
        self._received += len(data)
        super().data_received(data)

    def _look(self) -> None:
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        answering = self.cycle is not None and not self.cycle.response_complete
        mark: object
        if answering and not unsent and not self.cycle.more_body:
            mark = now  # it is for the page to go on
        elif answering or unsent:
            mark = (self.cycle, self._received, unsent)
        elif self.conn.their_state is h11.SEND_BODY:
            mark = (self.cycle, self._received // _REST_BYTES)
        else:
            mark = (self.cycle,)
        if mark != self._mark:
            self._mark, self._since = mark, now
        elif now - self._since > (STALLED_S if answering or unsent else REQUEST_S):
            self.transport.abort()
            return
        self._timer = self.loop.call_later(_LOOK_S, self._look)
