"""Run the whole line on this machine. IMAGES=folder feeds that folder instead of drawn pictures; ONCE=1 ends when it is done."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from broker.database import parse_url
from broker.errors import BrokerError
from broker.reader import Reader
from demo.account import Account, line
from demo.feed import AHEAD, draw, pictures_of, put
from demo.processes import Processes, free_port, wait_for_port
from edge.contract.reasons import AID

DEVICE = "demo-clinic"
DRAWN_AT_ONCE = 12
DRAWN_EVERY_S = 5.0
STALLED_S = 120.0


def main() -> int:
    """Return the exit status: 0 when every picture is accounted for (with ONCE), or after Ctrl-C (without)."""
    images, once = os.environ.get("IMAGES", ""), os.environ.get("ONCE", "") not in ("", "0")
    if images and not Path(images).is_dir():
        print(f"IMAGES={images} is no folder. Name a folder with X-rays (DICOM, PNG, JPEG, TIFF).", file=sys.stderr)
        return 2
    if images and next(iter(pictures_of(Path(images))), None) is None:
        print(f"There is no file in IMAGES={images}. Put X-rays (DICOM, PNG, JPEG, TIFF) there.", file=sys.stderr)
        return 2
    # SIGINT too: a program started in the background inherits it ignored, and would then not end when asked to.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    home = Path(tempfile.mkdtemp(prefix="cxr-demo-"))
    try:
        with Processes(home) as processes:
            account, inbox = _start(home, processes, "Demonstration" if images else "Drawn pictures")
            return _feed(processes, account, inbox, Path(images) if images else None, once)
    except KeyboardInterrupt:
        print("\nStopped; every process of the demonstration has ended.")
        return 130 if once else 0
    except _Failed as error:
        print(f"The demonstration stopped: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)


class _Failed(Exception):
    """Something that the demonstration needs does not work; the text says what."""


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _start(home: Path, processes: Processes, facility: str) -> tuple[Account, Path]:
    mqtt, web, page = free_port(), free_port(), free_port()
    database = f"sqlite:///{home / 'centre.db'}"
    url = f"mqtt://127.0.0.1:{mqtt}"
    options = ("--device", DEVICE, "--facility", facility, "--broker", url, "--page-port", str(page))
    made = subprocess.run(
        [sys.executable, "-m", "edge.cli", "init", str(home), *options],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        raise _Failed(made.stderr.strip())
    config = home / "device.toml"
    # Nobody is treated by these answers, and nobody reads a hundred films for a demonstration: they are shown at once.
    text = config.read_text("utf-8").replace("readings = 100 ", "readings = 0 ")
    config.write_text(text + "status_every_s = 2\n", "utf-8")
    processes.start("mosquitto", "broker.cli", "mosquitto", "--dir", str(home / "mosquitto"), "--port", str(mqtt))
    if not wait_for_port(mqtt, 15):
        raise _Failed(processes.ended() or "Mosquitto does not answer")
    processes.start("aggregator", "broker.cli", "aggregate", "--mqtt", url, "--db", database)
    processes.start("dashboard", "broker.cli", "serve", "--db", database, "--port", str(web))
    processes.start("device", "edge.cli", "run", "--config", str(config))
    if not wait_for_port(web, 30):
        raise _Failed(processes.ended() or "the dashboard does not answer")
    pin = (home / "page.pin").read_text().strip()
    print(f"The clinic's page: http://127.0.0.1:{page}/ with the PIN {pin}")
    print(f"Dashboard: http://127.0.0.1:{web}/ (until this ends; Ctrl-C ends it, and its results go with it)\n{AID}\n", flush=True)
    return Account(Reader(parse_url(database)), home / "state", DEVICE), home / "inbox"


def _feed(processes: Processes, account: Account, inbox: Path, folder: Path | None, once: bool) -> int:
    fed: list[str] = []
    if folder is None:
        print("These pictures are drawn by the program: whatever the network says of them means nothing.\n", flush=True)
        source = _drawn(inbox, forever=not once)
    else:
        source = _given(folder, inbox)
    exhausted = False
    progress = time.monotonic()
    while True:
        if (said := processes.ended()) is not None:
            raise _Failed(said)
        while not exhausted and len(os.listdir(inbox)) < AHEAD:
            name = next(source, "")
            if name is None:  # nothing for now
                break
            exhausted = name == ""
            if not exhausted:
                fed.append(name)
        try:
            new = account.look()
        except BrokerError:
            new = []  # the aggregator has not made its database yet
        for name, row in new:
            print(line(name, row), flush=True)
            progress = time.monotonic()
        if exhausted and once:
            missing = account.missing(fed)
            if not missing or time.monotonic() - progress > STALLED_S:
                return _close(account, fed, missing)
        time.sleep(0.2)


def _close(account: Account, fed: list[str], missing: list[str]) -> int:
    print("\nHow the pictures ended:")
    print("\n".join(account.table(fed)))
    for name in missing[:20]:
        print(f"  NOT ACCOUNTED FOR: {name}")
    print(f"\n{len(fed) - len(missing)} of {len(fed)} accounted for in the centre's database.\n{AID}")
    return 1 if missing or not fed else 0


def _given(folder: Path, inbox: Path) -> Iterator[str | None]:
    for name, path in pictures_of(folder):
        put(path, inbox, name)
        yield name


def _drawn(inbox: Path, *, forever: bool) -> Iterator[str | None]:
    for seed in range(DRAWN_AT_ONCE):
        yield draw(seed, inbox)
    seed, due = DRAWN_AT_ONCE, time.monotonic()
    while forever:
        if time.monotonic() < due:
            yield None
            continue
        due = time.monotonic() + DRAWN_EVERY_S
        yield draw(seed, inbox)
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
