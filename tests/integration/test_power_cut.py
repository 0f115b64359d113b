"""The power fails at any moment: what was acknowledged is there afterwards. Writes build/powercut.json."""

import json
import os
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge.commissioning.journal import Journal, journal_path, read_events
from edge.outbox.witness import read_witness
from edge.outbox.writer import Entry, Outbox
from tests.support.commission_life import reading
from tests.support.outbox_life import payload
from tests.support.powercut import Call, Disk, record
from tests.support.spool_life import content

ROOT = Path(__file__).resolve().parents[2]
CUTS = 300
CONTROL_CUTS = 60
SPOOL_CUTS = 100
JOURNAL_CUTS, JOURNAL_ROUNDS = 150, 8


@dataclass
class Said:
    """What the program had said when the power failed."""

    recorded: int = 0
    receipting: int = 0
    receipted: int = 0
    received: list[int] = field(default_factory=list)
    warm: bool = False

    def hear(self, line):
        what, _, number = line.partition(" ")
        if what == "received":
            self.received.append(int(number))
        else:
            setattr(self, what, max(int(number), getattr(self, what)) if number else True)


def cuts(calls, count, seed, target):
    """Yield (what had been said, the folder as it is after the cut) for `count` moments, spread evenly at random."""
    rng = random.Random(seed)
    said, disk = Said(), Disk()
    warm = next((at for at, call in enumerate(calls) if call.data in {b"warm\n", b"recorded 1\n", b"received 0\n"}), 0)
    moments = sorted(rng.sample(range(warm, len(calls)), count))
    for at, call in enumerate(calls):
        if call.name == "say":
            said.hear(call.data.decode().strip())
        disk.apply(call)
        if moments and at == moments[0]:
            moments.pop(0)
            disk.cut(random.Random(seed + at), target)
            yield said, target
            shutil.rmtree(target)


def outbox_calls(home, synchronous):
    home.mkdir()
    life = [sys.executable, "-m", "tests.support.outbox_life", str(home / "outbox.db"), "20260131", synchronous]
    calls = record(life, home, home.with_suffix(".trace"))
    home.with_suffix(".trace").unlink()
    return calls


def survey(said, path):
    """Open the outbox after the cut as the device does; return (acknowledged outcomes that are lost, receipts that are lost)."""
    box = Outbox(path, "clinic-1")
    try:
        assert box._file.one("PRAGMA integrity_check") == ("ok",)
        rows = {row["number"]: row for row in box.listing(100_000)}
        last = box.last_seq()
        assert all(row["payload"] == payload(seq) for seq, row in rows.items())
        assert all(row["place"] == str(seq) for seq, row in rows.items())
        assert max(rows, default=0) <= last
        assert [row.number for row in box.unreceipted(0, 100_000)] == sorted(seq for seq in rows if not rows[seq]["receipted"])
        waits = {seq for seq, row in rows.items() if not row["receipted"]}
        lost = [seq for seq in range(1, said.recorded + 1) if seq > last or (seq > said.receipting and seq not in waits)]
        unsaid = [seq for seq, row in rows.items() if seq <= said.receipted and not row["receipted"]]
        if not lost:
            assert last <= said.recorded + 1
            witness = read_witness(path)
            assert witness is None or witness.seq <= last, "it would be taken for a damaged outbox"
            again = box.record(Entry(f"{last + 1:064x}", "result", payload, place=str(last + 1)))
            assert again == (last + 1, True), "no seq is given twice"
        return len(lost), len(unsaid)
    finally:
        box.close()


