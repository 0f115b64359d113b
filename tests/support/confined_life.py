"""A working day under the restrictions of the units: every process starts, does its work, loses a child, is watched and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.config import load_config
from edge.errors import OutboxError
from tests.support.authority import Authority
from tests.support.clinic import Device, small_picture
from tests.support.confinement import USER, Board, board
from tests.support.dicom import MACHINE, dcmtk, film
from tests.support.mosquitto import Mosquitto
from tests.support.page import ServedPage
from tests.support.processes import find_program, free_port, running, wait_for, wait_for_port

PROCESSES = ("watch", "infer", "relay", "dicom", "pacs", "page")
NAME = "clinic-1"


@dataclass(frozen=True)
class Clinic:
    """A board with the rest of its clinic: the link to a real broker, an X-ray machine, an archive."""

    board: Board
    dicom_port: int
    page_port: int
    archive: Path

    def serve(self, wrapper: Callable[[str], Sequence[str]] = lambda _: ()) -> contextlib.AbstractContextManager[dict[str, int]]:
        """Run all processes under their units; `wrapper(name)` stands before each. Yields their process ids."""
        return _serve(self.board, wrapper)


@contextlib.contextmanager
def clinic(home: Path, broker: Mosquitto, authority: Authority) -> Iterator[Clinic]:
    """Lay out a board that delivers to `broker` by TLS, with a listener, a page and an archive (DCMTK's)."""
    dicom_port, archive_port = free_port(), free_port()
    identity = authority.client(NAME)
    files = {"ca": "ca.pem", "certificate": "device.pem", "private_key": "device.pem"}
    lines = [f'{key} = "/var/lib/cxr-edge/identity/{name}"' for key, name in files.items()]
    lines += ["[dicom]", f"port = {dicom_port}", f'allow = ["{MACHINE}@127.0.0.1"]']
    lines += ["[pacs]", 'address = "127.0.0.1"', f"port = {archive_port}", 'called_ae_title = "ARCHIVE"']
    with board(home, f"mqtts://127.0.0.1:{broker.port}", lines) as made:
        folder = made.device.state / "identity"
        (folder / "ca.pem").write_bytes(authority.ca.read_bytes())
        (folder / "device.pem").write_bytes(identity.key.read_bytes() + identity.cert.read_bytes())
        for path in folder.iterdir():
            os.chown(path, USER, USER)
            path.chmod(0o600)
        archive, log = home / "archive", home / "archive.log"
        archive.mkdir()
        command = [find_program("storescp", "dcmtk"), "-aet", "ARCHIVE", "-od", str(archive), str(archive_port)]
        with running(command, log) as process:
            wait_for_port(archive_port, process, log)
            page = load_config(made.device.config).page
            assert page is not None
            yield Clinic(made, dicom_port, page.port, archive)


@contextlib.contextmanager
def _serve(made: Board, wrapper: Callable[[str], Sequence[str]]) -> Iterator[dict[str, int]]:
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(made.running(name, wrapper=wrapper(name))) for name in PROCESSES}
        made.listens.wait_for("READY=1", len(PROCESSES), 90)
        yield {name: _itself(process) for name, process in processes.items()}


def _itself(process: subprocess.Popen[bytes]) -> int:
    """The process of the device: what was started, or what a tracer before it has started."""
    pid = process.pid
    while Path(f"/proc/{pid}/comm").read_text().strip() == "strace":
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


def work(place: Clinic, pids: Mapping[str, int]) -> None:
    """A file, an object of a machine and an upload become outcomes, told to the archive; a decoder dies in between."""
    made, device = place.board, place.board.device
    taken = small_picture(device.inbox / "a.png", 1)
    os.chown(taken, USER, USER)
    wait_for(lambda: _outcomes(device) == 1, "the file has its outcome", 60)
    (decoder,) = Path(f"/proc/{pids['infer']}/task/{pids['infer']}/children").read_text().split()
    os.kill(int(decoder), signal.SIGKILL)
    sent = dcmtk("storescu", place.dicom_port, film(made.home / "film.dcm", "1.2.826.0.9.1", side=900, drawn=True))
    assert sent.returncode == 0, sent.stdout + sent.stderr
    wait_for(lambda: _outcomes(device) == 2, "the object has its outcome", 60)
    wait_for(lambda: len(list(place.archive.iterdir())) >= 2, "its answers are in the archive", 90)
    visit(place)
    wait_for(lambda: _outcomes(device) == 3, "the upload has its outcome", 60)
    heard = made.listens.heard("WATCHDOG=1")
    made.listens.wait_for("WATCHDOG=1", heard + len(PROCESSES))


def visit(place: Clinic) -> None:
    """Enter the page, look at everything, and send a film."""
    page = ServedPage(place.board.device.state, place.page_port)
    assert page.enter((place.board.home / "etc/page.pin").read_text().strip()).status == 303
    for path in ("/", "/device", "/commissioning", "/studies/2", "/studies/2/film.png?heat=1", "/studies/2/slip", "/healthz"):
        answer = page.get(path)
        assert answer.status == 200, (path, answer.text[:300])
    picture = small_picture(place.board.home / "b.png", 2).read_bytes()
    assert page.ask("POST", "/uploads?name=b.png", picture).status == 201


def _outcomes(device: Device) -> int:
    try:
        outbox = device.outbox()
    except OutboxError:  # it is being made
        return 0
    with contextlib.closing(outbox):
        return outbox.last_seq()
