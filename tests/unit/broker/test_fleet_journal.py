"""The authority's journal, torn anywhere, and what follows from its events."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from broker.errors import AuthorityError
from broker.fleet.journal import Journal, locked
from broker.fleet.listing import standing_of
from broker.fleet.standing import Enrolled, Enrolment, Event, Fleet, Installed, Issue, Making, Renewal, Revocation

T0 = datetime(2026, 1, 1, tzinfo=timezone.utc)
YEAR = timedelta(days=425)


def making(*issues: tuple[str, str]) -> Making:
    return Making(T0, [Issue(device, serial, T0 + YEAR) for device, serial in issues])


def enrolment(*devices: tuple[str, str], key_id: str = "0badcafe") -> Enrolment:
    return Enrolment(T0, [Enrolled(name, "Clinic", serial, T0 + YEAR, T0 + timedelta(days=90), key_id) for name, serial in devices])


def renewal(device: str, serial: str, days: int = 60) -> Renewal:
    return Renewal(T0 + timedelta(days=days), Issue(device, serial, T0 + timedelta(days=days) + YEAR))


EVENTS: list[Event] = [
    making(("a", "1"), ("b", "2")),
    enrolment(("a", "1"), ("b", "2")),
    renewal("a", "3"),
    Installed(T0, "a", "3"),
    Revocation(T0, "b"),
]


def test_torn_at_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # no power is cut here
    whole = tmp_path / "whole.jsonl"
    journal = Journal(whole)
    for event in EVENTS:
        journal.append(event)
    content = whole.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == 10]
    path = tmp_path / "journal.jsonl"
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        torn = Journal(path)
        known = sum(end <= cut for end in ends)
        assert torn.news() == EVENTS[:known]
        torn.append(EVENTS[-1])
        assert Journal(path).news() == [*EVENTS[:known], EVENTS[-1]]


def test_one_that_hangs_in_its_turn_does_not_hold_up_the_others_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "authority.lock"
    with locked(path, 5.0):
        began = time.monotonic()
        with pytest.raises(AuthorityError, match="does one hang"), locked(path, 0.2):
            pass
        assert time.monotonic() - began >= 0.2
    with locked(path, 0.2):
        pass


def test_a_line_whose_beginning_was_not_written_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(EVENTS[0])
    path.write_bytes(path.read_bytes() + b"\0" * 500 + b",b]}" * 30 + b"\n")
    torn = Journal(path)
    assert torn.news() == [EVENTS[0]]
    for number in range(1, 12):  # until they reach into what the crash has left
        torn.append(EVENTS[-1])
        assert Journal(path).news() == [EVENTS[0], *[EVENTS[-1]] * number]


def test_a_line_that_makes_no_sense_is_damage_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append(EVENTS[0])
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(AuthorityError, match="damaged"):
        Journal(path).news()


def test_two_processes_read_what_the_other_wrote(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "j.jsonl"), Journal(tmp_path / "j.jsonl")
    one.append(EVENTS[0])
    assert two.news() == [EVENTS[0]]
    two.append(EVENTS[1])
    assert one.news() == [EVENTS[1]]
    assert (one.news(), two.news()) == ([], [])


def test_a_journal_that_was_put_back_or_taken_away_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append(EVENTS[0])
    earlier = path.read_bytes()
    journal.append(EVENTS[1])
    path.write_bytes(earlier)
    with pytest.raises(AuthorityError, match="replaced"):
        journal.news()
    path.unlink()
    with pytest.raises(AuthorityError, match="gone"):
        journal.news()


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append(EVENTS[0])
    before = path.read_bytes()
    monkeypatch.setattr("os.pwrite", lambda *_: 3)
    with pytest.raises(AuthorityError, match="No space left"):
        journal.append(EVENTS[1])
    assert path.read_bytes() == before


def fold(*events: Event) -> Fleet:
    fleet = Fleet()
    for event in events:
        fleet.take(event)
    return fleet


def test_what_follows() -> None:
    fleet = fold(*EVENTS)
    assert fleet.revoked == {"1", "2"}  # the key that came in a's file, and all of b
    assert fleet.members["a"].used is not None
    assert fleet.members["a"].used.serial == "3"
    assert fleet.members["b"].used is None
    assert fleet.key_of == {"Clinic": "0badcafe"}
    assert standing_of(fleet.members["a"], T0) == "ok"
    assert standing_of(fleet.members["a"], T0 + timedelta(days=600)) == "expired"
    assert standing_of(fleet.members["b"], T0) == "revoked"


def test_a_renewal_that_was_not_confirmed_leaves_the_certificate_before_it() -> None:
    fleet = fold(*EVENTS[:3])
    used = fleet.members["a"].used
    assert used is not None
    assert (used.serial, fleet.revoked) == ("1", set())


def test_enrolled_again_shuts_out_every_earlier_one() -> None:
    fleet = fold(*EVENTS[:4], making(("a", "8"), ("a", "9")), enrolment(("a", "9")))
    assert fleet.revoked == {"1", "3", "8"}
    used = fleet.members["a"].used
    assert used is not None
    assert used.serial == "9"


def test_an_enrolment_that_was_cut_off_counts_for_nothing_and_is_shut_out_by_the_next() -> None:
    fleet = fold(making(("a", "1")))
    assert not fleet.members
    assert fold(making(("a", "1")), making(("a", "2")), enrolment(("a", "2"))).revoked == {"1"}


def test_a_renewal_that_crosses_a_revocation_is_shut_out_too() -> None:
    fleet = fold(*EVENTS, renewal("b", "7"), Installed(T0, "b", "7"), renewal("stranger", "6"))
    assert fleet.revoked == {"1", "2", "6", "7"}
    assert fleet.members["b"].used is None


def test_a_revoked_device_that_is_enrolled_again_counts_again() -> None:
    fleet = fold(*EVENTS, making(("b", "9")), enrolment(("b", "9"), key_id=""))
    assert standing_of(fleet.members["b"], T0) == "waiting"
    assert standing_of(fleet.members["b"], T0 + timedelta(days=91)) == "late"
    assert "9" not in fleet.revoked
    assert fleet.key_of == {"Clinic": "0badcafe"}
