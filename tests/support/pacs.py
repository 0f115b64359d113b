"""A device whose answers go to a PACS, without what makes them: outcomes, films and headers where `infer` would leave them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import msgspec
import pydicom

from edge.contract import codec
from edge.contract.messages import AnyOutcome, Failure, Refusal, Result, Void
from edge.infer.local import Heat, LocalFacts, LocalStore
from edge.outbox.writer import Entry, Outbox
from edge.pacs.cursor import begin
from edge.pixels.study_header import pack_header
from tests.golden.examples import EXAMPLES
from tests.support.clinic import Device, make_device
from tests.support.processes import free_port, running

EXAMPLE: dict[type, AnyOutcome] = {type(message): message for message in EXAMPLES.values() if isinstance(message, AnyOutcome)}
HEAT = Heat(2, 2, bytes((255, 120, 40, 0)))


class Answers:
    """Records outcomes in the outbox of a device as its `infer` would."""

    def __init__(self, device: Device) -> None:
        self.state = device.state
        self.outbox = Outbox(device.state / "outbox.db", device.name)
        self._local = LocalStore(device.state, for_pacs=True)
        for folder in ("done", "aside"):
            (self.state / folder).mkdir(exist_ok=True)
        begin(self.state, self.outbox)

    def add(self, kind: type, film: Path | None, *, keep_header: bool = True, **changes: Any) -> int:
        """Record an outcome of a kind about a film (None: about nothing that is kept); return its seq."""
        device, epoch = self.outbox.device, self.outbox.epoch
        number = self.outbox.last_seq() + 1
        place = "" if film is None else f"{number:032x}{film.suffix}"
        if film is not None:
            (self.state / ("done" if kind is Result else "aside") / place).write_bytes(film.read_bytes())
            header = pack_header(pydicom.dcmread(film, stop_before_pixels=True)) if keep_header else b""
            self._local.write(f"{number:032x}", LocalFacts(heat=HEAT if kind is Result else None, study=header))

        def payload(seq: int) -> bytes:
            fixed = {"device": device, "epoch": epoch, "seq": seq}
            return codec.encode(msgspec.structs.replace(EXAMPLE[kind], **({"test": False} | changes | fixed)))

        names = {Result: "result", Refusal: "refusal", Failure: "failure", Void: "void"}
        entry = Entry(f"{epoch}{number:032x}", names[kind], payload, original_name="a.dcm", place=place)
        return self.outbox.record(entry)[0]

    def forget_film(self, seq: int) -> None:
        """Remove a film as for room."""
        (path,) = (self.state / "done").glob(f"{seq:032x}.*")
        path.unlink()


def pacs_device(home: Path, port: int, *lines: str, title: str = "ORTHANC") -> Device:
    """Write a device whose answers go to a loopback port; `lines` end up in [pacs]."""
    device = make_device(home, f"mqtt://127.0.0.1:{free_port()}")
    table = ["", "[pacs]", 'address = "127.0.0.1"', f"port = {port}", f'called_ae_title = "{title}"', *lines, ""]
    device.config.write_text(device.config.read_text("utf-8") + "\n".join(table), "utf-8")
    return device


@contextlib.contextmanager
def telling(device: Device) -> Iterator[Popen[bytes]]:
    """Run `cxr-edge pacs` until the end."""
    with running([sys.executable, "-m", "edge.cli", "pacs", "--config", str(device.config)], device.log) as process:
        yield process
