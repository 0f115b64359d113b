"""What is full says so, loses nothing, and goes on when there is room."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import apsw
import msgspec
import pytest

from edge.capacity import Capacity, Room
from edge.commands.check import check_device, check_software
from edge.config import Device, Watch
from edge.contract.codec import decode_outcome, encode
from edge.contract.messages import MAP_SIDE, MAX_BYTES, HeatMap
from edge.contract.seqset import SeqSet
from edge.delivery.status import StatusWriter
from edge.errors import OutboxFull
from edge.infer.loop import infer_forever
from edge.infer.trials import Trials
from edge.intake.spool import Spool
from edge.intake.watch import FolderWatch
from edge.outbox.reader import OutboxReader
from edge.outbox.size import LOG_BYTES, RESULTS_BYTES, SPARE_BYTES, outbox_bytes, room_for_outcomes
from edge.outbox.writer import Entry, Outbox
from edge.requests import Requests
from tests.golden.examples import EXAMPLES

DAYS, STUDIES = 90, 200
SMALL = LOG_BYTES + SPARE_BYTES + 2**20
"""Room for 1 MiB of outcomes."""

NAME = "SMITH^JANE^^^_CHEST_PA_20260131_1.2.840.113619.2.55.3.604688119.dcm"
MIB = 2**20


def largest(epoch, seq):
    """A result with every field set and the numbers as long as they get."""
    return encode(
        msgspec.structs.replace(
            EXAMPLES["result"],
            epoch=epoch,
            seq=seq,
            source_key=f"{seq:064x}",
            pixel_hash=f"{seq * 7:064x}",
            monotonic_ns=123456789012345678,
            probabilities=dict.fromkeys(("normal", "pneumonia", "covid19", "tuberculosis"), 1 / 3),
            threshold=0.6123456789012345,
            typicality=0.7123456789012345,
            quality=["uid_reused", "unfamiliar", "rotated"],
            heat={f"image_{side}_{part}": 0.2512345678901234 for side in ("left", "right") for part in ("upper", "lower")},
            heat_map=HeatMap(MAP_SIDE, MAP_SIDE, bytes(MAP_SIDE**2)),
            timings_ms=dict.fromkeys(("decode", "preprocess", "classify", "total"), 12345.678),
        )
    )


def fill(box, count, size=None):
    first = box.last_seq()
    for number in range(first, first + count):
        payload = (lambda seq: largest(box.epoch, seq)) if size is None else (lambda seq: b"x" * size)
        box.record(Entry(f"{number:064x}", "result", payload, f"{number:064x}", NAME, f"{number:032x}.dcm"))


def total(path):
    return sum(path.with_name(path.name + end).stat().st_size for end in ("", "-wal") if path.with_name(path.name + end).exists())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


@pytest.fixture
def small(path):
    box = Outbox(path, "clinic-1", results_bytes=SMALL)
    box._db.execute("PRAGMA synchronous = OFF")  # what is tested here is room
    yield box
    box.close()


def fill_up(box, size=4000):
    with pytest.raises(OutboxFull, match="wait for the centre's receipt"):
        fill(box, 10_000, size)


def fill_and_receipt(box, times):
    for _ in range(times):
        fill(box, 100, 1500)
        box.mark_receipted(box.last_seq(), [])


def test_ninety_days_offline_fit(path):
    box = Outbox(path, "clinic-1")
    box._db.execute("PRAGMA synchronous = OFF")
    fill(box, DAYS * STUDIES)
    assert box.waiting() == DAYS * STUDIES
    assert isinstance(decode_outcome(box.payload(DAYS * STUDIES)), type(EXAMPLES["result"]))
    assert box._file.used() < 0.8, "no alarm yet"
    box.close()
    print(f"bytes per result: {total(path) / DAYS / STUDIES:.0f}, of which payload {len(largest('0' * 32, 18_000))}")
    assert total(path) < RESULTS_BYTES
    assert outbox_bytes(path) < room_for_outcomes(RESULTS_BYTES)
    box = Outbox(path, "clinic-1")
    box._db.execute("PRAGMA synchronous = OFF")
    for work in (lambda: box.mark_receipted(DAYS * STUDIES, []), lambda: box.rewind(SeqSet()), lambda: fill(box, 1)):
        work()
        assert path.with_name("outbox.db-wal").stat().st_size < LOG_BYTES // 2, "as many rows at once do not outgrow the log"
    box.mark_receipted(DAYS * STUDIES, [])
    assert box.forget(10) == DAYS * STUDIES - 10
    assert path.with_name("outbox.db-wal").stat().st_size < LOG_BYTES // 2
    box.close()


def test_ninety_days_fit_even_if_each_is_as_large_as_the_contract_allows():
    pages_each = -(-MAX_BYTES // 4096) + 1
    assert DAYS * STUDIES * pages_each * 4096 < room_for_outcomes(RESULTS_BYTES)


def test_a_full_outbox_refuses_keeps_all_and_goes_on_when_receipts_come(path, small):
    fill_up(small)
    count = small.last_seq()
    assert small.waiting() == count > 100
    assert [row.number for row in small.unreceipted(0, 10_000)] == list(range(1, count + 1))
    with pytest.raises(OutboxFull):
        fill(small, 1, 10)
    assert small.last_seq() == count, "a refusal uses up no seq"
    assert small.mark_receipted(count // 2, []) == count // 2
    fill(small, 20, 4000)
    assert small.waiting() == count - count // 2 + 20
    assert small.lowest_unreceipted() == count // 2 + 1
    assert total(path) < SMALL


def test_receipts_can_be_noted_to_the_last_row_of_a_full_outbox(path, small):
    fill_up(small, 900)
    relay = Outbox(path, "clinic-1", results_bytes=SMALL)
    count = small.last_seq()
    relay.mark_receipted(0, [], [(seq, "x" * 64) for seq in range(1, count + 1)])
    assert small.waiting() == 0
    relay.close()


def test_years_of_use_stay_below_the_limit(path, small):
    most = 0
    for _ in range(6):
        fill(small, 400, 1500)
        small.mark_receipted(small.last_seq(), [])
        small.make_room(0.7)
        assert small._file.used() <= 0.71
        most = max(most, total(path))
    assert small.last_seq() == 2400
    assert most < SMALL


def test_what_waits_is_not_removed_to_make_room(small):
    fill_up(small)
    assert small.make_room(0.1) == 0
    assert small.waiting() == small.last_seq()


def test_a_reader_without_end_makes_it_full_and_not_larger(path, small):
    fill(small, 10, 4000)
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as reader:
        reader.execute("BEGIN; SELECT count(*) FROM outcome").fetchall()
        with pytest.raises(OutboxFull, match="another program reads it"):
            fill_and_receipt(small, 60)
        assert total(path) < SMALL
        waiting, last = small.waiting(), small.last_seq()
    fill(small, 1, 1500)
    assert (small.waiting(), small.last_seq()) == (waiting + 1, last + 1)


FILL = """
import sys
from pathlib import Path
from edge.errors import OutboxFull
from edge.outbox.writer import Entry, Outbox

