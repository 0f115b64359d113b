"""What the steps of `make card` share: the device, the centre, and how many films there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.boards.report import Report
from tests.support.card_device import UNITS, CardDevice
from tests.support.clinic import small_picture
from tests.support.fleet import Fleet

Figures = dict[str, Any]
"""What a step has found, by name; a plain no fails the whole."""
RUNNING = ("cxr-watch", "cxr-infer", "cxr-relay", "cxr-page", "cxr-dicom")
"""The units of the device once an X-ray machine may send to it."""
FIRST_BOOT_OVER = "test -e /etc/cloud/cloud-init.disabled && findmnt --noheadings --options ro /"
"""A question to the board."""


@dataclass
class Bench:
    """What the steps share: the device that the first one makes, and how many films it was told to keep."""

    scratch: Path
    fleet: Fleet
    report: Report
    new_board: Callable[[str], CardDevice]
    devices: list[CardDevice] = field(default_factory=list)
    sent: int = 0

    @property
    def device(self) -> CardDevice:
        return self.devices[0]

    def board(self, name: str) -> CardDevice:
        """A new card in a new board, which is not under power yet."""
        self.devices.append(self.new_board(name))
        return self.devices[-1]

    def enrol_on_card(self, device: CardDevice) -> None:
        """Put the enrolment file and its code onto the boot partition of a card that is not in its slot."""
        name = device.name
        device.machine.write_boot(f"{name}.enrol", (self.fleet.out / f"{name}.enrol").read_bytes())
        device.machine.write_boot(f"{name}.code", f"{self.fleet.code(name)}\n".encode())

    def pictures(self, count: int) -> list[Path]:
        """Draw so many X-rays that were not sent yet, and count them as sent."""
        paths = []
        for _ in range(count):
            self.sent += 1
            paths.append(small_picture(self.scratch / f"film-{self.sent}.{'png' if self.sent % 2 else 'jpg'}", self.sent))
        return paths

    def close(self) -> None:
        for device in self.devices:
            device.machine.close()


def failed(device: CardDevice) -> list[str]:
    """Return the units that systemd counts as failed."""
    return [line.split()[0] for line in device.machine.must("systemctl --failed --plain --no-legend").splitlines()]


def served_after(device: CardDevice) -> int:
    """Return the seconds of its own clock from the start of its kernel until the last of its units was ready."""
    asked = f"systemctl show --value -p ActiveEnterTimestampMonotonic {' '.join(UNITS)}"
    return max(int(line) for line in device.machine.must(asked).split()) // 1_000_000
