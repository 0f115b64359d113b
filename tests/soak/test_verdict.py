"""Who judges is judged: a lost study, one that counts twice, one that nobody sent, and a hole are each found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from edge.contract import codec
from edge.dicom.arrival import spool_name
from edge.outbox.writer import Outbox
from edge.privacy.pseudonym import SiteKey
from tests.soak.ledger import Ledger
from tests.soak.studies import Study
from tests.soak.verdict import Evidence, judge
from tests.support import messages
from tests.support.clinic import make_device

KEY = SiteKey(bytes(32))
STUDIES = [Study(number, "machine", "result", dicom=True) for number in range(3)]
SOURCES = [KEY.keyed("source", f"sop:{study.uid}") for study in STUDIES]


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    ledger = Ledger()
    for study in STUDIES:
        ledger.told(study, study.sources_by_c_store())
    ledger.told_void(2)
    device = make_device(tmp_path / "device", "mqtt://127.0.0.1:1")
    Outbox(device.state / "outbox.db", device.name).close()
    return Evidence(ledger, device, KEY, frozenset(), tmp_path / "centre.db")


def put_in_centre(evidence: Evidence, keys: list[str], first: int = 1) -> None:
    void = structs.replace(messages.void("dev-a", first + len(keys), 2), source_key=KEY.keyed("source", f"void:{messages.EPOCH}:2"))
    outcomes = [messages.result(seq=first + number, source_key=key) for number, key in enumerate(keys)]
    with closing(sqlite3.connect(evidence.database)) as db, db:
        db.execute("CREATE TABLE outcomes (id INTEGER PRIMARY KEY, payload BLOB)")
        db.execute("CREATE TABLE quarantine (reason TEXT, detail TEXT)")
        db.executemany("INSERT INTO outcomes (payload) VALUES (?)", [(codec.encode(row),) for row in [*outcomes, void]])


def test_all_is_well(evidence: Evidence) -> None:
    put_in_centre(evidence, SOURCES)
    verdict = judge(evidence)
    assert (verdict.lost, verdict.duplicates, verdict.faults) == (0, 0, [])


def test_a_lost_study_is_told_with_where_it_was_seen_last(evidence: Evidence) -> None:
    put_in_centre(evidence, SOURCES[:2])
    (evidence.device.state / "spool").mkdir()
    (evidence.device.state / "spool" / f"{'0' * 32}~{spool_name(STUDIES[2].uid)}").touch()
    verdict = judge(evidence)
    assert (verdict.lost, verdict.duplicates) == (1, 0)
    assert verdict.faults == [f"lost: {STUDIES[2].name} (machine): it is still in the spool"]


def test_a_lost_void_is_lost(evidence: Evidence) -> None:
    evidence.ledger.told_void(1)
    put_in_centre(evidence, SOURCES)
    assert judge(evidence).lost == 1


def test_a_study_that_is_there_under_both_its_names_counts_twice(evidence: Evidence) -> None:
    by_bytes = next(source for source in STUDIES[0].sources_by_c_store() if source.startswith("file:"))
    put_in_centre(evidence, [*SOURCES, KEY.keyed("source", by_bytes)])
    verdict = judge(evidence)
    assert (verdict.lost, verdict.duplicates) == (0, 1)


def test_what_nobody_sent_and_what_is_not_in_order_is_told(evidence: Evidence) -> None:
    put_in_centre(evidence, [*SOURCES, "f" * 64], first=2)
    faults = judge(evidence).faults
    assert len(faults) == 2
    assert faults[0].startswith("nobody sent this")
    assert faults[1].endswith("have holes, or are there twice")
