"""A real PACS for tests: Orthanc in a folder of its own, on free loopback ports."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import find_program, free_port, running, wait_for_port

TITLE = "ORTHANC"


@dataclass(frozen=True)
class Orthanc:
    """A running one. `dicom_port` is where it takes reports of storage commitment."""

    http_port: int
    dicom_port: int

    def call(self, path: str, body: object = None) -> Any:
        """Ask its REST interface: GET, or POST with a body (bytes as they are, all else as JSON)."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", data, timeout=60) as answer:
            return json.load(answer)

    def add(self, path: Path) -> str:
        """Put a DICOM file into it; return its name for it."""
        return str(self.call("/instances", path.read_bytes())["ID"])


@contextlib.contextmanager
def orthanc(home: Path, device_port: int, dicom_port: int) -> Iterator[Orthanc]:
    """Run an Orthanc that knows a device on loopback as `device`."""
    home.mkdir()
    server = Orthanc(free_port(), dicom_port)
    configuration = {
        "Name": "test",
        "StorageDirectory": str(home / "storage"),
        "HttpPort": server.http_port,
        "DicomAet": TITLE,
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
        "DicomModalities": {
            "device": {"AET": "CXR-EDGE", "Host": "127.0.0.1", "Port": device_port, "AllowStorageCommitment": True}
        },
    }
    (home / "orthanc.json").write_text(json.dumps(configuration), "utf-8")
    log = home / "orthanc.log"
    with running([find_program("Orthanc", "orthanc"), str(home / "orthanc.json")], log) as process:
        wait_for_port(server.http_port, process, log, 60)
        yield server
