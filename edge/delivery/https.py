"""One HTTPS exchange at a time, in a thread of its own, so that a slow centre or name server never holds up MQTT.

The thread knows bytes only: the outbox and everything else stay in the relay's thread. `http.client` from the standard library.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
from urllib.parse import urlsplit

from edge.config import Relay
from edge.contract.frames import MAX_BODY
from edge.delivery.sync import Answer
from edge.delivery.tls import client_context
from edge.errors import CxrError

PATH = "/v1/sync"
_STEP_S = 10.0
"""Longest wait for a connection, a piece of the body, or a piece of the answer."""

_EXCHANGE_S = 60.0
"""Longest exchange; a centre that gives one byte now and then must not hold the way."""

_PIECE = 16 * 1024
_LONGEST_WORDS = 200


class HttpsExchange:
    """An `edge.delivery.sync.Exchange` with `POST /v1/sync` at the address of [relay] https."""

    def __init__(self, settings: Relay) -> None:
        self._settings = settings
        self._url = urlsplit(settings.https)
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._answer = Answer()
        self._until = 0.0
        self._given_up = False

    @property
    def busy(self) -> bool:
        """See `Exchange.busy`."""
        return self._thread is not None

    def begin(self, body: bytes, now: float) -> None:
        """See `Exchange.begin`."""
        self._until = now + _EXCHANGE_S
        self._given_up = False
        self._answer = Answer(trouble="The HTTPS exchange ended by an error of this software.")
        # A daemon: the process may end while a name server does not answer. Nothing is lost by that.
        self._thread = threading.Thread(target=self._run, args=(body,), name="https", daemon=True)
        self._thread.start()

    def poll(self, now: float) -> Answer | None:
        """See `Exchange.poll`."""
        if self._thread is None:
            return None
        if self._thread.is_alive():
            near = self._socket
            if now >= self._until and near is not None:
                self._given_up = True
                with contextlib.suppress(OSError):  # the thread may be closing it just now
                    near.shutdown(socket.SHUT_RDWR)
            return None
        self._thread.join()
        self._thread = None
        if self._given_up:
            return Answer(trouble=f"The centre at {self._url.netloc} did not finish its answer within {_EXCHANGE_S:g} s.")
        return self._answer

    def _run(self, body: bytes) -> None:
        where = self._url.netloc
        try:
            self._answer = self._post(body)
        except CxrError as error:
            self._answer = Answer(trouble=str(error))
        except ssl.SSLError as error:
            self._answer = Answer(trouble=f"No TLS connection to the centre at {where}, check the certificates: {error}")
        except OSError as error:
            self._answer = Answer(trouble=f"The centre at {where} cannot be reached: {error}")
        except (http.client.HTTPException, ValueError) as error:
            self._answer = Answer(trouble=f"What answers at {where} is no centre: {type(error).__name__}")
        finally:
            self._socket = None

    def _post(self, body: bytes) -> Answer:
        url = self._url
        if url.scheme == "https":
            context = client_context(self._settings)
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                url.hostname or "", url.port or 443, timeout=_STEP_S, context=context, blocksize=_PIECE
            )
        else:
            connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=_STEP_S, blocksize=_PIECE)
        with contextlib.closing(connection):
            connection.connect()
            # Kept, since the connection forgets it when an answer begins with `Connection: close`.
            self._socket = connection.sock
            return self._exchange(connection, body)

    def _exchange(self, connection: http.client.HTTPConnection, body: bytes) -> Answer:
        headers = {"Content-Type": "application/gzip", "Content-Length": str(len(body)), "Connection": "close"}
        # A file is sent piece by piece, and each piece has the whole of _STEP_S.
        connection.request("POST", PATH, io.BytesIO(body), headers)
        with connection.getresponse() as response:
            content = _read(response)
        if response.status == http.HTTPStatus.OK:
            return Answer(content)
        words = "".join(letter for letter in content.decode("utf-8", "replace") if letter.isprintable())[:_LONGEST_WORDS]
        retry = response.getheader("Retry-After", "")
        wait_s = min(float(retry), 900.0) if retry.isdecimal() else 0.0
        return Answer(trouble=f"The centre at {self._url.netloc} takes nothing (HTTP {response.status}): {words}", wait_s=wait_s)


def _read(response: http.client.HTTPResponse) -> bytes:
    """Return the whole answer, refusing more than the contract allows."""
    content = response.read(MAX_BODY + 1)
    if len(content) > MAX_BODY:
        raise http.client.HTTPException("too long")
    return content
