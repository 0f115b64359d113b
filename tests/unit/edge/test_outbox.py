"""The outbox against a plain model, and what must hold whatever order things happen in."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from edge.contract.codec import encode
from edge.contract.seqset import SeqSet
from edge.errors import OutboxError
from edge.outbox.reader import OutboxReader
from edge.outbox.writer import Entry, Outbox
from tests.golden.examples import EXAMPLES

ranges = st.tuples(st.integers(1, 30), st.integers(1, 30)).map(sorted).map(tuple)


def entry(key, name="", place=None):
    return Entry(
        source_key=key, kind="result", payload=lambda seq: f"{key}:{seq}".encode(), original_name=name or key, place=place or key
    )


class AgainstModel(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.path = AgainstModel.folder / f"{AgainstModel.count}.db"
        AgainstModel.count += 1
        self.outbox = Outbox(self.path, "clinic-1")
        self.epoch = self.outbox.epoch
        self.seq_of = {}  # source key -> seq, for all that is still remembered
        self.receipted = set()
        self.last = 0

    @rule(key=st.sampled_from("abcdefghijklmnop"))
    def record(self, key):
        seq, new = self.outbox.record(entry(key))
        assert new == (key not in self.seq_of)
        if new:
            self.last += 1
            self.seq_of[key] = self.last
        assert seq == self.seq_of[key]

    @rule(through=st.integers(0, 30), plus=st.lists(ranges, max_size=3))
    def receipt(self, through, plus):
        held = {*range(1, through + 1)} | {seq for first, last in plus for seq in range(first, last + 1)}
        new = (held & set(self.seq_of.values())) - self.receipted
        assert self.outbox.mark_receipted(through, plus) == len(new)
        self.receipted |= new

    @precondition(lambda self: self.seq_of)
    @rule(data=st.data())
    def quarantined(self, data):
        seq = data.draw(st.sampled_from(sorted(self.seq_of.values())))
        self.outbox.mark_receipted(0, [], [(seq, "invalid")])
        self.receipted.add(seq)

    @rule(held=st.builds(SeqSet, st.integers(0, 20), st.lists(ranges, max_size=2)))
    def rewind(self, held):
        lost = {seq for seq in self.receipted if seq not in held}
        assert self.outbox.rewind(held) == len(lost)
        self.receipted -= lost

    @rule(keep=st.integers(0, 5))
    def forget(self, keep):
        gone = set(sorted(self.receipted)[: max(len(self.receipted) - keep, 0)])
        assert self.outbox.forget(keep) == len(gone)
        self.receipted -= gone
        self.seq_of = {key: seq for key, seq in self.seq_of.items() if seq not in gone}

    @rule()
    def reopen(self):
        self.outbox.close()
        self.outbox = Outbox(self.path, "clinic-1")

    @invariant()
    def agrees(self):
        waiting = sorted(set(self.seq_of.values()) - self.receipted)
        keys = {seq: key for key, seq in self.seq_of.items()}
        assert self.outbox.epoch == self.epoch
        assert self.outbox.last_seq() == self.last
        assert self.outbox.waiting() == len(waiting)
        assert self.outbox.lowest_unreceipted() == (waiting[0] if waiting else self.last + 1)
        rows = self.outbox.unreceipted(0, 100)
        assert [(row.number, row.payload) for row in rows] == [(seq, f"{keys[seq]}:{seq}".encode()) for seq in waiting]
        assert all(self.outbox.payload(seq) is None for seq in self.receipted)

    def teardown(self):
        self.outbox.close()


def test_the_outbox_agrees_with_a_plain_model(tmp_path):
    AgainstModel.folder, AgainstModel.count = tmp_path, 0
    run_state_machine_as_test(AgainstModel, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))


@pytest.fixture
def box(tmp_path):
    outbox = Outbox(tmp_path / "outbox.db", "clinic-1")
    yield outbox
    outbox.close()


def test_every_commit_is_forced_to_the_disk(box):
    """synchronous=FULL in WAL mode: anything less lost thousands of acknowledged rows in simulated power cuts."""
    assert box._file.one("PRAGMA synchronous") == (2,)
    assert box._file.one("PRAGMA journal_mode") == ("wal",)
    assert box._file.one("PRAGMA journal_size_limit") == (4 * 2**20,)


def test_a_commit_calls_fsync_before_it_returns(tmp_path):
    """Seen from outside the process, at the system calls."""
    script = (
        "import sys; from pathlib import Path; from edge.outbox.writer import Entry, Outbox;"
        "b = Outbox(Path(sys.argv[1]), 'd'); b.record(Entry('w', 'result', lambda s: b'')); print('READY', flush=True);"
        "b.record(Entry('k', 'result', lambda s: b'')); print('COMMITTED', flush=True)"
    )
    log = tmp_path / "trace"
    if shutil.which("strace") is None:
        pytest.fail("strace is missing. Install it: apt-get install strace")
    subprocess.run(
        ["strace", "-f", "-o", str(log), "-e", "trace=fsync,fdatasync,write", sys.executable, "-c", script, str(tmp_path / "o.db")],
        check=True,
        capture_output=True,
    )
    lines = log.read_text().splitlines()
    ready = next(i for i, line in enumerate(lines) if '"READY' in line)
    committed = next(i for i, line in enumerate(lines) if '"COMMITTED' in line)
    assert any("sync(" in line for line in lines[ready:committed])


def test_a_payload_that_cannot_be_made_uses_up_no_seq(box):
    def broken(seq):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        box.record(Entry("k", "result", broken))
    assert box.record(entry("k")) == (1, True)


def test_it_belongs_to_one_device(tmp_path, box):
    with pytest.raises(OutboxError, match="belongs to device 'clinic-1'"):
        Outbox(tmp_path / "outbox.db", "clinic-2")


def test_what_is_no_database_is_said_so(tmp_path):
    (tmp_path / "outbox.db").write_bytes(b"not a database, and longer than a hundred bytes " * 50)
    with pytest.raises(OutboxError, match="cannot be used"):
        Outbox(tmp_path / "outbox.db", "clinic-1")
    with pytest.raises(OutboxError, match="cannot be used"):
        Outbox(tmp_path / "nowhere" / "outbox.db", "clinic-1")


def test_a_reader_cannot_write(tmp_path, box):
    reader = OutboxReader(tmp_path / "outbox.db", "clinic-1")
    box.record(entry("k"))
    assert reader.last_seq() == 1
    with pytest.raises(Exception, match=r"(?i)read-?only"):
        reader._db.execute("DELETE FROM outcome")
    reader.close()


def test_a_second_file_with_one_source_key_is_remembered_with_its_seq(box):
    box.record(entry("k", "first.dcm", "p1"))
    box.record(entry("k", "second.dcm", "p2"))
    box.record(entry("k", "first.dcm", "p1"))
    assert box.seq_of_files() == {"first.dcm": 1, "second.dcm": 1}
    box.mark_receipted(1, [])
    box.forget(0)
    assert box.seq_of_files() == {}


def test_another_process_sees_that_something_was_committed(tmp_path, box):
    reader = OutboxReader(tmp_path / "outbox.db", "clinic-1")
    before = reader.data_version()
    box.record(entry("k"))
    assert reader.data_version() != before
    reader.close()


def test_its_file_is_an_ordinary_sqlite_database(tmp_path, box):
    box.record(entry("k"))
    with sqlite3.connect(tmp_path / "outbox.db") as db:
        assert db.execute("SELECT count(*) FROM outcome").fetchone() == (1,)
    db.close()


def test_neither_a_test_film_nor_a_spoilt_row_is_asked_for_its_typicality(tmp_path):
    with closing(Outbox(tmp_path / "typical.db", "clinic-1")) as box:
        for number, changes in enumerate(({}, {"test": True}, {"typicality": None}, {})):
            outcome = msgspec.structs.replace(EXAMPLES["result"], **({"test": False, "typicality": 0.5} | changes))
            box.record(Entry(f"{number}", "result", lambda seq, outcome=outcome: encode(outcome)))
        box.record(Entry("void", "void", lambda seq: encode(EXAMPLES["void"])))
        box._db.execute("UPDATE outcome SET payload = CAST('{spoilt' AS BLOB) WHERE number IN (4, 5)")
        assert [(number, typicality) for number, _, typicality in box.typicalities(0)] == [(1, 0.5), (3, None)]
        assert box.voided() == set()
