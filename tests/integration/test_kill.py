"""Nothing is lost and nothing counted twice, whatever is killed whenever: every process of the line, Mosquitto among them."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from edge.contract.codec import decode_outcome
from edge.contract.messages import Result
from tests.support.clinic import Device, make_device, small_picture
from tests.support.mosquitto import loopback_mosquitto
from tests.support.processes import end, free_port, wait_for

RESULTS = 500
KILLS_OF_EACH = 7
KINDS = ("mosquitto", "aggregate", "serve", "run", "watch", "infer", "decoder", "relay")
ROOT = Path(__file__).resolve().parents[2]


class Centre:
    """The aggregator and the page, started again when they have been killed."""

    def __init__(self, folder: Path, mqtt: str) -> None:
        self.database = folder / "centre.db"
        self.log = folder / "centre.log"
        url = f"sqlite:///{self.database}"
        self.commands = {
            "aggregate": ["aggregate", "--mqtt", mqtt, "--db", url],
            "serve": ["serve", "--db", url, "--port", str(free_port())],
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        with self.log.open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "broker.cli", *self.commands[name]], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def rows(self) -> dict[tuple[str, str, int], bytes]:
        if not self.database.exists():
            return {}
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as db:
            return {tuple(row[:3]): row[3] for row in db.execute("SELECT device, epoch, seq, payload FROM outcomes")}


@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_counted_twice(tmp_path):
    rng = random.Random(20261121)
    with loopback_mosquitto(tmp_path / "mosquitto") as mosquitto:
        centre = Centre(tmp_path, mosquitto.url)
        device = make_device(tmp_path / "device", mosquitto.url, extra=["receipt_timeout_s = 1.0", "status_every_s = 1.0"])
        files = [small_picture(tmp_path / f"picture-{number:04d}.png", number) for number in range(RESULTS)]
        for name in centre.commands:
            centre.start(name)
        device.start()
        try:
            kills = _feed_and_kill(rng, files, device, centre, mosquitto)
            _settle(device, centre)
            _compare(device, centre, kills)
        finally:
            device.stop()
            for process in centre.running.values():
                end(process)


def _feed_and_kill(rng, files, device, centre, mosquitto) -> Counter[str]:
    schedule = list(KINDS) * KILLS_OF_EACH
    rng.shuffle(schedule)
    done = threading.Event()
    pace = threading.Semaphore(0)

    def feed() -> None:
        for path in files:
            pace.acquire()
            os.rename(path, device.inbox / path.name)
        done.set()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    kills: Counter[str] = Counter()
    for number, kind in enumerate(schedule):
        for _ in range(RESULTS * (number + 1) // len(schedule) - RESULTS * number // len(schedule)):
            pace.release()
        # Kills fall at any moment of the work on these pictures, and now and then during a restart.
        time.sleep(rng.uniform(0.0, 1.2))
        _kill(kind, device, centre, mosquitto)
        kills[kind] += 1
    assert done.wait(30)
    return kills


def _kill(kind: str, device: Device, centre: Centre, mosquitto) -> None:
    if kind == "mosquitto":
        mosquitto.kill()
        mosquitto.start()
    elif kind in centre.running:
        centre.running[kind].kill()
        centre.running[kind].wait()
        centre.start(kind)
    else:
        wait_for(lambda: kind in device.pids(), f"a running {kind} process", 60)
        os.kill(device.pids()[kind], signal.SIGKILL)
        if kind == "run":
            assert device.process is not None
            device.process.wait()
            device.start()


def _settle(device: Device, centre: Centre) -> None:
    def delivered() -> bool:
        outbox = device.outbox()
        try:
            return outbox.last_seq() >= RESULTS and outbox.waiting() == 0
        finally:
            outbox.close()

    wait_for(delivered, f"all {RESULTS} results have their receipt", 240)
    time.sleep(2)  # whatever would make one too many had its chance
    assert not list((device.state / "spool").iterdir())


def _compare(device: Device, centre: Centre, kills: Counter[str]) -> None:
    with sqlite3.connect(device.state / "outbox.db") as db:
        sent = {row[0]: (row[1], row[2]) for row in db.execute("SELECT number, payload, original_name FROM outcome")}
        (epoch,) = db.execute("SELECT epoch FROM stream").fetchone()
    held = centre.rows()
    names = Counter(name for _, name in sent.values())
    keys = Counter(decode_outcome(payload).source_key for payload in held.values())
    put_in = {f"picture-{number:04d}.png" for number in range(RESULTS)}
    lost = len(put_in - {sent[seq][1] for _, _, seq in held if seq in sent})
    duplicates = sum(names.values()) - len(names) + sum(keys.values()) - len(keys)
    report = {"results": len(held), "kills": kills.total(), "lost": lost, "duplicates": duplicates, "kills_of_each": dict(kills)}
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/kill.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))

    assert set(names) == put_in
    assert (lost, duplicates) == (0, 0)
    assert kills.total() >= 50
    assert min(kills.values()) >= 5
    assert sorted(sent) == list(range(1, RESULTS + 1))
    assert held == {(device.name, epoch, seq): payload for seq, (payload, _) in sent.items()}
    # A picture whose decoder was killed twice has had its two chances. It is recorded and told, and rare.
    others = [outcome.reasons for outcome in map(decode_outcome, held.values()) if not isinstance(outcome, Result)]
    assert others in ([], [["decoder_memory"]])
