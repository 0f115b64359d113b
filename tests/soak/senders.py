"""Those who send: X-ray machines, someone who puts files into the folder, and someone with a browser.

Each is a thread that sends what it is given until it is told that it was received, as a real machine does, whatever happens at
the other end. What counts as told: status 0x0000 for C-STORE, the file has left the watched folder, the page answers 201.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import random
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path

from tests.soak.ledger import Ledger
from tests.soak.processes import tied
from tests.soak.studies import Study, intake_id
from tests.support.processes import find_program

_PAUSE_S = 0.2
_CUT_OFF = 0.1
"""Share of associations and of uploads whose sender goes before it hears the answer. It sends again, which must not count twice."""
_BATCH = 25
"""Objects in one association at most; so that a machine begins a new one now and then."""


class Sender(ABC, threading.Thread):
    """One who sends."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(daemon=True)
        self.given: queue.SimpleQueue[Study] = queue.SimpleQueue()
        self.fault: BaseException | None = None
        self._ledger = ledger
        self._end = threading.Event()

    def run(self) -> None:
        """Send until told to end. An error of the sender itself ends the simulation."""
        try:
            while not self._end.is_set():
                if not self._step():
                    self._end.wait(_PAUSE_S / 4)
        except BaseException as error:
            self.fault = error

    def end(self) -> None:
        """Stop sending."""
        self._end.set()
        self.join(30)

    @property
    def busy(self) -> bool:
        """Whether it has something in hand beside the studies that nobody was told of yet."""
        return False

    @abstractmethod
    def _step(self) -> bool:
        """Do a little; return whether there was anything to do."""


