"""A damaged outbox: what can be read is saved and reaches the centre exactly once, what cannot is a gap and no silence."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.ingest import Inbound, classify
from broker.ledger import Ledger
from broker.store import MemoryStore
from edge.config import Device, Relay, Watch
from edge.contract.codec import encode
from edge.contract.messages import Receipt
from edge.contract.seqset import SeqSet
from edge.contract.topics import Channel, topic
from edge.delivery.mqtt import Message
from edge.delivery.receipts import Receipts
from edge.delivery.relay import Relay as RelayProcess
from edge.delivery.status import StatusWriter
from edge.errors import OutboxDamaged, OutboxError
from edge.outbox import rebuild as rebuilding
from edge.outbox.file import damage_note
from edge.outbox.reader import Stream
from edge.outbox.rebuild import outbox_of_infer, outbox_of_relay
from edge.outbox.salvage import Saved, salvage
from edge.outbox.size import RESULTS_BYTES
from edge.outbox.witness import Witness
from edge.outbox.writer import Entry, Outbox
from tests.support.messages import result
from tests.unit.edge.test_relay import ScriptedLink, StopWhen

COUNT = 120
RECEIPTED = 50
PAGE = 4096


class Never:
    def is_set(self):
        return False


def opened(path):
    return outbox_of_infer(path, "clinic-1", RESULTS_BYTES, Never())


def fill(box, count=COUNT):
    box._db.execute("PRAGMA synchronous = OFF").fetchall()  # it is the damage that is tested here
    first = box.last_seq()
    for number in range(first, first + count):
        size = 40 if number % 7 else 90  # some rows need a page of their own and overflow into others
        timings = {f"step_{'x' * 20}_{step}": 12.5 for step in range(size)} if number % 5 == 0 else {"decode": 1.0}
        box.record(
            Entry(
                source_key=f"{box.epoch[:8]}{number:056x}",
                kind="result",
                payload=lambda seq, timings=timings: encode(result("clinic-1", seq, box.epoch, timings_ms=timings)),
                original_name=f"{number}.dcm",
                place=f"{number}",
            )
        )


@pytest.fixture
def path(tmp_path):
    """An outbox as a killed process leaves it: the log is full of commits, nothing was closed."""
    home = tmp_path / "state"
    home.mkdir()
    path = home / "outbox.db"
    box = Outbox(path, "clinic-1")
    fill(box, COUNT - 20)
    box._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    fill(box, 20)
    box.mark_receipted(RECEIPTED, [])
    copy = tmp_path / "killed"
    copy.mkdir()
    for name in ("outbox.db", "outbox.db-wal", "outbox.seq"):
        (copy / name).write_bytes((home / name).read_bytes())
    box.close()
    return copy / "outbox.db"


def log_of(path):
    return path.with_name("outbox.db-wal")


def garbage_header(path):
    checkpoint(path)
    overwrite(path, 0, b"\xa5" * 100)


def first_page(path):
    checkpoint(path)
    overwrite(path, 0, random.Random(1).randbytes(PAGE))


def a_page(path):
    checkpoint(path)
    overwrite(path, 12 * PAGE, random.Random(2).randbytes(PAGE))


def zeroed_pages(path):
    checkpoint(path)
    overwrite(path, 20 * PAGE, bytes(8 * PAGE))


def truncated(path):
    checkpoint(path)
    os.truncate(path, path.stat().st_size // 2 + 100)


def no_bytes(path):
    os.truncate(path, 0)
    os.truncate(log_of(path), 0)


def no_log(path):
    """The end of what was committed is gone, and nothing in the database shows it."""
    log_of(path).unlink()


def torn_log(path):
    overwrite(log_of(path), log_of(path).stat().st_size // 2, b"\xff" * 600)


def garbage_log_header(path):
    overwrite(log_of(path), 0, b"\xff" * 32)


def gone(path):
    path.unlink()
    log_of(path).unlink()


def old_copy(path):
    """Someone puts yesterday's outbox back."""
    checkpoint(path)
    with apsw.Connection(str(path)) as db:
        db.execute("DELETE FROM outcome WHERE number > 40; UPDATE stream SET last_seq = 40")
    db.close()


def checkpoint(path):
    """What is damaged in the database is not healed by the log."""
    db = apsw.Connection(str(path))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()