box = Outbox(Path(sys.argv[1]), "clinic-1")
refused = 0
for number in range(30):
    try:
        box.record(Entry(str(number), "result", lambda seq: b"x" * 3000))
    except OutboxFull:
        refused += 1
print(box.last_seq(), refused)
"""


def test_a_disk_that_is_full_for_a_while_is_a_full_outbox(path):
    """Every twentieth write finds no space: the outcome of that moment is refused, all others are there."""
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC:when=50+20"]
    done = subprocess.run([*command, sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=True)
    last, refused = map(int, done.stdout.split())
    assert refused > 2
    assert last + refused == 30
    box = Outbox(path, "clinic-1")
    assert [row.number for row in box.unreceipted(0, 100)] == list(range(1, last + 1))
    assert box.check_integrity() == "ok"
    box.close()


@pytest.mark.parametrize(
    ("results", "free", "level"),
    [(79, 600, "ok"), (80, 600, "alarm"), (99, 600, "alarm"), (100, 600, "full"), (0, 511, "alarm"), (0, 255, "full")],
)
def test_the_levels(results, free, level):
    assert Room(results, 100, free * MIB, 256 * MIB, 0, 0).level == level


def test_the_size_is_told_without_opening_the_database(path, small):
    assert outbox_bytes(path.with_name("none.db")) == 0
    fill_up(small)
    small._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert outbox_bytes(path) >= room_for_outcomes(SMALL)
    small.mark_receipted(small.last_seq(), [])
    assert small.make_room(0.5) > 0
    assert outbox_bytes(path) < 0.6 * room_for_outcomes(SMALL), "what was removed counts as free at once"


def test_those_who_take_files_in_see_a_full_outbox_as_soon_as_it_is_full(path, small):
    with pytest.raises(OutboxFull):
        fill(small, 10_000)
    assert outbox_bytes(path) >= room_for_outcomes(SMALL)


def test_it_is_looked_at_once_a_second_and_says_it_in_words(tmp_path):
    capacity = Capacity(tmp_path, RESULTS_BYTES, least_free=0)
    assert capacity.has_room()
    spool = Spool(tmp_path)
    (spool.incoming / "a~b").write_bytes(b"x" * 3 * MIB)
    assert "0 files" in capacity.room().sentence()
    fresh = Capacity(tmp_path, RESULTS_BYTES, least_free=0)
    assert "1 files with 3 MiB wait in the spool" in fresh.room().sentence()
    assert Capacity(tmp_path, RESULTS_BYTES, least_free=2**60).level() == "full"


def test_status_and_check_say_how_much_room_there_is(tmp_path, monkeypatch):
    device = Device(device="clinic-1", facility="C", state=str(tmp_path), site_key="k", watch=Watch(folder=str(tmp_path)))
    box = Outbox(tmp_path / "outbox.db", "clinic-1")
    status = StatusWriter(device, None, box)
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool/a~b").write_bytes(b"123")
    said = status("online")
    assert (said.room, said.spool_files, said.spool_bytes, said.damaged_outboxes) == ("ok", 1, 3, 0)
    assert said.results_limit_bytes == room_for_outcomes(RESULTS_BYTES)
    assert {finding.ok for finding in check_device(device) if finding.subject in {"room", "outbox"}} == {True}
    (tmp_path / "outbox-damaged-0123abcd.db").touch()
    monkeypatch.setattr("edge.capacity.outbox_bytes", lambda path: RESULTS_BYTES)
    said = status("online")
    assert (said.room, said.damaged_outboxes) == ("full", 1)
    found = {finding.text: finding.fatal for finding in check_device(device) if not finding.ok}
    assert any("No more X-rays are taken in, and none is lost" in text and fatal for text, fatal in found.items())
    assert any("was damaged and put aside" in text and not fatal for text, fatal in found.items())
    box.close()


def test_without_room_files_stay_in_the_folder_and_it_is_said_once(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "inbox").mkdir()
    spool, room = Spool(tmp_path / "state"), [False]
    watch = FolderWatch(Watch(folder=str(tmp_path / "inbox"), settle_s=0.001, rescan_s=0.1), spool, lambda: room[0])
    for number in range(5):
        (tmp_path / f"inbox/{number}.png").write_bytes(b"1")
    assert watch.run_once(0.5) == 0
    for _ in range(3):
        assert watch.rescan() == 0
    assert len(list((tmp_path / "inbox").iterdir())) == 5
    assert caplog.text.count("No room for more X-rays") == 1
    room[0] = True
    while spool.pending() == []:
        watch.rescan()
    watch.rescan()
    assert len(spool.pending()) == 5
    assert caplog.text.count("there is room again") == 1
    watch.close()


class Full:
    """An inference whose outbox is full for a while, as a full disk is."""

    def __init__(self, spool, errors):
        self.spool, self.errors, self.tried = spool, list(errors), []

    def process(self, intake):
        self.tried.append(intake.id)
        if self.errors:
            raise self.errors.pop(0)
        self.spool.settle(intake, f"done/{intake.id}")

    def raise_if_damaged(self):
        pass

    def give_up(self, intake):
        raise AssertionError("a full outbox is no fault of the picture")


class StopWhen:
    def __init__(self, condition):
        self.is_set = condition


def test_infer_waits_with_the_file_in_the_spool_and_blames_no_picture(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("edge.infer.loop._RESCAN_S", 0.01)
    spool = Spool(tmp_path / "state")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"1")
        spool.admit(tmp_path / name)
    inference = Full(spool, [OutboxFull("full"), OSError(28, "No space left on device")] * 4)
    trials = Trials(tmp_path / "in-hand")
    infer_forever(inference, spool, trials, StopWhen(lambda: spool.pending() == []), Requests(tmp_path), lambda: None)
    trials.close()
    assert len(inference.tried) == 10
    assert caplog.text.count("Nothing can be recorded at present") == 1


def test_a_disk_that_fails_ends_infer(tmp_path):
    spool = Spool(tmp_path / "state")
    (tmp_path / "c.png").write_bytes(b"1")
    spool.admit(tmp_path / "c.png")
    inference = Full(spool, [OSError(5, "Input/output error")])
    with closing(Trials(tmp_path / "in-hand")) as trials, pytest.raises(OSError, match="Input/output"):
        infer_forever(inference, spool, trials, StopWhen(lambda: False), Requests(tmp_path), lambda: None)
    assert len(spool.pending()) == 1


def test_old_pictures_go_first_when_the_disk_fills(tmp_path):
    spool = Spool(tmp_path)
    for number in range(4):
        (spool.done / str(number)).write_bytes(b"x" * 1000)
        os.utime(spool.done / str(number), (number, number))
    free = shutil.disk_usage(tmp_path).free
    assert spool.trim_done(2**40, keep_free=0) == 0
    assert spool.trim_done(2**40, keep_free=free + 10 * 2**30) == 4


def test_an_outbox_of_the_first_layout_is_brought_up_to_date(path):
    with closing(sqlite3.connect(path)) as old:
        old.executescript(
            "CREATE TABLE stream (one INTEGER PRIMARY KEY CHECK (one = 1), device TEXT NOT NULL, epoch TEXT NOT NULL,"
            " last_seq INTEGER NOT NULL) STRICT;"
            "CREATE TABLE outcome (seq INTEGER PRIMARY KEY, source_key TEXT NOT NULL UNIQUE, pixel_hash TEXT, kind TEXT NOT NULL,"
            " payload BLOB NOT NULL, receipted INTEGER NOT NULL DEFAULT 0, quarantined TEXT, original_name TEXT NOT NULL,"
            " place TEXT NOT NULL) STRICT;"
            "CREATE TABLE repeat (place TEXT PRIMARY KEY, seq INTEGER NOT NULL, original_name TEXT NOT NULL) STRICT;"
            "CREATE INDEX outcome_waiting ON outcome (seq) WHERE receipted = 0;"
            "INSERT INTO stream VALUES (1, 'clinic-1', 'e', 2);"
            "INSERT INTO outcome VALUES (1, 'a', NULL, 'result', x'31', 1, NULL, 'n', 'p');"
            "INSERT INTO outcome VALUES (2, 'b', NULL, 'result', x'32', 0, NULL, 'n', 'p');"
            "PRAGMA user_version = 1; PRAGMA journal_mode = WAL;"
        )
    box = Outbox(path, "clinic-1")
    assert (box.epoch, box.last_seq(), box.waiting()) == ("e", 2, 1)
    assert box.record(Entry("c", "result", lambda seq: b"3")) == (3, True)
    assert [row.number for row in box.unreceipted(0, 9)] == [2, 3]
    box.close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(Exception, match="newer version"):
        Outbox(path, "clinic-1")


def test_an_outbox_of_the_second_layout_is_brought_up_to_date(path):
    with closing(Outbox(path, "clinic-1")) as box:
        box.record(Entry("a", "result", lambda seq: b"1", place="0a1b.dcm"))
    with closing(sqlite3.connect(path)) as old:
        old.executescript("DROP INDEX outcome_place; DROP INDEX outcome_void; PRAGMA user_version = 2;")
    with closing(Outbox(path, "clinic-1")) as box:
        assert (box.last_seq(), box.number_of_place("0a1b"), box.number_of_place("0a1")) == (1, 1, 1)
    assert _plan(path, "SELECT number FROM outcome WHERE place BETWEEN 'a' AND 'b'").endswith("outcome_place (place>? AND place<?)")


def test_an_older_layout_is_no_reason_against_an_upgrade_and_a_newer_one_is(tmp_path):
    """What the installer asks before it takes a version into service."""
    device = Device("clinic-1", "Clinic 1", str(tmp_path), "site.key", Watch(str(tmp_path / "inbox")))
    with closing(Outbox(tmp_path / "outbox.db", "clinic-1")):
        pass
    for layout, ok in ((2, True), (99, False)):
        with closing(sqlite3.connect(tmp_path / "outbox.db")) as changed:
            changed.execute(f"PRAGMA user_version = {layout}")
        for findings in (check_software(device), check_device(device)):
            [found] = [finding for finding in findings if finding.subject == "outbox"]
            assert (found.ok, found.fatal) == (ok, True), found
    (tmp_path / "outbox.db").write_bytes(b"no database" * 1000)
    assert [finding.ok for finding in check_software(device) if finding.subject == "outbox"] == [True], "it is the disk that did it"
    assert [finding.ok for finding in check_device(device) if finding.subject == "outbox"] == [False]


def test_the_page_finds_a_study_without_reading_every_outcome(path):
    with closing(Outbox(path, "clinic-1")):
        pass
    asked = [sql for sql in _asked_by_the_page(path) if "LIMIT" not in sql]  # which reads the newest of them alone
    assert len(asked) == 4
    assert [sql for sql in asked if "SCAN outcome" in _plan(path, sql) and "INDEX" not in _plan(path, sql)] == []


def _asked_by_the_page(path):
    asked = []
    with closing(OutboxReader(path, "clinic-1")) as box:
        box._db.exec_trace = lambda cursor, sql, values: asked.append(cursor.expanded_sql) or True
        box.number_of_place("0a1b")
        box.voided()
        box.listing(200)
        box.row(1)
        box.waiting()
    return [sql for sql in asked if "FROM outcome" in sql]


def _plan(path, sql):
    with closing(sqlite3.connect(path)) as reader:
        return "; ".join(row[3] for row in reader.execute(f"EXPLAIN QUERY PLAN {sql}"))
