"""A device on a `Board`: its package brought there, installed, enrolled, run, and asked."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.board_root import Board
from tests.support.centre import ROOT
from tests.support.fleet import Fleet
from tests.support.processes import wait_for

CONFIG = "/etc/cxr-edge/device.toml"
PROGRAM = "/opt/cxr-edge/current/bin/cxr-edge"
OUTBOX = "/var/lib/cxr-edge/outbox.db"
PROFILE = """\
device = "clinic-0"
facility = "Clinic 0"
state = "/var/lib/cxr-edge"
site_key = "/var/lib/cxr-edge/identity/site.key"

[watch]
folder = "/srv/cxr/inbox"

[page]
pin = "/etc/cxr-edge/page.pin"

[relay]
url = "mqtts://centre.example:8883"
ca = "/var/lib/cxr-edge/identity/ca.pem"
certificate = "/var/lib/cxr-edge/identity/device.pem"
private_key = "/var/lib/cxr-edge/identity/device.pem"
receipt_timeout_s = 1.0
"""
"""Of a board with a watched folder, a page and a broker."""


def unpack(board: Board, package: Path, place: str) -> None:
    """Unpack a package of `make wheelhouse` as the folder `place` of a board."""
    board.put(package, "/root/package.tar")
    script = 'mkdir -p "$0" && tar -x --strip-components=1 -C "$0" -f /root/package.tar && rm /root/package.tar'
    board.must("sh", "-c", script, place)


def bring_enrolment(board: Board, fleet: Fleet, name: str) -> list[str]:
    """Put a device's enrolment file and code onto a board; return the options of install.sh that name them."""
    board.put(fleet.out / f"{name}.enrol", f"/root/{name}.enrol")
    board.write("/root/code", fleet.code(name) + "\n")
    return ["--enrol", f"/root/{name}.enrol", "--code-file", "/root/code"]


def as_device(*command: str) -> list[str]:
    """Return a command line that runs as the device's user."""
    return ["setpriv", "--reuid=cxr-edge", "--regid=cxr-edge", "--init-groups", *command]


def ask(board: Board, *command: str, timeout_s: float = 300) -> str:
    """Run `cxr-edge COMMAND --config ...` as the device's user, and return what it says."""
    return board.must(*as_device(PROGRAM, *command, "--config", CONFIG), timeout_s=timeout_s)


def require_same_reading(board: Board, picture: Path) -> None:
    """See that a picture is read on the board as it is read here: the whole line from decoding to decision."""
    board.put(picture, "/tmp/a.png")
    there = json.loads(board.must(PROGRAM, "classify", "--json", "/tmp/a.png").splitlines()[-1])
    command = [sys.executable, "-m", "edge.cli", "classify", "--json", str(picture)]
    here = json.loads(subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout)
    assert {**there, "file": ""} == {**here, "file": ""}
    assert there["status"] == "ok"


def outbox(board: Board) -> list[dict[str, Any]]:
    """Return what the outbox holds, as `cxr-edge outbox --json --all` tells it; nothing before there is one."""
    if board.run("test", "-e", OUTBOX).returncode != 0:
        return []
    return [json.loads(line) for line in ask(board, "outbox", "--json", "--all").splitlines()]


@contextlib.contextmanager
def serving(board: Board, log: Path) -> Iterator[None]:
    """Run `cxr-edge run` on a board, and end it as a service manager would."""
    started = ["sh", "-c", 'echo $$ >/run/device.pid; exec "$@"', "sh", *as_device(PROGRAM, "run", "--config", CONFIG)]
    with log.open("ab") as output:
        process = subprocess.Popen(board.inside(*started), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_for(lambda: process.poll() is not None or board.run("test", "-s", "/run/device.pid").returncode == 0, "it starts")
        yield
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
    finally:
        board.run("sh", "-c", "kill $(cat /run/device.pid)")
        process.wait(60)


def drop(board: Board, picture: Path) -> None:
    """Put a picture into the watched folder, complete under its name at once."""
    board.put(picture, f"/srv/cxr/{picture.name}")
    board.must("sh", "-c", 'chmod 644 "$0" && mv "$0" /srv/cxr/inbox/', f"/srv/cxr/{picture.name}")