@pytest.fixture
def after(tmp_path):
    """Where the disk is rebuilt after each cut; in memory if possible, since nothing depends on its being durable."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as home:
        yield Path(home) / "after"


@pytest.fixture(scope="module")
def report():
    found = {}
    yield found
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/powercut.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))


def test_no_acknowledged_outcome_is_lost_in_300_power_cuts(tmp_path, after, report):
    calls = outbox_calls(tmp_path / "life", "FULL")
    place = (tmp_path / "life/outbox.db").relative_to("/")
    found = [survey(said, folder / place) for said, folder in cuts(calls, CUTS, 1, after)]
    report["cuts"] = len(found)
    report["acknowledged"] = sum(call.data.startswith(b"recorded") for call in calls)
    report["lost"] = sum(lost for lost, _ in found)
    report["receipts_lost"] = sum(receipts for _, receipts in found)
    report["checkpoints"] = checkpoints(calls)
    assert report["checkpoints"] >= 2, "the log was never copied into the database: the dangerous moment did not come"
    assert (report["cuts"], report["lost"], report["receipts_lost"]) == (CUTS, 0, 0)


def test_a_weaker_setting_does_lose_some_so_the_cuts_are_real(tmp_path, after, report):
    calls = outbox_calls(tmp_path / "life", "NORMAL")
    place = (tmp_path / "life/outbox.db").relative_to("/")
    found = [survey(said, folder / place) for said, folder in cuts(calls, CONTROL_CUTS, 2, after)]
    report["control_cuts"] = len(found)
    report["control_lost"] = sum(lost for lost, _ in found)
    assert report["control_lost"] > 0


def test_what_a_sender_was_told_is_received_is_in_the_spool(tmp_path, after, report):
    home = tmp_path / "life"
    home.mkdir()
    command = [sys.executable, "-m", "tests.support.spool_life", str(home), "20260131"]
    calls = record(command, home, tmp_path / "trace")
    lost = 0
    for said, folder in cuts(calls, SPOOL_CUTS, 3, after):
        state = folder / home.relative_to("/") / "state"
        kept = {path.read_bytes() for name in ("spool", "done", "aside") for path in (state / name).glob("[!.]*")}
        lost += sum(content(number) not in kept for number in said.received)
    report["spool_cuts"], report["spool_lost"] = SPOOL_CUTS, lost
    assert sum(call.data.startswith(b"received") for call in calls) == 150
    assert lost == 0


FAULTS = [f"fdatasync:error=EIO:when={number}" for number in (1, 3, 4, 5, 7, 8, 9, 10, 13)]
"""Each fsync of a file in turn, from the making of the database on. The second and the sixth are the folder's: SQLite goes on."""


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_failed_fsync_the_process_ends_and_nothing_is_believed_that_is_not_on_the_disk(tmp_path, after, fault):
    home = tmp_path / "life"
    home.mkdir()
    command = [sys.executable, "-m", "tests.support.fsync_life", str(home / "outbox.db")]
    log = tmp_path / "trace"
    calls = [*record(command, home, log, inject=fault, ends_with=3), *record(command, home, log)]
    place = (home / "outbox.db").relative_to("/")
    for said, folder in cuts(calls, 12, 4, after):
        assert survey(said, folder / place) == (0, 0)
    box = Outbox(home / "outbox.db", "clinic-1")
    assert [(row.number, row.payload) for row in box.unreceipted(0, 100)] == [(seq, payload(seq)) for seq in range(1, 7)]
    assert len(box.streams()) == 1
    box.close()


def checkpoints(calls):
    """How many times the database file itself was forced."""
    return sum(call.name == "sync" and call.path.endswith("outbox.db") for call in calls)


def test_the_disk_forgets_what_was_not_forced_and_keeps_what_was(tmp_path):
    disk = Disk()
    for call in (
        Call("open", "/d/a"),
        Call("write", "/d/a", b"1" * 1024, 0),
        Call("sync", "/d/a"),
        Call("sync", "/d"),
        Call("write", "/d/a", b"2" * 1024, 0),
        Call("open", "/d/b"),
        Call("write", "/d/b", b"3", 0),
        Call("rename", "/d/b", to="/d/c"),
    ):
        disk.apply(call)
    seen = set()
    for seed in range(300):
        disk.cut(random.Random(seed), tmp_path / str(seed))
        held = tmp_path / str(seed) / "d"
        assert not ((held / "b").exists() and (held / "c").exists())
        seen.add((held / "a").read_bytes())
        seen.update(path.name for path in held.iterdir())
    assert {b"1" * 1024, b"2" * 1024, b"1" * 512 + b"2" * 512, b"2" * 512 + b"1" * 512, "a", "b", "c"} == seen
    disk.apply(Call("sync", "/d"))
    disk.apply(Call("sync", "/d/a"))
    for seed in range(20):
        disk.cut(random.Random(seed), tmp_path / f"later{seed}")
        held = tmp_path / f"later{seed}/d"
        assert sorted(path.name for path in held.iterdir()) == ["a", "c"]
        assert (held / "a").read_bytes() == b"2" * 1024


def test_no_acknowledged_reading_is_lost_and_the_journal_is_never_damaged(tmp_path, after):
    home = tmp_path / "life"
    home.mkdir()
    calls = record([sys.executable, "-m", "tests.support.commission_life", str(home), "80"], home, tmp_path / "trace")
    seen = set()
    for said, folder in (cut for seed in range(JOURNAL_ROUNDS) for cut in cuts(calls, JOURNAL_CUTS, seed, after)):
        path = journal_path(folder / home.relative_to("/"))
        events = read_events(path)
        assert events == [reading(number) for number in range(1, len(events) + 1)]
        assert said.recorded <= len(events) <= said.recorded + 1
        journal = Journal(path)
        journal.append(reading(len(events) + 1))
        journal.close()
        assert len(read_events(path)) == len(events) + 1
        seen.add(len(events) - said.recorded)
    assert seen == {0, 1}, "else no cut fell into a write"
