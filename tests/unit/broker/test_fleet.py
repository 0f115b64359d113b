"""The authority: made whole or made again, and what it signs and when."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import broker.fleet.enrolling as enrolling
import edge.durable
from broker.errors import AuthorityError
from broker.fleet.authority import Authority, Settings
from broker.fleet.certificates import LONG, certificate_pem, new_key, new_root
from broker.fleet.enrolling import Options, enrol
from broker.fleet.founding import found, renew_servers
from broker.fleet.paper import FORM_FEED, paper
from broker.fleet.renewal import Renewals
from broker.fleet.revoking import revoke
from broker.fleet.table import MOST_ROWS, Wanted, read_table
from broker.ingest import Decision, Greeted, Replied, Reported
from edge.contract.messages import Command, Reply
from edge.enrolment.file import unlock
from edge.enrolment.identity import Unfit, new_key_pair, require_fit, require_whole
from edge.privacy.key_paper import read_paper
from tests.support import messages

T0 = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
SETTINGS = Settings(["centre.example", "192.0.2.7", "2001:db8::1"])


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> Authority:
    found(tmp_path / "authority", SETTINGS, T0)
    return Authority(tmp_path / "authority", clock)


def one(authority: Authority, folder: Path, name: str = "clinic-1", **options: object) -> enrolling.Made:
    [made] = enrol(authority, [Wanted(name, "Clinic")], folder, Options(**options))  # type: ignore[arg-type]
    return made


class Killed(BaseException):
    pass


def killed_at_each_write(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """Do `work` again and again, killed at the first, the second ... rename, until it is not; return how often it was killed."""
    right = os.rename
    kills = 0
    while True:
        left = kills

        def rename(source: object, target: object) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            right(source, target)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(edge.durable.os, "rename", rename)
            try:
                work()
                return kills
            except Killed:
                kills += 1


def test_an_authority_that_was_cut_off_while_it_was_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "authority"

    def work() -> None:
        if (folder / "authority.json").exists():
            Authority(folder)
            raise AssertionError("it counts before it is whole")
        assert found(folder, SETTINGS, T0)

    assert killed_at_each_write(monkeypatch, work) >= 12
    authority = Authority(folder)
    root = x509.load_pem_x509_certificate(authority.ca.read_bytes())
    for name in ("broker", "aggregator", "operator", "dashboard", "centre"):
        x509.load_pem_x509_certificate(authority.files(name).cert.read_bytes()).verify_directly_issued_by(root)
    assert not found(folder, SETTINGS, T0)


def test_an_enrolment_that_was_cut_off_is_none(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    wanted = [Wanted("a", "Clinic"), Wanted("b", "Clinic")]

    def work() -> None:
        if members := Authority(authority.folder).fleet().members:  # killed after it counted: then it is whole
            assert set(members) == {"a", "b"}
            with Authority(authority.folder).turn():
                return
        enrol(Authority(authority.folder), wanted, out, Options())

    assert killed_at_each_write(monkeypatch, work) >= 4
    fleet = authority.fleet()
    assert set(fleet.members) == {"a", "b"}
    # What the earlier attempts made counts no more, and the list says so.
    listed = {f"{one.serial_number:x}" for one in x509.load_pem_x509_crl(authority.crl.read_bytes())}
    assert listed == fleet.revoked
    assert len(listed) >= 8
    for name in ("a", "b"):
        code = next(line.split()[1] for line in (out / f"{name}.txt").read_text().splitlines() if line.startswith("Code"))
        content = unlock((out / f"{name}.enrol").read_bytes(), code)
        used = fleet.members[name].used
        assert used is not None
        assert f"{x509.load_pem_x509_certificate(content.identity.encode()).serial_number:x}" == used.serial


def test_dates(authority: Authority, tmp_path: Path) -> None:
    made = one(authority, tmp_path / "out", use_within=timedelta(days=30))
    code = next(line.split()[1] for line in made.paper.read_text().splitlines() if line.startswith("Code"))
    content = unlock(made.file.read_bytes(), code)
    assert content.use_before == (T0 + timedelta(days=30)).date()
    certificate = x509.load_pem_x509_certificate(content.identity.encode())
    assert certificate.not_valid_after_utc == T0 + timedelta(days=60 + 365)
    assert certificate.not_valid_before_utc == authority.maker.certificate.not_valid_before_utc == T0 - timedelta(days=365)
    assert (content.url, content.https) == ("mqtts://centre.example:8883", "https://centre.example:8444")
    for name in ("ca", "broker", "aggregator", "operator", "dashboard", "centre"):
        read = x509.load_pem_x509_certificate((authority.folder / f"{name}.pem").read_bytes())
        assert read.not_valid_after_utc == T0 + LONG
    crl = x509.load_pem_x509_crl(authority.crl.read_bytes())
    assert crl.next_update_utc == T0 + LONG


def test_the_servers_are_reached_under_all_their_names(authority: Authority) -> None:
    def names() -> set[str]:
        read = x509.load_pem_x509_certificate(authority.files("broker").cert.read_bytes())
        return {str(name.value) for name in read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value}

    assert names() == {"centre.example", "192.0.2.7", "2001:db8::1", "localhost", "127.0.0.1", "::1"}
    renew_servers(authority.folder, Settings(["other.example"]), T0)
    assert names() == {"other.example", "localhost", "127.0.0.1", "::1"}
    assert Settings(["2001:db8::1"]).url == "mqtts://[2001:db8::1]:8883"


@pytest.mark.parametrize("host", ["", "a b", "1.2.3", "256.1.1.1", "-x", "x/y", "a:1", "ä.example", "a" * 64 + ".example", "x\n"])
def test_what_is_no_host(tmp_path: Path, host: str) -> None:
    with pytest.raises(AuthorityError, match="neither a name nor an address"):
        found(tmp_path / "authority", Settings([host]), T0)
    assert not (tmp_path / "authority").exists()


def test_a_later_list_has_a_later_date_whatever_the_clock_says(authority: Authority, tmp_path: Path, clock: Clock) -> None:
    dates = []
    for number in range(4):
        clock.now = T0 - timedelta(days=number * 100)  # the centre's clock is set back
        with authority.turn():
            pass
        made = one(authority, tmp_path / "out", f"clinic-{number}")
        revoke(authority, made.device)
        crl = x509.load_pem_x509_crl(authority.crl.read_bytes())
        assert crl.last_update_utc < T0
        dates.append(crl.last_update_utc)
    assert dates == sorted(set(dates))


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


def test_who_is_revoked_while_its_files_are_written_is_not_enrolled(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one(authority, tmp_path / "out")
    right = enrolling._write

    def write(to: Path, prepared: enrolling._Prepared) -> enrolling.Made:
        revoke(Authority(authority.folder, authority.now), "clinic-1")
        return right(to, prepared)

    with monkeypatch.context() as patch:
        patch.setattr(enrolling, "_write", write)
        with pytest.raises(AuthorityError, match="clinic-1 was revoked meanwhile"):
            one(authority, tmp_path / "out", again=True)
    assert authority.fleet().members["clinic-1"].used is None
    one(authority, tmp_path / "out", again=True)


def test_a_clock_that_is_far_too_early_is_told_of(authority: Authority, tmp_path: Path, clock: Clock) -> None:
    clock.now = T0 - timedelta(days=1000)
    with pytest.raises(AuthorityError, match="set the clock"):
        one(authority, tmp_path / "out")


def test_a_root_of_a_damaged_folder_is_told_of(authority: Authority) -> None:
    (authority.folder / "ca.key").write_bytes(b"x")
    with pytest.raises(AuthorityError, match="put them back"):
        _ = Authority(authority.folder).maker
    (authority.folder / "authority.json").write_text("{}")
    with pytest.raises(AuthorityError, match="damaged"):
        Authority(authority.folder)
    (authority.folder / "authority.json").unlink()
    (authority.folder / "journal.jsonl").write_text("")
    with pytest.raises(AuthorityError, match="put it back"):
        found(authority.folder, SETTINGS, T0)


def test_a_folder_that_cannot_be_written_enrols_nobody(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuthorityError, match="cannot be made"):
        one(authority, tmp_path / "file" / "out")
    assert not authority.fleet().members


def test_the_paper(authority: Authority, tmp_path: Path) -> None:
    made = one(authority, tmp_path / "out")
    first, second = made.paper.read_text().split(FORM_FEED)
    key = read_paper(line for line in second.splitlines()[1:] if line)
    assert key.key_id == made.key_id == authority.fleet().key_of["Clinic"]
    assert "sudo ./install.sh --enrol clinic-1.enrol\n" in first
    assert "cxr-edge enrol clinic-1.enrol --config" in first
    assert "--profile" in first, "without one a new board gets no device.toml"
    assert key.secret.hex() not in first
    assert all(len(line) <= 100 for line in (*first.splitlines(), *second.splitlines()))
    later = paper("clinic-2", "Clinic", "CODE", T0.date(), None, key.key_id)
    assert FORM_FEED not in later
    assert f"key {key.key_id}" in later


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    path.write_text("\ufeffDevice, facility ,x\n a-1 , Clinic 1 ,y\n", "utf-8")
    assert read_table(path) == [Wanted("a-1", "Clinic 1", f"{path}, line 2")]
    for text, sentence in (
        ("a,b\n1,2\n", "no columns device and facility"),
        ("", "no columns"),
        ("device,facility\n", "has 0 devices"),
        ("device,facility\n" + "a,b\n" * (MOST_ROWS + 1), "a table has 1 to"),
    ):
        path.write_text(text)
        with pytest.raises(AuthorityError, match=sentence):
            read_table(path)
    path.write_bytes(b"device,facility\n\xff,b\n")
    with pytest.raises(AuthorityError, match="no CSV table in UTF-8"):
        read_table(path)


def test_a_table_is_checked_whole(authority: Authority, tmp_path: Path) -> None:
    one(authority, tmp_path / "out", "there")
    for second, sentence in (
        (Wanted("a", "Clinic", "line 3"), "is there twice"),
        (Wanted("A", "Clinic", "line 3"), "is there twice"),
        (Wanted("There", "Clinic", "line 3"), "by capitals only"),
        (Wanted("there", "Clinic", "line 3"), "say --again"),
        (Wanted("x", "Clinic/", "line 3"), "no name of a facility"),
        (Wanted("", "Clinic", "line 3"), "no device name"),
        (Wanted("x\n", "Clinic", "line 3"), "no device name"),
        (Wanted("x", "Clinic\n", "line 3"), "no name of a facility"),
    ):
        with pytest.raises(AuthorityError, match=sentence):
            enrol(authority, [Wanted("a", "Clinic", "line 2"), second], tmp_path / "out", Options())
    assert set(authority.fleet().members) == {"there"}


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


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_does_not_fit_a_device(authority: Authority) -> None:
    root, stranger, pair = authority.maker, new_root("other", T0), new_key_pair("clinic-1")
    public, ca = pair.key.public_key(), certificate_pem(root.certificate)

    def fits(certificate: x509.Certificate) -> None:
        require_fit(certificate_pem(certificate).decode(), public, "clinic-1", ca)

    year = timedelta(days=365)
    fits(root.client("clinic-1", public, T0, year))
    for certificate, why in (
        (root.client("clinic-2", public, T0, year), "it is for clinic-2"),
        (root.client("clinic-1", new_key().public_key(), T0, year), "another key"),
        (stranger.client("clinic-1", public, T0, year), "another authority"),
        (root.server("clinic-1", public, ["x"], T0), "not for a device"),
        (root.sealer("clinic-1", public, T0), "not for a device"),
    ):
        with pytest.raises(Unfit, match=why):
            fits(certificate)
    with pytest.raises(Unfit, match="cannot be read"):
        require_fit("x", public, "clinic-1", ca)
    sound = root.client("clinic-1", public, T0, year).public_bytes(serialization.Encoding.DER)
    curve = bytes.fromhex("06082a8648ce3d030107")  # P-256
    for begin, instead in ((b"c-1", b"\xff\xfe1"), (b"\x0c\x08clin", b"\x02\x08clin"), (curve, curve[:-1] + b"\x7f")):
        assert begin in sound
        body = base64.encodebytes(sound.replace(begin, instead)).decode()
        with pytest.raises(Unfit, match="cannot be read"):
            require_fit(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n", public, "clinic-1", ca)
    with pytest.raises(Unfit, match="its key cannot be read"):
        require_whole(certificate_pem(root.client("clinic-1", public, T0, year)).decode(), "clinic-1", ca.decode())
