"""A device's outbox and relay without its pictures, and a way to the centre that stops carrying without being closed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.commands.setup_device import set_up
from edge.contract import codec
from edge.outbox.writer import Entry, Outbox
from tests.support import messages
from tests.support.authority import Identity
from tests.support.centre import ROOT
from tests.support.processes import running


@dataclass
class Remote:
    """One device, of which only `cxr-edge relay` runs."""

    home: Path
    name: str

    @property
    def config(self) -> Path:
        return self.home / "device.toml"

    @property
    def log(self) -> Path:
        return self.home / "relay.log"

    def outbox(self) -> Outbox:
        """Open the outbox, making it if it is not there."""
        return Outbox(self.home / "state" / "outbox.db", self.name)

    def record(self, count: int) -> None:
        """Put `count` results into the outbox, in one transaction each."""
        with contextlib.closing(self.outbox()) as outbox:
            for _ in range(count):
                number = outbox.last_seq() + 1
                outbox.record(Entry(f"{number}", "result", lambda seq: codec.encode(messages.result(self.name, seq, outbox.epoch))))

    def record_at_once(self, count: int) -> None:
        """Put a large backlog into a new outbox, in one transaction."""
        with contextlib.closing(self.outbox()) as outbox:
            outbox._db.execute("BEGIN")
            for seq in range(1, count + 1):
                payload = codec.encode(messages.result(self.name, seq, outbox.epoch))
                outbox._db.execute(
                    "INSERT INTO outcome (number, source_key, kind, payload, original_name, place, crc) "
                    "VALUES (?, ?, 'result', ?, '', '', ?)",
                    (seq, str(seq), payload, zlib.crc32(payload)),
                )
            outbox._db.execute("UPDATE stream SET last_seq = ?", (count,))
            outbox._db.execute("COMMIT")

    def waiting(self) -> int:
        """Return how many outcomes wait for a receipt."""
        with contextlib.closing(self.outbox()) as outbox:
            return outbox.waiting()

    def said(self, words: str) -> int:
        """How often it has said that."""
        return self.log.read_text(errors="replace").count(words) if self.log.exists() else 0

    @contextlib.contextmanager
    def relay(self, clock: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Run `cxr-edge relay`; `clock`: what its environment has of another time."""
        arguments = [sys.executable, "-m", "edge.cli", "relay", "--config", str(self.config)]
        with running(arguments, self.log, cwd=ROOT, env={**os.environ, **(clock or {})}) as process:
            yield process


def remote(home: Path, name: str, broker: str, **relay: object) -> Remote:
    """Write a device's files; `relay` are lines of [relay]."""
    set_up(home, name, "Test clinic", broker)
    made = Remote(home, name)
    lines = [f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in relay.items()]
    made.config.write_text(made.config.read_text("utf-8") + "\n".join(lines) + "\n", "utf-8")
    return made


def tls(ca: Path, identity: Identity) -> dict[str, object]:
    """The lines of [relay] that name the TLS files."""
    return {"ca": str(ca), "certificate": str(identity.cert), "private_key": str(identity.key)}


class Wire:
    """A TCP proxy on loopback. `cut` makes it swallow everything while both connections stay open, as a dead radio link does."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._cut = threading.Event()
        self._sockets: list[socket.socket] = []
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Swallow everything from now on, in both directions, on old and new connections."""
        self._cut.set()

    def mend(self) -> None:
        """Carry new connections again; what was swallowed stays lost."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._cut.clear()

    def close(self) -> None:
        """Close everything."""
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.accepted += 1
                self._sockets.append(near)
                with contextlib.suppress(OSError):
                    far = socket.create_connection(("127.0.0.1", self._target))
                    self._sockets.append(far)
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if not self._cut.is_set():
                    target.sendall(piece)
        if not self._cut.is_set():
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wire(target: int) -> Iterator[Wire]:
    """Run a proxy in front of a loopback port."""
    made = Wire(target)
    try:
        yield made
    finally:
        made.close()
