"""The clinic's page of a device in a folder, served to real sockets by a thread of the test, without the other processes."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from edge.capacity import Capacity
from edge.config import Commissioning, Decode, Page
from edge.contract.codec import encode
from edge.contract.messages import AnyOutcome
from edge.infer.local import LocalFacts, LocalStore
from edge.intake.spool import Spool
from edge.network.manifest import bundle_folder, read_manifest
from edge.outbox.reader import OutboxReader
from edge.outbox.reading import Reading
from edge.outbox.writer import Entry, Outbox
from edge.page.app import Parts, create_app
from edge.page.checking import Checking
from edge.page.film import Films
from edge.page.health import Health
from edge.page.hosts import own_names
from edge.page.server import make_server
from edge.page.session import Sessions, load_pin
from edge.page.studies import Studies
from edge.page.upload import Uploads
from edge.requests import Requests
from tests.support.processes import free_port, wait_for

PIN, PIN_FILE = "271828", "page.pin"
MIB = 2**20


class Answer:
    """What the page answered."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.location = response.getheader("location", "")
        self.cookie = (response.getheader("set-cookie") or "").split(";")[0]
        self.body = response.read()
        self.text = self.body.decode("utf-8", "replace")


@dataclass
class ServedPage:
    """The page at a port of this machine. `state` is the device's folder."""

    state: Path
    port: int
    cookie: str = ""

    @property
    def outbox_path(self) -> Path:
        return self.state / "outbox.db"

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Answer:
        """Ask as the page itself does."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = {"Origin": f"http://127.0.0.1:{self.port}", "Cookie": self.cookie, **headers}
        try:
            connection.request(method, path, body or None, given)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def enter(self, pin: str = PIN, **headers: str) -> Answer:
        """Try a PIN, and keep the cookie."""
        answer = self.ask("POST", "/login", urlencode({"pin": pin}).encode(), headers)
        self.cookie = answer.cookie or self.cookie
        return answer

    def record(self, outcome: AnyOutcome, intake: str, facts: LocalFacts | None = None, name: str = "x.dcm") -> int:
        """Put an outcome into the outbox under its next seq, as `infer` does; return the seq."""
        with contextlib.closing(Outbox(self.outbox_path, "clinic-1")) as outbox:
            if facts is not None:
                LocalStore(self.state).write(intake, facts)

            def payload(seq: int) -> bytes:
                return encode(msgspec.structs.replace(outcome, device="clinic-1", epoch=outbox.epoch, seq=seq))

            kind = type(outcome).__name__.lower()
            return outbox.record(Entry(intake, kind, payload, original_name=name, place=f"{intake}.dcm"))[0]

    def ask_to_void(self, seq: int) -> None:
        with contextlib.closing(OutboxReader(self.outbox_path, "clinic-1")) as outbox:
            Requests(self.state).void(outbox.epoch, seq, "wrong_patient")


@contextlib.contextmanager
def served_page(state: Path, decode: Decode = Decode()) -> Iterator[ServedPage]:  # noqa: B008
    """Serve the page of `state`; its PIN is PIN."""
    state.mkdir(parents=True, exist_ok=True)
    Outbox(state / "outbox.db", "clinic-1").close()
    (state / PIN_FILE).write_text(PIN)
    reading, local, requests = Reading(state / "outbox.db", "clinic-1"), LocalStore(state), Requests(state)
    capacity, manifest = Capacity(state, 256 * MIB), read_manifest(bundle_folder(""))
    parts = Parts(
        facility="Test clinic",
        studies=Studies(state, reading, local, requests),
        uploads=Uploads(state, Spool(state), decode.max_bytes),
        films=Films(decode, state / "turn"),
        health=Health(state, ("watch", "infer", "relay"), reading, capacity, manifest),
        checking=Checking(state, Commissioning(readings=0), manifest, None),
        sessions=Sessions(partial(load_pin, state / PIN_FILE)),
        requests=requests,
        has_room=capacity.has_room,
        names=own_names("127.0.0.1"),
    )
    port = free_port()
    server = make_server(create_app(parts), Page(pin="", port=port))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, "the page")
        yield ServedPage(state, port)
    finally:
        server.should_exit = True
        thread.join(20)
