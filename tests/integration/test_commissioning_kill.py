"""Readings and a release are asked for while `infer` is killed time and again: none is lost, and none counts twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from edge.commissioning.journal import journal_path, read_events, read_standing
from edge.commissioning.silence import open_silence
from edge.commissioning.standing import Reading, Released
from edge.contract.codec import encode
from edge.outbox.writer import Entry, Outbox
from edge.requests import ReadingRequest, ReleaseRequest, Requests
from tests.golden.examples import EXAMPLES
from tests.support.commission_life import DEVICE, SITE
from tests.support.processes import end, wait_for

FILMS, KILLS = 120, 10


def recorded(state: Path) -> str:
    """Record films whose answers nobody was shown; return the epoch."""
    outbox = Outbox(state / "outbox.db", DEVICE)
    open_silence(state, SITE, outbox).close()
    for number in range(1, FILMS + 1):

        def payload(seq: int, name: str = f"{number:064x}") -> bytes:
            fields = {
                "test": False,
                "epoch": outbox.epoch,
                "seq": seq,
                "source_key": name,
                "pixel_hash": name,
                "shown": False,
                "typicality": None,
            }
            return encode(msgspec.structs.replace(EXAMPLES["result"], **fields))

        outbox.record(Entry(f"{number:064x}", "result", payload))
    outbox.close()
    return outbox.epoch


def started(state: Path) -> subprocess.Popen[bytes]:
    with (state / "log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "tests.support.commission_life", str(state)], stdout=log, stderr=log)


def left(state: Path) -> bool:
    """Whether something that was asked is not done yet."""
    return any(name.endswith(".json") for name in os.listdir(state / "requests"))


def test_no_acknowledged_reading_is_lost_and_none_counts_twice(tmp_path: Path) -> None:
    epoch = recorded(tmp_path)
    requests, rng = Requests(tmp_path), random.Random(4)
    asked: dict[int, set[str]] = {}
    interrupted = 0
    process = started(tmp_path)
    try:
        for burst in range(KILLS):
            process.send_signal(signal.SIGSTOP)  # so that the kill finds it at work
            for seq in range(1 + burst * FILMS // KILLS, 1 + (burst + 1) * FILMS // KILLS):
                for _ in range(rng.choice((1, 1, 2))):  # two people, or one who sends twice
                    label = rng.choice(("normal", "pneumonia", "covid19", "*"))
                    requests.ask(ReadingRequest(epoch=epoch, seq=seq, label=label))  # acknowledged
                    asked.setdefault(seq, set()).add(label)
            process.send_signal(signal.SIGCONT)
            time.sleep(rng.uniform(0, 0.015))
            process.send_signal(signal.SIGKILL)
            process.wait()
            interrupted += left(tmp_path)
            process = started(tmp_path)
            wait_for(lambda: not left(tmp_path), "it goes on", 30)
        assert interrupted > KILLS // 3, "else nothing was tried"
        requests.ask(ReleaseRequest(by="N. N."))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = started(tmp_path)
        wait_for(lambda: not left(tmp_path), "everything was done", 30)
    finally:
        end(process)
    events = read_events(journal_path(tmp_path))
    readings = [event for event in events if isinstance(event, Reading)]
    assert sorted(reading.seq for reading in readings) == list(range(1, FILMS + 1))
    assert all(reading.label in asked[reading.seq] for reading in readings)
    assert sum(isinstance(event, Released) for event in events) == 1
    now = read_standing(tmp_path)
    assert (len(now.compared), now.silent) == (FILMS, False)
    assert now.began is not None
    assert now.began.bundle == SITE.bundle
