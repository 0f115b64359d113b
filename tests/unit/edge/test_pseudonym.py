"""The site's key: several in one file, rotated, printed and typed again, and one outcome for one intake whichever was active."""

import contextlib
import io
import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.cli import main
from edge.commands.setup_device import set_up
from edge.config import Device, Watch
from edge.contract.codec import decode_outcome
from edge.dicom.arrival import spool_name
from edge.dicom.commitment import Instance, Judge, Request
from edge.enrolment.install import as_owner_of
from edge.errors import ConfigError, CxrError
from edge.infer.outcomes import OutcomeWriter, Picture
from edge.intake.spool import Spool
from edge.outbox.writer import Entry, Outbox
from edge.pixels.headers import Headers
from edge.privacy.key_paper import _ALPHABET, paper_lines, read_paper
from edge.privacy.pseudonym import SiteKey, adopt, chain, load_site_key, make_site_key, rotate, save
from edge.requests import VoidRequest
from tests.support.authority import Authority
from tests.unit.edge.test_infer import BUNDLE, Bench, ready

SECRETS = st.binary(min_size=32, max_size=32)
DAYS = st.dates().map(lambda day: day.isoformat()) | st.none()
KEYS = st.lists(st.builds(SiteKey, SECRETS, DAYS), min_size=1, max_size=4, unique_by=lambda key: key.secret).map(chain)
DEVICE = Device(device="clinic-1", facility="Clinic", state="s", site_key="k", watch=Watch(folder="f"))


@given(KEYS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_key_file_holds_every_key_with_its_day_for_its_owner_alone(tmp_path, key):
    path = tmp_path / "site.key"
    before = os.umask(0)
    try:
        save(path, key)
    finally:
        os.umask(before)
    assert load_site_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_file_of_one_line_as_earlier_versions_wrote_it_is_read(tmp_path):
    (tmp_path / "site.key").write_text("AB" * 32 + "\n")
    assert load_site_key(tmp_path / "site.key") == SiteKey(b"\xab" * 32)


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 32 + "\nnonsense\n", "ab" * 32 + " yesterday", "ä"])
def test_what_is_no_key_file_is_refused_and_says_how_to_go_on(tmp_path, text):
    (tmp_path / "site.key").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match="key restore"):
        load_site_key(tmp_path / "site.key")


def test_rotation_makes_a_new_active_key_and_keeps_the_earlier_ones(tmp_path):
    path = tmp_path / "site.key"
    first = make_site_key(path, "2026-01-01")
    second = rotate(path, "2026-02-01")
    third = rotate(path, None)
    assert load_site_key(path) == third
    assert [key.secret for key in third.all] == [third.secret, second.secret, first.secret]
    assert [key.since for key in third.all] == [None, "2026-02-01", "2026-01-01"]
    assert len({key.key_id for key in third.all}) == 3


@given(KEYS)
def test_what_is_printed_and_typed_again_is_the_same_keys(key):
    assert read_paper(paper_lines(key, "Clinic")) == key


@given(KEYS)
def test_small_letters_other_spaces_and_letters_that_look_alike_do_not_matter(key):
    typed = []
    for line in paper_lines(key, "Clinic"):
        number, _, digits = line.strip().partition("  ")
        if number.isdigit():
            sloppy = digits.replace("0", "o").replace("1", "l").replace("V", "u").replace(" ", "").lower()
            typed += [f"{number}. {sloppy[:7]} {sloppy[7:]}", ""]
        else:
            typed.append(line)
    assert read_paper(typed) == key


@given(KEYS, st.data())
@settings(max_examples=300)
def test_one_wrong_letter_or_two_exchanged_ones_are_found_in_their_line(key, data):
    lines = list(paper_lines(key, "Clinic"))
    places = [place for place, line in enumerate(lines) if line.strip()[:1].isdigit()]
    place = data.draw(st.sampled_from(places))
    digits = list(lines[place])
    at = data.draw(st.sampled_from([at for at in range(4, len(digits)) if digits[at] != " "]))
    if data.draw(st.booleans()):
        digits[at] = data.draw(st.sampled_from([letter for letter in _ALPHABET if letter != digits[at]]))
    else:
        other = data.draw(st.sampled_from([other for other in range(4, len(digits)) if digits[other] != " "]))
        digits[at], digits[other] = digits[other], digits[at]
    if "".join(digits) == lines[place]:
        return
    number = int(lines[place][:2])
    lines[place] = "".join(digits)
    with pytest.raises(CxrError, match=rf"Line {number} was mistyped") as raised:
        read_paper(lines)
    assert "".join(digits[4:8]) not in str(raised.value), "an error ends on a screen or in a log"


