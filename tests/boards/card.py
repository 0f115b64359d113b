"""`make card`: the golden card from nothing to a device in service, in a virtual machine with systemd and a kernel of its own.

The card is made by the stage's own scripts, and started as a board would start it: no screen, no keyboard, no clock, an enrolment
file on its boot partition. Then a clinic sends X-rays, processes hang, power fails at work and in an upgrade, the kernel dies, the
cable is pulled. What came out is printed and, after each step, written to build/card.json; the exit status is 0 only if all of it
is as it should be. Takes an hour or more: every instruction is emulated. `make card STEPS="films units"` takes the named steps
alone, after the first boot.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from firmware_configs.wheelhouse.collect import collect
from firmware_configs.wheelhouse.targets import Target
from tests.boards.card_bench import Bench
from tests.boards.card_steps import STEPS
from tests.boards.report import Report
from tests.support.card_device import CardDevice
from tests.support.card_image import Card, golden_card
from tests.support.centre import ROOT
from tests.support.fleet import Fleet, make_fleet
from tests.support.virtual_machine import CENTRE, VirtualMachine

_PLACE = ROOT / "build" / "card.json"
_TARGET = Target("x86_64", "311")


def prove(names: list[str], scratch: Path, tell: Callable[[Report], None]) -> Report:
    """Take the steps of these names, all if there are none; `tell` is called after each.

    Raises:
        AssertionError: if a step cannot go on, with what was said.
    """
    report = Report()
    with report.step("offline package"):
        package = collect(_TARGET)
    with report.step("golden card"):
        card = golden_card(package)
    key = scratch / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "technician", "-f", str(key)], check=True)
    fleet = make_fleet(scratch / "centre", host=CENTRE)
    with fleet.mosquitto(), fleet.aggregator():
        bench = Bench(scratch, fleet, report, lambda name: _board(scratch, card, key, fleet, name))
        try:
            for step in STEPS:
                name = step.__name__
                if name == STEPS[0].__name__ or not names or name in names:
                    with report.step(name.replace("_", " ")):
                        report.figures |= {name: step(bench)}
                    tell(report)
        finally:
            bench.close()
    return report


def _board(scratch: Path, card: Card, key: Path, fleet: Fleet, name: str) -> CardDevice:
    """A new card in a new board, prepared as the documentation says, with the technician's key."""
    reaches = {fleet.mqtt: fleet.mqtt, fleet.https: fleet.https}
    machine = VirtualMachine(scratch / name, card, key, reaches=reaches, serves=(22, 8080, 11112, 9000))
    said = machine.read_boot("user-data")
    known = said.replace("ssh-ed25519 PUT-YOUR-PUBLIC-KEY-HERE technician", key.with_suffix(".pub").read_text().strip())
    assert known != said
    machine.write_boot("user-data", known.encode())
    return CardDevice(machine, fleet, name)


def _tell(report: Report) -> None:
    _PLACE.parent.mkdir(exist_ok=True)
    _PLACE.write_text(json.dumps({**report.figures, "steps": report.steps}, indent=1) + "\n", "utf-8")


def _wrong(figures: dict[str, Any]) -> list[str]:
    """Return what is not as it should be: every plain no."""
    return [f"{step}: {name}" for step, found in figures.items() for name, value in found.items() if value is False]


def main() -> int:
    """Prove the card; returns an exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended first
    with tempfile.TemporaryDirectory() as scratch:
        report = prove(sys.argv[1:], Path(scratch), _tell)
    for step, found in report.figures.items():
        for name, value in found.items():
            sys.stdout.write(f"{step.replace('_', ' '):>24}  {name.replace('_', ' ')}: {value}\n")
    wrong = _wrong(report.figures)
    sys.stdout.write(f"{'NOT as it should be: ' + '; '.join(wrong) if wrong else 'As it should be.'} {_PLACE.relative_to(ROOT)}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