def overwrite(path, at, content):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


DAMAGES = {
    damage.__name__: (damage, least)
    for damage, least in (
        (garbage_header, COUNT),
        (first_page, COUNT),
        (a_page, 100),
        (zeroed_pages, 60),
        (truncated, 40),
        (no_bytes, 0),
        (no_log, COUNT - 20),
        (torn_log, COUNT - 5),
        (garbage_log_header, COUNT),
        (gone, 0),
        (old_copy, 40),
    )
}


class Centre:
    """The aggregator's own ledger behind a scripted link, with what it had before."""

    def __init__(self):
        self.store = MemoryStore()
        self.ledger = Ledger(self.store)

    def take(self, name, payload):
        plan = self.ledger.plan([classify(Inbound(name, payload, 1))])
        self.store.commit(plan.batch)
        return [Message(topic("clinic-1", Channel.RECEIPT), encode(receipt)) for receipt in self.ledger.receipts(plan)]

    def __call__(self, link, name, payload):
        return self.take(name, payload)

    def seqs(self, epoch):
        return sorted(seq for _, of, seq in self.store.outcomes if of == epoch)


def deliver(path, centre, done=lambda: True):
    box = Outbox(path, "clinic-1")
    device = Device(
        device="clinic-1", facility="C", state=str(path.parent), site_key="k", watch=Watch(folder="f"), relay=Relay(window=20)
    )
    link = ScriptedLink(centre)
    relay = RelayProcess(device, box, StatusWriter(device, None, box), lambda *_: link)
    relay.run(StopWhen(lambda: box.waiting() == 0 and len(link.published(Channel.HELLO)) > 0 and done()))
    assert box.waiting() == 0
    assert link.most <= 20
    box.close()
    return link


@pytest.mark.parametrize("name", DAMAGES)
def test_whatever_is_damaged_what_can_be_read_is_delivered_once_and_the_rest_is_a_gap(path, name):
    damage, least = DAMAGES[name]
    whole = Outbox(path, "clinic-1")
    old, payloads = whole.epoch, {row["number"]: row["payload"] for row in whole.listing(1000)}
    whole._file.db.close()
    centre = Centre()
    for seq in range(1, RECEIPTED + 11):  # the receipts of the last ten never came
        centre.take(topic("clinic-1", Channel.RESULT), payloads[seq])
    replay_log(path)
    damage(path)

    with opened(path) as box:
        assert box.epoch != old
        assert box.check_integrity() == "ok"
        former, present = box.streams()
        assert (former.epoch, former.last_seq) == (old, COUNT)
        assert (present.epoch, present.last_seq) == (box.epoch, 0)
        saved = {row["number"]: row for row in box.listing(1000)}
        assert all(row["payload"] == payloads[seq] and row["place"] == str(seq - 1) for seq, row in saved.items())
        assert len(saved) >= least
        unreceipted = {seq for seq in saved if not saved[seq]["receipted"]}
        assert unreceipted >= {seq for seq in saved if seq > RECEIPTED}
        fill(box, 3)
        assert box.last_seq() == 3
        assert box.lowest_unreceipted() == 1
        if COUNT in saved:
            again = box.record(Entry(f"{old[:8]}{COUNT - 1:056x}", "result", lambda seq: b"", place=str(COUNT - 1)))
            assert again == (COUNT, False), "an intake whose outcome was saved gets no second one"
    assert [file.name for file in path.parent.glob("outbox-damaged-*.db")] or damage is gone
    deliver(path, centre)
    held = set(range(1, RECEIPTED + 11)) | unreceipted
    assert centre.seqs(old) == sorted(held)
    assert centre.seqs(present.epoch) == [1, 2, 3]
    assert not centre.store.rejected
    stream = centre.store.streams["clinic-1", old]
    assert stream.closed
    assert stream.last_seq == COUNT, "what is missing is a gap that the centre can count"
    with opened(path) as box:
        assert len(box.streams()) == 2, "what was rebuilt is sound"


def replay_log(path):
    """Bring the files back to what the killed process left; opening them above may have changed the log."""
    kept = path.with_name("kept")
    for name in ("outbox.db", "outbox.db-wal"):
        if (kept / name).exists():
            (path.with_name(name)).write_bytes((kept / name).read_bytes())


