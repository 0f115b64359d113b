"""A device on a golden card in a virtual machine, as its clinic, its technician and its centre see it."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.board_device import CONFIG, PROGRAM
from tests.support.dicom import dcmtk
from tests.support.fleet import Fleet
from tests.support.processes import wait_for
from tests.support.virtual_machine import VirtualMachine

UNITS = ("cxr-watch", "cxr-infer", "cxr-relay", "cxr-page")
"""What a device.toml made from the profile of a PC asks for."""
PATIENCE_S = 1500.0
"""An emulated processor on a machine that has other work takes minutes to start."""
_AS_DEVICE = "sudo -u cxr-edge"
_BRING = """sudo sh -c 'cat >/srv/cxr/inbox/.{name}.part && sync /srv/cxr/inbox/.{name}.part &&
chown cxr-edge: /srv/cxr/inbox/.{name}.part'"""
_PLACE = "sudo sh -c 'mv /srv/cxr/inbox/.{name}.part /srv/cxr/inbox/{name} && sync -f /srv/cxr/inbox'"
_DICOM = """
[dicom]
address = "0.0.0.0"
allow = ["XRAY1@10.0.2.2"]
"""


class CardDevice:
    """One enrolled device."""

    def __init__(self, machine: VirtualMachine, fleet: Fleet, name: str) -> None:
        self.machine = machine
        self.name = name
        self._fleet = fleet

    def page_answers(self) -> bool:
        """Whether a browser in the clinic gets an answer."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            link = http.client.HTTPConnection("127.0.0.1", self.machine.ports[8080], timeout=20)
            try:
                link.request("GET", "/")
                return link.getresponse().status < 500
            finally:
                link.close()
        return False

    def serves(self, units: Sequence[str] = UNITS) -> bool:
        """Whether the page answers and systemd has heard from each unit that it serves."""
        each = " && ".join(f"systemctl is-active --quiet {unit}" for unit in units)  # of several, one that is active would do
        return self.page_answers() and self.machine.answers(each)

    def wait_until_serving(self) -> float:
        """Return the seconds of this machine until it serves, from now on."""
        began = time.monotonic()
        wait_for(self.serves, f"{self.name} serves; {self.machine.console} says more", PATIENCE_S)
        return time.monotonic() - began

    def drop(self, picture: Path) -> None:
        """Put a picture into the watched folder; when this returns it is on the card."""
        self.machine.must(f"{_BRING} && {_PLACE}".format(name=picture.name), picture.read_bytes())

    def while_away(self, picture: Path, seconds: int, then: str) -> None:
        """Let the board by itself put a picture into its folder after so many seconds, and after as many more run a command."""
        self.machine.must(_BRING.format(name=picture.name), picture.read_bytes())
        place = _PLACE.format(name=picture.name)
        script = f"sleep {seconds}\n{place}\nsleep {seconds}\n{then}\n"
        self.machine.must("cat >/tmp/while-away", script)
        self.machine.must("nohup sh /tmp/while-away >/tmp/while-away.said 2>&1 &")

    def said_while_away(self) -> str:
        """Return what that said."""
        return self.machine.must("cat /tmp/while-away.said")

    def allow_dicom(self) -> None:
        """Let an X-ray machine send to it; does nothing if it may already."""
        self.machine.must(
            f"sudo grep -q '^.dicom.' {CONFIG} || {{ sudo tee -a {CONFIG} >/dev/null && sudo systemctl start cxr-dicom; }}",
            _DICOM,
            timeout_s=300,
        )

    def send(self, *films: Path) -> bool:
        """Send films as an X-ray machine does; whether each was answered with success."""
        return dcmtk("storescu", self.machine.ports[11112], "-to", 120, "-td", 240, "-ta", 240, *films).returncode == 0

    def outbox(self) -> list[dict[str, object]]:
        """Return every outcome that the device has."""
        said = self.machine.must(f"{_AS_DEVICE} {PROGRAM} outbox --json --all --config {CONFIG}", timeout_s=300)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    def at_centre(self) -> list[tuple[str, int]]:
        """Return (epoch, seq) of each outcome that the centre has of it."""
        return self._fleet.outcomes(self.name)

    def wait_until_delivered(self, count: int) -> None:
        """Wait until the centre has so many outcomes."""
        wait_for(lambda: len(self.at_centre()) >= count, f"{count} outcomes of {self.name} are at the centre", PATIENCE_S)

    def once_each(self, count: int) -> bool:
        """Whether the centre has exactly so many outcomes, numbered from 1 on without a hole, and the device no other."""
        there = self.at_centre()
        whole = sorted(seq for _, seq in there) == list(range(1, count + 1)) and len({epoch for epoch, _ in there}) == 1
        return whole and sorted(int(str(one["seq"])) for one in self.outbox()) == list(range(1, count + 1))