class Machine(Sender):
    """An X-ray machine: DCMTK's storescu, one association at a time."""

    def __init__(self, ledger: Ledger, title: str, port: int, folder: Path) -> None:
        super().__init__(ledger)
        folder.mkdir()
        self._folder = folder
        self._rng = random.Random(title)
        self._open: dict[str, Study] = {}
        times = ["-to", "5", "-ta", "10", "-td", "20"]
        self._command = tied(find_program("storescu", "dcmtk"), "-v", "-aet", title, "-aec", "CXR-EDGE", *times)
        self._command += ["127.0.0.1", str(port)]

    def _step(self) -> bool:
        while len(self._open) < _BATCH and not self.given.empty():
            study = self.given.get()
            path = self._folder / study.name
            path.write_bytes(study.content())
            self._open[str(path)] = study
        if not self._open:
            return False
        if not self._associate(list(self._open)):
            self._ledger.count("association broke off")
            self._end.wait(_PAUSE_S)
        return True

    def _associate(self, paths: list[str]) -> bool:
        """Send as many as the device takes; return whether it took all."""
        path = ""
        last = self._rng.choice(paths) if self._rng.random() < _CUT_OFF else ""
        with subprocess.Popen(
            [*self._command, *paths], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as storescu:
            assert storescu.stdout is not None
            for line in storescu.stdout:
                path = line.partition("Sending file: ")[2].strip() or path
                if path == last and "Sending Store Request" in line:
                    time.sleep(self._rng.uniform(0.0, 0.02))
                    storescu.kill()
                    self._ledger.count("machine was switched off")
                    break
                if "Received Store Response (Success)" in line:
                    study = self._open.pop(path)
                    self._ledger.told(study, study.sources_by_c_store())
                    os.unlink(path)
                elif "Received Store Response" in line:
                    self._ledger.count("refused by C-STORE: " + line.rpartition("(")[2].partition(")")[0])
        return storescu.returncode == 0


class Folder(Sender):
    """Someone who puts files into the watched folder, each once."""

    def __init__(self, ledger: Ledger, inbox: Path) -> None:
        super().__init__(ledger)
        self._inbox = inbox
        self._put: dict[str, tuple[Study, set[str]]] = {}

    def _step(self) -> bool:
        while not self.given.empty():
            study = self.given.get()
            self._put[study.name] = (study, self._put_in(study))
        there = set(os.listdir(self._inbox))
        for name in self._put.keys() - there:
            self._ledger.told(*self._put.pop(name))
        return False

    def _put_in(self, study: Study) -> set[str]:
        """Put it in, DICOM by a rename; return its identities, one of which hangs on when its file was last changed."""
        path, content = self._inbox / study.name, study.content()
        part = path.with_name(f".{path.name}") if study.dicom else path
        with part.open("xb", buffering=0) as file:
            file.write(content)
            if study.dicom:
                os.rename(part, path)
            status = os.fstat(file.fileno())
            # One that has been taken already was changed by that. Then only the other identity is known.
            known = path.exists()
        return study.sources(intake_id(status, path.name) if known else "", content)


class Browser(Sender):
    """Someone at the clinic's page: uploads films, looks for the answer, and takes every third back."""

    def __init__(self, ledger: Ledger, port: int, pin: Path) -> None:
        super().__init__(ledger)
        self._port = port
        self._pin = pin
        self._cookie = ""
        self._study: Study | None = None
        self._film = b""
        self._asked: tuple[str, float] | None = None
        self._wrong = 0
        self._rng = random.Random(port)

    @property
    def busy(self) -> bool:
        """Whether it waits for an answer, or takes one back."""
        return self._asked is not None or bool(self._wrong)

    def _step(self) -> bool:
        if self._study is None and not self.busy:
            if self.given.empty():
                return False
            self._study = self.given.get()
            self._film = self._study.content()
        try:
            self._do()
        except (OSError, http.client.HTTPException):
            self._ledger.count("page did not answer")
            self._end.wait(_PAUSE_S)
        return True

    def _do(self) -> None:
        if not self._cookie:
            self._log_in()
        elif self._study is not None:
            self._upload(self._study)
        elif self._asked is not None:
            self._look(*self._asked)
        else:
            self._take_back(self._wrong)

    def _upload(self, study: Study) -> None:
        deaf = self._rng.random() < _CUT_OFF
        status, body = self._call("POST", f"/uploads?name={study.name}", self._film, deaf=deaf)
        if status != http.HTTPStatus.CREATED:
            self._ledger.count(f"refused by the page: {status}")
            self._end.wait(_PAUSE_S)
            return
        intake = str(json.loads(body)["intake"])
        self._ledger.told(study, study.sources(intake, self._film))
        self._study = None
        if study.number % 3 == 0:
            self._asked = (intake, time.monotonic() + 5.0)

    def _look(self, intake: str, until: float) -> None:
        status, body = self._call("GET", f"/uploads/{intake}")
        self._wrong = (status == http.HTTPStatus.OK and json.loads(body)["study"]) or 0
        if self._wrong or time.monotonic() > until:
            self._asked = None
        else:
            self._end.wait(_PAUSE_S)

    def _take_back(self, number: int) -> None:
        status, _ = self._call("POST", f"/studies/{number}/wrong-patient")
        if status == http.HTTPStatus.SEE_OTHER:
            self._ledger.told_void(number)
            self._wrong = 0
        elif status == http.HTTPStatus.NOT_FOUND:  # old and receipted, and removed for room
            self._wrong = 0
        else:
            self._ledger.count(f"no void: {status}")
            self._end.wait(_PAUSE_S)

    def _log_in(self) -> None:
        status, _ = self._call("POST", "/login", f"pin={self._pin.read_text().strip()}".encode())
        assert status == http.HTTPStatus.SEE_OTHER, f"the page takes no PIN: {status}"

    def _call(self, method: str, path: str, body: bytes = b"", *, deaf: bool = False) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            headers = {"Origin": f"http://127.0.0.1:{self._port}", "Cookie": self._cookie}
            connection.request(method, path, body, headers)
            if deaf:
                time.sleep(self._rng.uniform(0.0, 0.05))
                raise http.client.HTTPException("the browser was closed")
            answer = connection.getresponse()
            content = answer.read()
            self._cookie = answer.getheader("Set-Cookie", self._cookie).partition(";")[0]
        finally:
            connection.close()
        # A restart of the page ends all sessions: 401, or a redirection of what is a page to /login.
        if answer.status == http.HTTPStatus.UNAUTHORIZED or answer.getheader("Location") == "/login":
            self._cookie = ""
            raise http.client.HTTPException("logged out")
        return answer.status, content