@pytest.fixture(autouse=True)
def _keep(path):
    kept = path.with_name("kept")
    kept.mkdir()
    for name in ("outbox.db", "outbox.db-wal"):
        (kept / name).write_bytes(path.with_name(name).read_bytes())
    path.with_name("outbox.db-shm").unlink(missing_ok=True)


def test_a_rebuild_is_progress_row_by_row_and_waiting_for_one_too(path):
    first_page(path)
    told = []
    with outbox_of_infer(path, "clinic-1", RESULTS_BYTES, Never(), lambda: told.append(True)):
        assert len(told) > COUNT / 2
    told.clear()
    damage_note(path).touch()

    class Soon:
        def is_set(self):
            return len(told) > 2

    with pytest.raises(SystemExit), outbox_of_relay(path, "clinic-1", RESULTS_BYTES, Soon(), lambda: told.append(True)):
        pass


def test_what_is_sound_is_left_alone(path):
    for _ in range(2):
        with opened(path) as box:
            assert (len(box.streams()), box.last_seq()) == (1, COUNT)
    assert not list(path.parent.glob("outbox-damaged-*"))


def test_a_new_device_begins_without_fuss(tmp_path):
    with opened(tmp_path / "outbox.db") as box:
        assert box.streams()[0][1:] == (0, 0)
    with opened(tmp_path / "outbox.db") as box:
        assert len(box.streams()) == 1


def test_a_second_damage_keeps_what_the_first_saved(path):
    first_page(path)
    with opened(path) as box:
        fill(box, 5)
        middle = box.epoch
    garbage_header(path)
    with opened(path) as box:
        one, two, three = box.streams()
        assert (one.last_seq, two.last_seq, three.last_seq) == (COUNT, 5, 0)
        assert two.epoch == middle
        assert box.waiting() == COUNT - RECEIPTED + 5
        assert box.lowest_unreceipted(one) == RECEIPTED + 1
        assert box.lowest_unreceipted(two) == 1
    assert len(list(path.parent.glob("outbox-damaged-*.db"))) == 2


@pytest.mark.parametrize("moment", range(1, 9))
def test_a_crash_while_it_is_rebuilt_is_no_loss(path, monkeypatch, moment):
    """The process ends at each rename, removal and forced folder in turn."""
    first_page(path)
    steps = [0]

    def dying(function):
        def step(*arguments, **named):
            steps[0] += 1
            if steps[0] == moment:
                raise KeyboardInterrupt
            return function(*arguments, **named)

        return step

    with monkeypatch.context() as patched:
        patched.setattr("edge.outbox.rebuild.os.rename", dying(os.rename))
        patched.setattr("edge.outbox.rebuild.fsync_folder", dying(lambda path: None))
        patched.setattr("edge.outbox.rebuild._insert", dying(rebuilding._insert))
        try:
            with opened(path):
                pass
        except KeyboardInterrupt:
            pass
    with opened(path) as box:
        assert box.waiting() == COUNT - RECEIPTED
        assert box.streams()[0].last_seq == COUNT
        assert box.check_integrity() == "ok"


def work_until_damaged(box):
    assert box.waiting() == COUNT - RECEIPTED
    while True:
        time.sleep(0.5)  # it takes its time to notice, and must be waited for
        box.raise_if_damaged()


def meet_damage(box, path):
    checkpoint(path)
    overwrite(path, PAGE, b"\xa5" * (path.stat().st_size - PAGE))
    box._db.execute("PRAGMA cache_size = 0").fetchall()
    box.listing(1000)


def test_damage_found_later_ends_the_process_and_the_relay_and_the_next_start_saves(path):
    ended, rebuilt = threading.Event(), threading.Event()

    def relay():
        with pytest.raises(OutboxDamaged), outbox_of_relay(path, "clinic-1", RESULTS_BYTES, Never()) as box:
            work_until_damaged(box)
        ended.set()
        with outbox_of_relay(path, "clinic-1", RESULTS_BYTES, Never()) as box:
            assert len(box.streams()) == 2, "it waits until the outbox is rebuilt"
        rebuilt.set()

    thread = threading.Thread(target=relay)
    thread.start()
    with pytest.raises(OutboxDamaged, match=r"database disk image is malformed.*saves what it holds"), opened(path) as box:
        meet_damage(box, path)
    with opened(path) as box:
        assert ended.is_set(), "nobody else has it open while it is replaced"
        assert len(box.streams()) == 2
    assert rebuilt.wait(10)
    thread.join()