@given(KEYS, st.data())
def test_a_line_that_is_left_out_or_exchanged_is_named(key, data):
    lines = [line for line in paper_lines(key, "Clinic") if line and not line.startswith("#")]
    place = data.draw(st.integers(0, len(lines) - 1))
    left_out = lines[:place] + lines[place + 1 :]
    with pytest.raises(CxrError, match=r"missing|comes next|none of the paper|No key"):
        read_paper(left_out)
    numbered = [at for at, line in enumerate(lines) if line.strip()[:1].isdigit()]
    first, second = numbered[0], numbered[-1]
    content = lines[first][4:], lines[second][4:]
    lines[first], lines[second] = lines[first][:4] + content[1], lines[second][:4] + content[0]
    with pytest.raises(CxrError, match="Line 1 was mistyped"):
        read_paper(lines)


def test_a_key_of_which_only_the_name_was_typed_is_not_dropped():
    lines = [line for line in paper_lines(chain([SiteKey(b"a" * 32), SiteKey(b"b" * 32)]), "Clinic") if line and line[0] != "#"]
    first, second = lines[:5], lines[5:]
    for typed in ([*first, second[0]], [second[0], *first], [*first, second[0], second[0], *second[1:]]):
        with pytest.raises(CxrError, match=r"Line \d is missing"):
            read_paper(typed)
    assert len(read_paper(first + second).all) == 2


def test_the_lines_of_another_key_under_a_name_are_refused():
    lines = [line.replace(SiteKey(b"a" * 32).key_id, "00000000") for line in paper_lines(SiteKey(b"a" * 32), "Clinic")]
    with pytest.raises(CxrError, match="not those of key 00000000"):
        read_paper(lines)


def test_a_second_device_restored_from_paper_gives_the_same_pseudonyms_and_knows_its_own_earlier_outcomes(tmp_path):
    first, own = make_site_key(tmp_path / "a.key"), make_site_key(tmp_path / "b.key")
    restored = adopt(tmp_path / "b.key", read_paper(paper_lines(first, "Clinic")))
    assert restored == load_site_key(tmp_path / "b.key")
    assert restored.keyed("patient", "k-1") == first.keyed("patient", "k-1")
    assert [key.secret for key in restored.earlier] == [own.secret]
    fresh = adopt(tmp_path / "c.key", read_paper(paper_lines(first, "Clinic")))
    assert fresh == first


def test_an_old_paper_does_not_undo_a_rotation(tmp_path):
    path = tmp_path / "site.key"
    old = list(paper_lines(make_site_key(path), "Clinic"))
    rotated = rotate(path, None)
    assert adopt(path, read_paper(old)) == rotated


class Line:
    """The device's own line from intake to outbox, whose site key can be rotated."""

    def __init__(self, home):
        self.bench = Bench(home)
        self.number = 0

    def rotate(self):
        self.bench.close()
        self.bench.key = chain([SiteKey(os.urandom(32)), *self.bench.key.all])
        self.bench.open()

    def take(self, uid, picture):
        self.number += 1
        headers = Headers(sop_instance_uid=uid, patient_id="K-1")
        content = f"{uid} {picture} {self.number}".encode() if uid is None else f"{uid} {picture}".encode()
        return self.bench.inference.process(self.bench.drop(f"{self.number}.dcm", content, ready(picture, headers)))


STEPS = st.lists(
    st.one_of(
        st.just("rotate"),
        st.tuples(st.sampled_from(["1.2.1", "1.2.2"]), st.integers(0, 2)),
        st.tuples(st.just("void"), st.integers(1, 3)),
    ),
    max_size=12,
)


@given(STEPS)
@settings(max_examples=40, deadline=None)
def test_whenever_the_key_is_rotated_there_are_the_outcomes_of_a_device_that_never_did(tmp_path_factory, steps):
    def run(rotating):
        line = Line(tmp_path_factory.mktemp("line"))
        seqs = []
        for step in steps:
            if step == "rotate":
                if rotating:
                    line.rotate()
            elif step[0] == "void":
                epoch = line.bench.outbox.epoch
                seqs.append(line.bench.inference.void(VoidRequest(epoch=epoch, voids=step[1], reason="wrong_patient")))
            else:
                seqs.append(line.take(*step))
        outcomes = [(outcome.seq, type(outcome), getattr(outcome, "quality", None)) for outcome in line.bench.outcomes()]
        line.bench.close()
        return seqs, outcomes

    assert run(True) == run(False)


