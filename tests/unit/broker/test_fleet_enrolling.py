"""Enrolling devices: all of a table or none, the files and the paper."""

from __future__ import annotations

import errno
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

import broker.fleet.enrolling as enrolling
from broker.errors import AuthorityError
from broker.fleet.authority import Authority
from broker.fleet.enrolling import Options, enrol
from broker.fleet.paper import FORM_FEED, paper
from broker.fleet.revoking import revoke
from broker.fleet.table import MOST_ROWS, Wanted, read_table
from edge.enrolment.file import unlock
from edge.privacy.key_paper import read_paper
from tests.support.fleet_folder import T0, Clock, killed_at_each_write, one


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


def test_a_full_disk_says_that_what_there_was_before_is_revoked_all_the_same(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(enrolling, "write_durably", full)
        with pytest.raises(AuthorityError, match=r"No space left on device\); no device was enrolled\.$"):
            one(authority, tmp_path / "out")
    one(authority, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(enrolling, "write_durably", full)
        with pytest.raises(AuthorityError, match="What clinic-1 had before is revoked all the same: say it again"):
            one(authority, tmp_path / "out", again=True)
    one(authority, tmp_path / "out", again=True)


def test_who_is_revoked_while_its_files_are_written_is_not_enrolled(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one(authority, tmp_path / "out")
    right = enrolling._write

    def write(to: Path, prepared: enrolling._Prepared, cut: bool | None) -> enrolling.Made:
        revoke(Authority(authority.folder, authority.now), "clinic-1")
        return right(to, prepared, cut)

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