def test_a_note_is_enough_where_a_check_sees_nothing(path):
    path.with_name("outbox.damaged").touch()
    with opened(path) as box:
        assert len(box.streams()) == 2
        assert box.waiting() == COUNT - RECEIPTED
    assert not path.with_name("outbox.damaged").exists()


def test_an_old_copy_that_was_put_back_loses_nothing_in_silence(tmp_path, caplog):
    """Seqs are given a second time, and the centre has other outcomes under them: it keeps both, and no old receipt is believed."""
    home = tmp_path / "device"
    home.mkdir()
    path = home / "outbox.db"
    centre = Centre()
    with opened(path) as box:
        fill(box, 30)
        epoch = box.epoch
    image = tmp_path / "image"
    shutil.copytree(home, image)
    with opened(path) as box:
        fill(box, 20)
    deliver(path, centre)
    shutil.rmtree(home)
    shutil.copytree(image, home)
    with opened(path) as box:
        for number in range(10):
            again = Entry(f"{number:064x}", "result", lambda seq: encode(result("clinic-1", seq, epoch, timings_ms={"again": 1.0})))
            assert box.record(again) == (31 + number, True)
    with pytest.raises(OutboxDamaged, match="seq 50 of this outbox, which ends with 40"):
        deliver(path, centre)
    damage_note(path).touch()  # as `outbox_of_relay` does
    with opened(path) as box:
        assert [stream.last_seq for stream in box.streams()] == [40, 0]
        assert box.waiting() == 40
        fill(box, 5)
    deliver(path, centre)
    with opened(path) as box:
        assert box.waiting() == 0
    apart = [(odd.seq, odd.reason) for odd in centre.store.rejected]
    assert apart == [(seq, "conflict") for seq in range(31, 41)], "the centre keeps both, and says so"
    assert centre.seqs(epoch) == list(range(1, 51))


def test_a_receipt_of_a_closed_epoch_counts_only_for_what_was_sent(path):
    path.with_name("outbox.damaged").touch()
    with opened(path) as box:
        closed, _ = box.streams()
        receipts = Receipts(box)
        told = Receipt(device="clinic-1", epoch=closed.epoch, through=closed.last_seq)
        assert receipts.take(told) == 0
        receipts.offered(RECEIPTED + 2)
        receipts.offered(RECEIPTED + 5)
        assert receipts.take(told) == 2
        assert Receipts(box, all_offered=True).take(told) == COUNT - RECEIPTED - 2


def test_a_centre_restored_from_a_backup_gets_back_the_old_epoch_too(path):
    first_page(path)
    with opened(path) as box:
        old = box.streams()[0].epoch
        fill(box, 3)
    deliver(path, Centre())
    empty = Centre()
    deliver(path, empty, lambda: len(empty.store.outcomes) == COUNT + 3)
    assert empty.seqs(old) == list(range(1, COUNT + 1))


def test_a_receipt_for_more_than_an_epoch_gave_does_not_reach_into_the_next():
    assert Stream("e", 10, 5).numbers(SeqSet(9, [(11, 12)])) == SeqSet(0, [(11, 15)])
    assert Stream("e", 10, 5).numbers(SeqSet(2, [(4, 4), (7, 9)])) == SeqSet(0, [(11, 12), (14, 14)])


def test_a_relay_that_finds_the_damage_leaves_it_to_infer(path):
    first_page(path)
    with pytest.raises(OutboxDamaged), outbox_of_relay(path, "clinic-1", RESULTS_BYTES, Never()):
        pass
    assert not list(path.parent.glob("outbox-damaged-*"))
    with opened(path) as box:
        assert len(box.streams()) == 2


def test_what_is_not_damage_rebuilds_nothing(path):
    with pytest.raises(OutboxError, match="belongs to device"), outbox_of_infer(path, "clinic-2", RESULTS_BYTES, Never()):
        pass
    with contextlib.closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(OutboxError, match="newer version"), opened(path):
        pass
    assert not list(path.parent.glob("outbox-damaged-*"))