def test_new_outcomes_carry_the_new_key_and_its_pseudonyms(tmp_path):
    line = Line(tmp_path)
    line.take("1.2.1", 1)
    line.rotate()
    line.take("1.2.2", 1)
    first, second = line.bench.outcomes()
    active, earlier = line.bench.key.all
    assert (first.key_id, second.key_id) == (earlier.key_id, active.key_id)
    assert (first.patient, second.patient) == (earlier.keyed("patient", "k-1"), active.keyed("patient", "k-1"))
    assert first.pixel_hash != second.pixel_hash
    line.bench.close()


def test_a_crash_before_the_file_left_the_spool_and_a_rotation_after_it_make_one_outcome(tmp_path):
    line = Line(tmp_path)
    intake = line.bench.drop("a.png", b"1", ready(1))
    copy = intake.path.read_bytes()
    seq = line.bench.inference.process(intake)
    line.rotate()
    intake.path.write_bytes(copy)
    assert line.bench.inference.process(intake) == seq
    assert len(line.bench.outcomes()) == 1
    line.bench.close()


def test_storage_commitment_knows_after_a_rotation_what_came_before_it(tmp_path):
    path = tmp_path / "outbox.db"
    with contextlib.closing(Outbox(path, "clinic-1")) as outbox:
        writer = OutcomeWriter(DEVICE, SiteKey(b"k" * 32), BUNDLE.manifest, outbox.epoch)
        picture = Picture("sop:1.2.3", Headers(sop_instance_uid="1.2.3"))
        key, payload = writer.source_key(picture), writer.failure(picture, "damaged")
        outbox.record(Entry(key, "failure", payload, original_name=spool_name("1.2.3")))
        assert decode_outcome(outbox.unreceipted(0, 1)[0].payload).key_id == SiteKey(b"k" * 32).key_id
    asked = Request("1.9", "XRAY1", "127.0.0.1", [Instance("1.1", "1.2.3"), Instance("1.1", "1.2.4")])
    verdict = Judge(Spool(tmp_path / "state"), path, "clinic-1").judge(asked)
    assert [one.sop_instance for one in verdict.committed] == ["1.2.3"]


