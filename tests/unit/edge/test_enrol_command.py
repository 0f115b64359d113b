"""Enrolling as root on a board whose processes have a user of their own: who owns what, and what they cannot make root do."""

from __future__ import annotations

import hashlib
import io
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import edge.durable
from broker.fleet.authority import Authority, Settings
from broker.fleet.certificates import certificate_pem, key_pem, new_key, new_root
from broker.fleet.enrolling import Options, enrol
from broker.fleet.founding import found, renew_servers
from broker.fleet.table import Wanted
from edge.cli import main
from edge.config import load_config
from edge.page.session import load_pin

NOBODY = 65534
FILES = ["ca.pem", "centre.pem", "device.pem", "enrolment.sha256", "site.key"]
ROOT = Path(__file__).parents[3]
PROFILE = """device = "x"
facility = "x"
state = "../state"
site_key = "../state/identity/site.key"
[watch]
folder = "../inbox"
[page]
pin = "page.pin"
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter, as /var/lib is."""
    folder = Path(tempfile.mkdtemp(prefix="cxr-enrol-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def made(place: Path) -> tuple[Path, str]:
    found(place / "authority", Settings(["127.0.0.1"]), datetime.now(timezone.utc))
    return made_by(place, Options())


def made_by(place: Path, options: Options) -> tuple[Path, str]:
    [one] = enrol(Authority(place / "authority"), [Wanted("clinic-1", "Clinic")], place / "out", options)
    code = next(line.split()[1] for line in one.paper.read_text().splitlines() if line.startswith("Code"))
    return one.file, code


def call(place: Path, file: Path, code: str) -> subprocess.CompletedProcess[str]:
    (place / "profile.toml").write_text(PROFILE)
    arguments = ["enrol", str(file), "--config", str(place / "etc" / "device.toml"), "--profile", str(place / "profile.toml")]
    return subprocess.run(
        [sys.executable, "-m", "edge.cli", *arguments], input=code, capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_files_belong_to_who_runs_the_device(place: Path) -> None:
    """As root they are given to the owner of the state folder; otherwise whoever enrols runs the device."""
    root = os.geteuid() == 0
    file, code = made(place)
    (place / "state").mkdir(mode=0o700)
    if root:
        os.chown(place / "state", NOBODY, NOBODY)
    done = call(place, file, code)
    assert done.returncode == 0, done.stderr
    owner = NOBODY if root else os.geteuid()
    identity = place / "state" / "identity"
    for path in (identity, *identity.iterdir(), place / "etc" / "page.pin"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o077) == (owner, 0), path
    assert sorted(path.name for path in identity.iterdir()) == FILES
    assert (place / "etc").stat().st_mode & 0o777 == 0o755
    config = (place / "etc" / "device.toml").stat()
    assert (config.st_uid, config.st_mode & 0o777) == (0 if root else owner, 0o640 if root else 0o600)
    if root:
        assert config.st_gid == NOBODY


def ended_with(monkeypatch: pytest.MonkeyPatch, code: str, arguments: list[str], kill_at: float) -> int:
    """Return with what the command ended, its code typed, when it was killed at the rename after so many."""
    right, left = os.rename, kill_at

    def rename(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        right(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(edge.durable.os, "rename", rename)
        patch.setattr(sys, "stdin", io.StringIO(code))
        with pytest.raises(SystemExit) as ended:
            main(arguments)
    return int(ended.value.code or 0)


def test_killed_at_each_write_the_same_command_finishes_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, code = made(place)
    (place / "profile.toml").write_text(PROFILE)
    arguments = ["enrol", str(file), "--config", str(place / "etc" / "device.toml"), "--profile", str(place / "profile.toml")]
    identity, config = place / "state" / "identity", place / "etc" / "device.toml"

    def call(kill_at: float) -> int:
        return ended_with(monkeypatch, code, arguments, kill_at)

    kills = 0
    while call(kills) != 0:
        # A configuration is there only when all that it names is.
        assert not config.exists()
        assert call(math.inf) == 0
        assert load_config(config).device == "clinic-1"
        assert sorted(path.name for path in identity.iterdir()) == FILES
        assert (place / "etc" / "page.pin").exists()
        shutil.rmtree(place / "state")
        shutil.rmtree(place / "etc")
        kills += 1
    assert kills == 7


@pytest.mark.parametrize("typed", [b"\xff\xfe\n", b"\0\n", "\u0660".encode() * 20 + b"\n"])
def test_bytes_that_are_no_text_are_no_code(place: Path, typed: bytes) -> None:
    file, _ = made(place)
    (place / "profile.toml").write_text(PROFILE)
    arguments = ["enrol", str(file), "--config", str(place / "etc" / "device.toml"), "--profile", str(place / "profile.toml")]
    done = subprocess.run([sys.executable, "-m", "edge.cli", *arguments], input=typed, capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert b"The code has 4 groups" in done.stderr
    assert not (place / "etc").exists()


def test_a_link_that_a_process_has_laid_leads_root_nowhere(place: Path) -> None:
    file, code = made(place)
    target = place / "shadow"
    target.write_text("root's own")
    target.chmod(0o600)
    identity = place / "state" / "identity"
    identity.mkdir(parents=True)
    for name in ("device.part", "ca.part", "site.part"):
        (identity / name).symlink_to(target)
    if os.geteuid() == 0:
        for path in (identity.parent, identity):
            os.chown(path, NOBODY, NOBODY)
    else:
        target.chmod(0o400)
    done = call(place, file, code)
    assert done.returncode == 0, done.stderr
    assert (target.read_text(), target.stat().st_uid) == ("root's own", os.geteuid())
    assert not [path for path in identity.iterdir() if path.is_symlink()]
    assert load_config(place / "etc" / "device.toml").device == "clinic-1"


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone is more than the folder's owner")
def test_a_folder_that_a_process_has_laid_elsewhere_is_not_written_by_root(place: Path) -> None:
    file, code = made(place)
    (place / "roots").mkdir(mode=0o700)
    (place / "state").mkdir(mode=0o700)
    (place / "state" / "identity").symlink_to(place / "roots")
    os.chown(place / "state", NOBODY, NOBODY)
    done = call(place, file, code)
    assert done.returncode == 2
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((place / "roots").iterdir())
    assert not (place / "etc" / "device.toml").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_the_pin_is_given_away_before_it_has_a_name_that_someone_could_exchange(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, code = made(place)
    (place / "state").mkdir(mode=0o700)
    os.chown(place / "state", NOBODY, NOBODY)
    (place / "profile.toml").write_text(PROFILE)
    changed = []
    monkeypatch.setattr(os, "chown", lambda *arguments: changed.append(arguments))
    monkeypatch.setattr(sys, "stdin", io.StringIO(code))
    with pytest.raises(SystemExit) as ended:
        main(["enrol", str(file), "--config", str(place / "etc/device.toml"), "--profile", str(place / "profile.toml")])
    assert ended.value.code in {None, 0}
    assert not [path for path, *_ in changed if "page.pin" in str(path)]
    pin = (place / "etc/page.pin").stat()
    assert (pin.st_uid, pin.st_gid, pin.st_mode & 0o777) == (NOBODY, NOBODY, 0o600)


def test_an_empty_pin_is_made_anew_and_another_is_kept(place: Path) -> None:
    file, code = made(place)
    (place / "etc").mkdir()
    (place / "etc/page.pin").touch()
    assert call(place, file, code).returncode == 0
    pin = load_pin(place / "etc/page.pin")
    assert call(place, file, code).returncode == 0
    assert load_pin(place / "etc/page.pin") == pin


def renewed(place: Path, days: int, name: str = "clinic-1") -> bytes:
    """Renew the device's identity, as a device does in service, with one that is good for so many days; return it."""
    key, now = new_key(), datetime.now(timezone.utc)
    certificate = Authority(place / "authority").maker.client(name, key.public_key(), now, timedelta(days=days))
    content = key_pem(key) + certificate_pem(certificate)
    (place / "state/identity/device.pem").write_bytes(content)
    return content


def test_the_same_file_again_leaves_an_identity_that_has_been_renewed_since(place: Path) -> None:
    """That of the file was revoked at the renewal. How long the new one is good does not matter."""
    file, code = made(place)
    assert "renewed" not in call(place, file, code).stdout
    assert "renewed" not in call(place, file, code).stdout
    present = renewed(place, days=10)
    (place / "state/identity/centre.pem").unlink()
    done = call(place, file, code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "has renewed since; kept" in done.stdout
    assert (place / "state/identity/device.pem").read_bytes() == present
    assert (place / "state/identity/centre.pem").exists()


@pytest.mark.parametrize("days", [10, 3000])
def test_a_newer_file_takes_the_place_of_an_identity_however_long_that_is_good(place: Path, days: int) -> None:
    """The centre revoked it when it made the file, and may give shorter times by then."""
    file, code = made(place)
    assert call(place, file, code).returncode == 0
    present = renewed(place, days)
    later, code = made_by(place, Options(again=True))
    done = call(place, later, code)
    assert done.returncode == 0, done.stderr
    assert "kept" not in done.stdout
    assert (place / "state/identity/device.pem").read_bytes() != present


@pytest.mark.parametrize("days", [10, 3000])
def test_where_a_file_was_taken_by_an_earlier_version_the_identity_that_is_good_for_longer_stays(place: Path, days: int) -> None:
    file, code = made(place)
    assert call(place, file, code).returncode == 0
    (place / "state/identity/enrolment.sha256").write_text(hashlib.sha256(file.read_bytes()).hexdigest())
    present = renewed(place, days)
    assert "kept" in call(place, file, code).stdout
    later, code = made_by(place, Options(again=True))
    kept = "kept" in call(place, later, code).stdout
    assert ((place / "state/identity/device.pem").read_bytes() == present) == kept == (days == 3000)


def test_an_older_file_never_takes_the_place_of_a_newer_one(place: Path) -> None:
    """Also where the newer one is good for less."""
    older, older_code = made(place)
    older = older.rename(place / "older.enrol")
    time.sleep(1.1)  # the centre notes the second in which a file was made
    renew_servers(place / "authority", Settings(["127.0.0.1"], grace_days=30), datetime.now(timezone.utc))
    newer, code = made_by(place, Options(again=True))
    assert call(place, newer, code).returncode == 0
    present = (place / "state/identity/device.pem").read_bytes()
    assert "kept" in call(place, older, older_code).stdout
    assert (place / "state/identity/device.pem").read_bytes() == present


def test_a_newer_file_that_was_cut_off_at_any_write_is_taken_by_the_same_command_and_what_is_renewed_then_stays(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is renewed between the cut and that command."""
    file, code = made(place)
    assert call(place, file, code).returncode == 0
    (place / "board").mkdir()
    for name in ("state", "etc"):
        shutil.copytree(place / name, place / "board" / name)
    path = place / "state/identity/device.pem"
    time.sleep(1.1)  # the centre notes the second in which a file was made
    later, code = made_by(place, Options(again=True))
    cuts = 0
    while True:
        for name in ("state", "etc"):
            shutil.rmtree(place / name)
            shutil.copytree(place / "board" / name, place / name)
        present = renewed(place, 3000)
        if not ended_with(monkeypatch, code, ["enrol", str(later), "--config", str(place / "etc" / "device.toml")], cuts):
            break
        cuts += 1
        if path.read_bytes() == present:
            assert "kept" not in call(place, later, code).stdout
            assert path.read_bytes() != present
        present = renewed(place, 3000)
        assert "kept" in call(place, later, code).stdout
        assert path.read_bytes() == present
    assert cuts == 3, "site key, what is noted of the file, identity"


@pytest.mark.parametrize("spoil", ["damaged", "absent", "of another device", "of another authority"])
def test_an_identity_that_does_not_fit_is_replaced_by_the_same_file(place: Path, spoil: str) -> None:
    file, code = made(place)
    assert call(place, file, code).returncode == 0
    path = place / "state/identity/device.pem"
    right = path.read_bytes()
    if spoil == "of another device":
        renewed(place, 3000, "clinic-2")
    elif spoil == "of another authority":
        key, now = new_key(), datetime.now(timezone.utc)
        certificate = new_root("other", now).client("clinic-1", key.public_key(), now, timedelta(days=3000))
        path.write_bytes(key_pem(key) + certificate_pem(certificate))
    else:
        path.write_bytes(b"\xff\0")
        if spoil == "absent":
            path.unlink()
    assert "kept" not in call(place, file, code).stdout
    assert path.read_bytes() == right


CALLS = ("rename", "fchown", "fchmod")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_killed_at_each_call_that_changes_a_file_the_same_command_leaves_what_the_device_can_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes, ended by SIGKILL; of each kind of call every one."""
    strace = shutil.which("strace")
    assert strace, "strace is needed"
    file, code = made(place)
    (place / "profile.toml").write_text(PROFILE)

    def called(at: int, call: str, where: Path) -> subprocess.Popen[str]:
        (where / "state").mkdir(parents=True, mode=0o700)
        os.chown(where / "state", NOBODY, NOBODY)
        options = ["-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={at}"]
        arguments = ["enrol", str(file), "--config", str(where / "etc/device.toml"), "--profile", str(place / "profile.toml")]
        command = [strace, *options, sys.executable, "-B", "-m", "edge.cli", *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )

    kills = 0
    for call in CALLS:
        for at in range(1, 20):
            where = place / f"{call}-{at}"
            process = called(at, call, where)
            process.communicate(code)
            if process.returncode == 0:
                break
            kills += 1
            monkeypatch.setattr(sys, "stdin", io.StringIO(code))
            with pytest.raises(SystemExit) as ended:
                main(["enrol", str(file), "--config", str(where / "etc/device.toml"), "--profile", str(place / "profile.toml")])
            assert not ended.value.code, (call, at)
            require_readable(where)
    assert kills >= len(FILES) + 2 + 2, "each file's name, and the two that are given away"


def require_readable(where: Path) -> None:
    """The owner of the state folder can read all that belongs to the device."""
    assert sorted(path.name for path in (where / "state/identity").iterdir() if path.suffix != ".part") == FILES
    for path in (where / "state/identity", *(where / "state/identity" / name for name in FILES), where / "etc/page.pin"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o077) == (NOBODY, 0), path
    config = (where / "etc/device.toml").stat()
    assert (config.st_uid, config.st_gid, config.st_mode & 0o777) == (0, NOBODY, 0o640)
    assert load_config(where / "etc/device.toml").device == "clinic-1"
    load_pin(where / "etc/page.pin")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_owner_and_mode_are_put_right_where_an_earlier_version_was_cut_off(place: Path) -> None:
    file, code = made(place)
    (place / "state").mkdir(mode=0o700)
    os.chown(place / "state", NOBODY, NOBODY)
    assert call(place, file, code).returncode == 0
    for name in ("device.toml", "page.pin"):
        os.chown(place / "etc" / name, 0, 0)
        (place / "etc" / name).chmod(0o600)
    assert call(place, file, code).returncode == 0
    require_readable(place)
