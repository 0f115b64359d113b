"""What stands in front of pynetdicom: no peer may make it hold more bytes, more connections or a connection longer than allowed.

pynetdicom 3.0 reads a PDU of whatever length its header declares, 4 GiB before any association too, and waits for its bytes
without end. Here a PDU is refused at its header, a whole PDU has to come within a time, and connections are counted.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation as Role
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from edge.dicom.peers import normal

log = logging.getLogger(__name__)

_HEADER = struct.Struct(">BBL")
_OTHER_PDU_BYTES = 64 * 1024
"""For everything but data: an association request with all its presentation contexts has a few KiB."""
_P_DATA = 0x04
_KNOWN_TYPES = range(0x01, 0x08)
_BEFORE = ("Sta1", "Sta2", "Sta3", "Sta4", "Sta5")
"""States of PS3.8 in which there is no association yet."""
_CLOSING = "Sta13"
_ASSOCIATE_S = 10.0
_STRANGERS = 4
"""Connections from addresses that no entry of `allow` has, together: enough to be told why, too few to be in the way."""

MakeDimse = Callable[[Association], DIMSEServiceProvider]


@dataclass(frozen=True)
class Limits:
    """What one peer may do. `max_pdu` is what is negotiated; `known` are the addresses of those who may associate."""

    max_pdu: int
    silent_s: float
    max_connections: int
    known: frozenset[str]


class GuardedSocket(AssociationSocket):
    """Reads PDUs for pynetdicom, which asks for the six bytes of a header and then for as many as that declares."""

    limits: Limits
    _deadline = 0.0
    _in_body = False

    def recv(self, nr_bytes: int) -> bytearray:
        """Return `nr_bytes` bytes.

        Raises:
            OSError: if the peer is too slow, breaks off, or announces what is not allowed; the connection is then closed.
        """
        if self._in_body:
            self._in_body = False
            return self._read(nr_bytes)
        self._deadline = time.monotonic() + self.limits.silent_s
        if self.socket is not None:
            # A sender's last, short segment waits for the acknowledgement of the one before; the kernel would delay that by 40 ms,
            # and forgets after a while that it was told not to.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        header = self._read(nr_bytes)
        kind, _, length = _HEADER.unpack(header)
        self._check(kind, length)
        self._in_body = True
        return header

    def _check(self, kind: int, length: int) -> None:
        state = self.assoc.dul.state_machine.current_state
        if state == _CLOSING:
            raise ConnectionAbortedError
        if kind not in _KNOWN_TYPES or (kind == _P_DATA and state in _BEFORE):
            self._refuse(f"what it sent is no DICOM (PDU type 0x{kind:02X})")
        allowed = self.limits.max_pdu if kind == _P_DATA else _OTHER_PDU_BYTES
        if length > allowed:
            self._refuse(f"it announced a PDU of {length} bytes, and {allowed} are allowed")

    def _read(self, count: int) -> bytearray:
        content = bytearray(count)
        view = memoryview(content)
        done = 0
        connection = self.socket
        if connection is None:
            raise ConnectionAbortedError
        while done < count:
            left = self._deadline - time.monotonic()
            if left <= 0:
                self._refuse(f"it took longer than {self.limits.silent_s:g} s for one PDU")
            connection.settimeout(left)
            try:
                got = connection.recv_into(view[done:])
            except TimeoutError:
                continue
            except ssl.SSLError as error:
                self._refuse(f"TLS failed ({error.reason})")
            if not got:
                raise ConnectionResetError
            done += got
        connection.settimeout(self.limits.silent_s)  # for what is sent
        return content

    def _refuse(self, why: str) -> None:
        address = self.assoc.remote["address"]
        log.warning("a connection from %s was closed: %s", address, why, extra={"event": "cut_off", "fields": {"peer": address}})
        raise ConnectionAbortedError(why)


class GuardedApplication(AE):
    """An application entity whose own associations are guarded too, and whose timeouts are set."""

    def __init__(self, ae_title: str, limits: Limits) -> None:
        super().__init__(ae_title)
        self._limits = limits
        self.maximum_pdu_size = limits.max_pdu
        self.acse_timeout = self.connection_timeout = min(_ASSOCIATE_S, limits.silent_s)
        self.dimse_timeout = self.network_timeout = limits.silent_s

    def call(
        self,
        address: str,
        port: int,
        ae_title: str,
        tls: ssl.SSLContext | None,
        roles: Sequence[Role] = (),
    ) -> Association:
        """Open an association with a peer; whether it is established, the association says. tls: None for a plain connection."""
        wrapped = None if tls is None else (tls, address)
        return self.associate(address, port, ae_title=ae_title, ext_neg=list(roles) or None, tls_args=wrapped)

    def _create_socket(self, *arguments: Any, **options: Any) -> AssociationSocket:
        return _guard(super()._create_socket(*arguments, **options), self._limits)


class GuardedServer(AssociationServer):
    """Accepts connections as long as there are not too many; never waits for a peer while it does."""

    def __init__(
        self,
        application: GuardedApplication,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
        handlers: list[EventHandlerType],
        limits: Limits,
        make_dimse: MakeDimse,
    ) -> None:
        """Bind and listen. Raises OSError if the address is not of this machine or in use."""
        self.limits = limits
        self.turned = False
        self.make_dimse = make_dimse
        super().__init__(application, address, application.ae_title, application.supported_contexts, tls, handlers, _Handler)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept; a TLS handshake is left to the thread of the connection."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(self.limits.silent_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether one more connection from that address may be open."""
        known, most, here = self.limits.known, self.limits.max_connections, normal(client_address[0])
        now = [normal(str(connection.remote["address"])) for connection in self.active_associations]
        if here in known:
            return sum(address in known for address in now) < most and now.count(here) < fair_share(most, len(known))
        return sum(address not in known for address in now) < _STRANGERS

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say that a connection could not be served; the others go on."""
        log.error("a connection from %s could not be served (%s)", client_address[0], sys.exc_info()[0])

    def service_actions(self) -> None:
        """Note that the loop which accepts has turned; `turned` is reset by who looks."""
        super().service_actions()
        self.turned = True

    def stop_listening(self) -> None:
        """Refuse new connections from now on; what is open goes on."""
        super(AssociationServer, self).shutdown()
        self.server_close()

    def cut_off(self) -> None:
        """End every connection, also one whose thread waits for bytes."""
        for assoc in self.active_associations:
            connection = assoc.dul.socket.socket if assoc.dul.socket is not None else None
            if connection is not None:
                with contextlib.suppress(OSError):  # it has just ended
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(RequestHandler):
    """Gives each connection its guarded socket and its bounded message reader."""

    server: GuardedServer

    def _create_association(self) -> Association:
        assoc = super()._create_association()
        assert assoc.dul.socket is not None
        _guard(assoc.dul.socket, self.server.limits)
        assoc.dimse = self.server.make_dimse(assoc)
        return assoc


def fair_share(most: int, machines: int) -> int:
    """Return how many of `most` one machine may have, so that it never shuts the others out."""
    return most if machines < 2 else max(1, most - 1)


def _guard(plain: AssociationSocket, limits: Limits) -> GuardedSocket:
    """Make a socket of pynetdicom a guarded one in place: making a second one would announce the connection twice."""
    plain.__class__ = GuardedSocket
    assert isinstance(plain, GuardedSocket)
    plain.limits = limits
    return plain