def run(*arguments):
    """Run a command; return (exit status, what it wrote to stdout)."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code, out.getvalue()


@pytest.fixture
def device(tmp_path):
    set_up(tmp_path / "home", "clinic-1", "Clinic", "mqtt://127.0.0.1:1")
    return tmp_path / "home"


def test_the_commands_print_rotate_and_restore(device, monkeypatch):
    config = ("--config", device / "device.toml")
    first = load_site_key(device / "site.key")
    assert run("key", "rotate", *config)[0] == 0
    status, shown = run("key", "show", *config)
    second = load_site_key(device / "site.key")
    assert [line.split()[:2] for line in shown.splitlines()] == [[second.key_id, "active"], [first.key_id, "earlier"]]
    assert first.secret.hex() not in shown
    paper = run("key", "paper", *config)[1]
    (device / "site.key").unlink()
    monkeypatch.setattr(sys, "stdin", io.StringIO(paper.replace(" 3  ", " 3  0", 1)))
    assert run("key", "restore", *config)[0] == 2
    assert not (device / "site.key").exists()
    monkeypatch.setattr(sys, "stdin", io.StringIO(paper))
    assert run("key", "restore", *config)[0] == 0
    assert load_site_key(device / "site.key") == second
    assert status == 0


@pytest.mark.parametrize("table", ["pacs", "dicom"])
def test_check_says_when_the_key_of_the_pacs_can_be_read_by_others_or_is_not_there(device, tmp_path, table):
    own = Authority(tmp_path / "tls").client("clinic-1")
    ca = tmp_path / "tls/ca.pem"
    lines = [f"[{table}]", f'certificate = "{own.cert}"', f'private_key = "{own.key}"', f'ca = "{ca}"']
    lines += ["port = 1", 'address = "127.0.0.1"', 'called_ae_title = "PACS"'] if table == "pacs" else ['allow = ["A@127.0.0.1"]']
    with (device / "device.toml").open("a") as file:
        file.write("\n" + "\n".join(lines) + "\n")
    own.key.chmod(0o600)
    assert "can be read by other users" not in run("check", "--config", device / "device.toml")[1]
    own.key.chmod(0o644)
    assert f"chmod 600 {own.key}" in run("check", "--config", device / "device.toml")[1]
    own.key.unlink()
    said = run("check", "--config", device / "device.toml")[1]
    assert f"The TLS files of [{table}] cannot be used (No such file or directory)" in said


def test_check_says_when_the_key_or_the_pictures_can_be_read_by_others(device):
    config = ("--config", device / "device.toml")
    assert "can be read by other users" not in run("check", *config)[1]
    Path(device / "site.key").chmod(0o640)
    Path(device / "state").chmod(0o755)
    said = run("check", *config)[1]
    assert f"chmod 600 {device / 'site.key'}" in said
    assert f"chmod 700 {device / 'state'}" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_a_key_that_root_rotates_stays_the_devices_own(tmp_path):
    path = tmp_path / "site.key"
    make_site_key(path)
    os.chown(path, 12345, 12346)
    rotate(path, None)
    assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (12345, 12346, 0o600)


@pytest.fixture
def board():
    """A device whose state folder is that of another user, as on a board, and a file of root."""
    with tempfile.TemporaryDirectory(prefix="cxr-key-") as name:
        home = Path(name)
        home.chmod(0o755)
        set_up(home, "clinic-1", "Clinic", "mqtt://127.0.0.1:1")
        config = home / "device.toml"
        config.write_text(config.read_text().replace('"site.key"', '"state/identity/site.key"'))
        identity = home / "state/identity"
        identity.mkdir(mode=0o700)
        os.rename(home / "site.key", identity / "site.key")
        for path in (home / "state", identity, identity / "site.key"):
            os.chown(path, 12345, 12346)
        (home / "roots").mkdir(mode=0o700)
        (home / "roots/own").write_text("root's own")
        (home / "roots/own").chmod(0o600)
        yield home


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
@pytest.mark.parametrize("do", ["rotate", "restore"])
def test_a_link_in_the_folder_of_the_key_gives_nothing_of_root_away(board, monkeypatch, do):
    config = ("--config", board / "device.toml")
    identity = board / "state/identity"
    monkeypatch.setattr(sys, "stdin", io.StringIO(run("key", "paper", *config)[1]))
    (identity / "site.part").symlink_to(board / "roots/own")
    assert run("key", do, *config)[0] == 0
    assert ((board / "roots/own").stat().st_uid, (board / "roots/own").read_text()) == (0, "root's own")
    key = (identity / "site.key").lstat()
    assert (key.st_uid, key.st_gid, stat.S_IFMT(key.st_mode), stat.S_IMODE(key.st_mode)) == (12345, 12346, stat.S_IFREG, 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone is more than the folder's owner")
@pytest.mark.parametrize("do", ["show", "paper", "rotate", "restore"])
def test_root_reads_and_writes_the_key_with_no_more_rights_than_the_device_has(board, monkeypatch, do):
    """Where the folder itself is a link to one of root's."""
    config = ("--config", board / "device.toml")
    identity = board / "state/identity"
    monkeypatch.setattr(sys, "stdin", io.StringIO(run("key", "paper", *config)[1]))
    os.rename(identity / "site.key", board / "roots/site.key")
    identity.rmdir()
    identity.symlink_to(board / "roots")
    before = (board / "roots/site.key").read_bytes()
    assert run("key", do, *config) == (2, "")
    assert (board / "roots/site.key").read_bytes() == before
    assert sorted(path.name for path in (board / "roots").iterdir()) == ["own", "site.key"]
    assert (os.geteuid(), os.getegid()) == (0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone has groups to lay down")
def test_root_lays_its_other_groups_down_too_and_takes_them_up_again(board):
    before = os.getgroups()
    os.setgroups([0, 4])
    try:
        with as_owner_of(board / "state"):
            assert (os.geteuid(), os.getegid(), os.getgroups()) == (12345, 12346, [])
        assert (os.geteuid(), os.getegid(), sorted(os.getgroups())) == (0, 0, [0, 4])
    finally:
        os.setgroups(before)
