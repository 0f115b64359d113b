"""Renewal as the centre does it: who is asked, what is signed, who is refused."""

from __future__ import annotations

import base64
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from broker.fleet.authority import Authority
from broker.fleet.founding import renew_servers
from broker.fleet.renewal import Renewals
from broker.fleet.revoking import revoke
from broker.ingest import Decision, Greeted, Replied, Reported
from edge.contract.messages import Command, Reply
from edge.enrolment.identity import new_key_pair
from tests.support import messages
from tests.support.fleet_folder import SETTINGS, T0, Clock, no_space, one


def test_who_is_on_the_list_stays_on_it_when_the_journal_comes_from_an_older_backup(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("clinic-1", "clinic-2"):
        one(authority, tmp_path / "out", name)
    journal = authority.folder / "journal.jsonl"
    backup = journal.read_bytes()
    used = authority.fleet().members["clinic-1"].used
    assert used is not None
    revoke(authority, "clinic-1")
    before = x509.load_pem_x509_crl(authority.crl.read_bytes())
    journal.write_bytes(backup)

    back = Authority(authority.folder, authority.now)
    renewals = Renewals(back)
    assert renewals.revoked(used.serial), "nor is it let in by HTTPS"
    assert renewals.answers(heard("clinic-1")) == []
    assert not renewals.revoked("1")
    revoke(back, "clinic-2")
    after = x509.load_pem_x509_crl(authority.crl.read_bytes())
    assert {entry.serial_number for entry in before} < {entry.serial_number for entry in after}
    assert after.last_update_utc > before.last_update_utc, "OpenSSL takes the later one"
    assert caplog.text.count("stay refused") == 1
    one(back, tmp_path / "out", "clinic-1", again=True)
    again = back.fleet().members["clinic-1"].used
    assert again is not None
    assert not renewals.revoked(again.serial)


def heard(device: str) -> list[Decision]:
    return [Greeted(messages.hello(device), 0), Reported(messages.status(device), b"", 0, False)]


def renewed(renewals: Renewals, device: str) -> list[Command]:
    """Let a device be heard and answer all it is asked; return what it was asked."""
    asked = renewals.answers(heard(device))
    said = list(asked)
    for command in asked:
        request = Reply(device=device, id=command.id, ok=True, request=new_key_pair(device).request)
        said += renewals.answers([Replied(request, 0)])
        said += renewals.answers([Replied(Reply(device=device, id=command.id, ok=True), 0)])
    return said


def test_when_a_device_is_asked(authority: Authority, tmp_path: Path, clock: Clock) -> None:
    one(authority, tmp_path / "out")
    assert Renewals(authority).answers([Reported(messages.status("clinic-1"), b"", 0, retained=True)]) == []
    assert [command.verb for command in renewed(Renewals(authority), "clinic-1")] == ["renew", "certificate"]
    for days, verbs in ((59, []), (60, ["renew", "certificate"]), (60 + 59, []), (60 + 61, ["renew", "certificate"])):
        clock.now = T0 + timedelta(days=days)
        assert [command.verb for command in renewed(Renewals(authority), "clinic-1")] == verbs
    assert Renewals(authority).answers(heard("stranger")) == []
    revoke(authority, "clinic-1")
    clock.now += timedelta(days=61)
    assert Renewals(authority).answers(heard("clinic-1")) == []


def test_a_certificate_that_was_made_while_the_clock_ran_ahead_counts_at_once(
    authority: Authority, tmp_path: Path, clock: Clock
) -> None:
    """Else the device that has put its earlier one away is let in by nobody for months."""
    clock.now = T0 + timedelta(days=90)
    one(authority, tmp_path / "out")
    renewals = Renewals(authority)
    [asked] = renewals.answers(heard("clinic-1"))
    reply = Reply(device="clinic-1", id=asked.id, ok=True, request=new_key_pair("clinic-1").request)
    [command] = renewals.answers([Replied(reply, 0)])
    assert command.certificate is not None
    renew_servers(authority.folder, SETTINGS, clock.now)
    for pem in (command.certificate.encode(), authority.files("broker").cert.read_bytes()):
        assert x509.load_pem_x509_certificate(pem).not_valid_before_utc < T0


def test_who_does_not_answer_is_asked_less_and_less_often(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one(authority, tmp_path / "out")
    renewals, now, times = Renewals(authority), 0.0, []
    monkeypatch.setattr("time.monotonic", lambda: now)
    for _ in range(24 * 120):  # a day, heard every half minute
        now += 30.0
        if renewals.answers(heard("clinic-1")):
            times.append(now)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:5] == [60, 120, 240, 480, 960]
    assert max(pauses) <= 6 * 3600
    assert len(times) <= 13


def test_a_request_of_before_a_revocation_or_a_new_enrolment_is_not_signed(authority: Authority, tmp_path: Path) -> None:
    """A lost card was asked, is shut out and replaced, and its answer comes only now."""
    for again in (False, True):
        one(authority, tmp_path / "out", again=again)
        renewals = Renewals(Authority(authority.folder, authority.now))
        [asked] = renewals.answers(heard("clinic-1"))
        revoke(authority, "clinic-1")
        reply = Replied(Reply(device="clinic-1", id=asked.id, ok=True, request=new_key_pair("clinic-1").request), 0)
        if again:
            one(authority, tmp_path / "out", again=True)
        assert renewals.answers([reply]) == []


def test_revoked_serials_in_every_way_of_writing(authority: Authority, tmp_path: Path) -> None:
    one(authority, tmp_path / "out")
    used = authority.fleet().members["clinic-1"].used
    assert used is not None
    other = Authority(authority.folder)
    renewals = Renewals(other)
    assert not renewals.revoked(used.serial.upper())
    revoke(authority, "clinic-1")
    assert renewals.revoked(used.serial.upper())
    assert renewals.revoked("0" + used.serial)


def test_a_disk_that_is_full_ends_no_aggregator(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one(authority, tmp_path / "out")
    renewals = Renewals(authority)
    [asked] = renewals.answers(heard("clinic-1"))
    monkeypatch.setattr("os.pwrite", lambda *_: 0)
    reply = Reply(device="clinic-1", id=asked.id, ok=True, request=new_key_pair("clinic-1").request)
    assert renewals.answers([Replied(reply, 0)]) == []


def malformed(name: str, begin: bytes, instead: bytes) -> str:
    """Return a request in which the bytes of the common name, or of its tag, are others."""
    der = x509.load_pem_x509_csr(new_key_pair(name).request.encode()).public_bytes(serialization.Encoding.DER)
    assert begin in der
    body = base64.encodebytes(der.replace(begin, instead)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


@pytest.mark.parametrize(
    ("begin", "instead"),
    [(b"c-1", b"\xff\xfe1"), (b"\x0c\x08clin", b"\x02\x08clin"), (b"\x0c\x08clin", b"\x03\x08clin")],
    ids=["no UTF-8", "a number", "bits"],
)
def test_a_malformed_request_is_none_and_closes_the_question(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, begin: bytes, instead: bytes
) -> None:
    one(authority, tmp_path / "out")
    renewals = Renewals(authority)
    [asked] = renewals.answers(heard("clinic-1"))
    replies = (
        Reply(device="clinic-1", id=asked.id, ok=True, request=malformed("clinic-1", begin, instead)),
        Reply(device="clinic-1", id=asked.id, ok=False, detail="no"),
        Reply(device="clinic-1", id=asked.id, ok=True, request=new_key_pair("clinic-1").request),
    )
    for reply in replies * 2:
        assert renewals.answers([Replied(reply, 0)]) == []
        assert renewals.answers(heard("clinic-1")) == []  # its pause is kept
    assert [record.message for record in caplog.records] == ["clinic-1 asks for a certificate in a way that is not understood."]


def test_a_device_that_says_no_fills_no_log(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one(authority, tmp_path / "out")
    renewals = Renewals(authority)
    [asked] = renewals.answers(heard("clinic-1"))
    for _ in range(3):
        assert renewals.answers([Replied(Reply(device="clinic-1", id=asked.id, ok=False, detail="no"), 0)]) == []
    assert len(caplog.records) == 1


def test_an_error_that_nobody_foresaw_holds_up_no_other_device(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("clinic-1", "clinic-2"):
        one(authority, tmp_path / "out", name)
    renewals = Renewals(authority)
    right = renewals._ask

    def ask(device: str) -> list[Command]:
        if device == "clinic-1":
            raise RecursionError
        return right(device)

    monkeypatch.setattr(renewals, "_ask", ask)
    commands = renewals.answers([*heard("clinic-1"), *heard("clinic-2")])
    assert [command.device for command in commands] == ["clinic-2"]
    assert caplog.text.count("RecursionError).") == 1  # two messages, one sentence


def listed(authority: Authority) -> set[str]:
    return {f"{one.serial_number:x}" for one in x509.load_pem_x509_crl(authority.crl.read_bytes())}


def test_a_list_that_could_not_be_written_is_made_good_and_the_broker_told(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one(authority, tmp_path / "out")
    told: list[set[str]] = []
    monkeypatch.setattr("broker.fleet.renewal.reload", lambda asked: told.append(listed(asked)))
    renewals = Renewals(authority)
    renewals.follow()
    assert told == [set()], "a list that was written before this process began may be news too"
    [asked] = renewals.answers(heard("clinic-1"))
    request = Reply(device="clinic-1", id=asked.id, ok=True, request=new_key_pair("clinic-1").request)
    assert renewals.answers([Replied(request, 0)])
    with monkeypatch.context() as full:
        full.setattr("broker.fleet.authority.write_durably", no_space)
        assert renewals.answers([Replied(Reply(device="clinic-1", id=asked.id, ok=True), 0)]) == []
    assert len(authority.fleet().revoked) == 1
    assert (listed(authority), len(told)) == (set(), 1)
    renewals.answers([])
    renewals.answers([])
    assert told[1:] == [authority.fleet().revoked]
    authority.crl.unlink()  # or damaged
    Renewals(Authority(authority.folder)).follow()
    assert told[2:] == [authority.fleet().revoked]