def read_epoch(path):
    """The epoch of the outbox as it was left, whatever has become of it since."""
    (kept,) = {found.epoch for found in salvage(path.with_name("kept") / "outbox.db", "clinic-1") if isinstance(found, Saved)}
    return kept


@given(
    spoilt=st.lists(
        st.tuples(st.sampled_from(("outbox.db", "outbox.db-wal")), st.floats(0, 1), st.sampled_from((1, 4, 100, PAGE, 3 * PAGE))),
        max_size=10,
    ),
    length=st.sampled_from((1.0, 1.0, 0.7, 0.1)),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_are_spoilt_the_device_goes_on_and_gives_no_seq_twice(path, spoilt, length):
    epoch = read_epoch(path)
    for name in ("outbox.db", "outbox.db-wal"):
        raw = bytearray((path.with_name("kept") / name).read_bytes())
        for at, size in [(int(share * len(raw)), size) for where, share, size in spoilt if where == name]:
            raw[at : at + size] = random.Random(at).randbytes(min(size, len(raw) - at))
        path.with_name(name).write_bytes(raw[: int(length * len(raw))] if name == "outbox.db" else raw)
    path.with_name("outbox.db-shm").unlink(missing_ok=True)
    with contextlib.closing(Witness(path)) as witness:
        witness.note(epoch, COUNT)
    recorded = {
        found.seq: found.payload for found in salvage(path.with_name("kept") / "outbox.db", "clinic-1") if isinstance(found, Saved)
    }
    for _ in range(3):
        with contextlib.suppress(OutboxDamaged), opened(path) as box:
            rows = box.unreceipted(0, 1000)  # what the relay would send
            break
    else:
        raise AssertionError("it never becomes sound")
    with opened(path) as box:
        box._db.execute("PRAGMA synchronous = OFF").fetchall()
        assert (epoch, COUNT) in {(stream.epoch, stream.last_seq) for stream in box.streams()}
        assert all(row.payload == recorded[row.number] for row in rows)
        seq, new = box.record(Entry("f" * 64, "result", lambda seq: b"new"))
        assert new
        assert seq == (COUNT + 1 if box.epoch == epoch else 1)
        assert box.check_integrity() == "ok"
    for aside in path.parent.glob("outbox-damaged-*"):
        aside.unlink()


def test_an_outcome_whose_bytes_have_changed_is_a_gap_and_not_another_answer(path):
    checkpoint(path)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"covid":0.72', b'"covid":0.12'))
    log_of(path).unlink(missing_ok=True)
    with pytest.raises(OutboxDamaged, match="no longer what was recorded"), opened(path) as box:
        box.unreceipted(0, 1)
    with opened(path) as box:
        assert (box.streams()[0].last_seq, box.unreceipted(0, 1)) == (COUNT, [])


REBUILD = """
import sys
from pathlib import Path
from edge.errors import CxrError
from edge.delivery.receipts import Receipts
from edge.outbox.rebuild import outbox_of_infer

class Never:
    def is_set(self): return False

try:
    with outbox_of_infer(Path(sys.argv[1]), "clinic-1", 2**26, Never()) as box:
        print(box.waiting())
except CxrError as error:
    print(error)
"""


def rebuild(path, *strace):
    done = subprocess.run(
        ["strace", "-f", "-qq", *strace, sys.executable, "-c", REBUILD, str(path)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def test_a_disk_that_fills_while_it_is_rebuilt_is_no_loss(path, tmp_path):
    """Whichever write is the first that finds no space: afterwards, with room, everything is there."""
    damage_note(path).touch()
    sound = tmp_path / "sound"
    shutil.copytree(path.parent, sound)
    whole = rebuild(path, "-e", "trace=pwrite64", "-o", f"{tmp_path}/writes")
    writes = len((tmp_path / "writes").read_text().splitlines())
    refused = 0
    for first in sorted({writes // 4, writes // 2, *range(writes - 45, writes, 9)}):
        place = tmp_path / f"{first}"
        shutil.copytree(sound, place)
        full = ("-o", "/dev/null", "-e", "trace=pwrite64", "-e", f"inject=pwrite64:error=ENOSPC:when={first}+")
        refused += rebuild(place / path.name, *full) != whole
        assert rebuild(place / path.name, "-o", "/dev/null") == whole
    assert refused > 2
