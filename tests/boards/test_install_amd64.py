"""The offline package on a Debian system without a network: installed, enrolled, delivering, upgraded, removed.

The root is made by debootstrap once (about two minutes), and kept in build/roots. Broker and aggregator run beside it, in its own
network, where there is loopback alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec
import pytest

import edge
from edge.enrolment.code import read_code
from edge.enrolment.file import lock, unlock
from firmware_configs.wheelhouse.collect import collect
from firmware_configs.wheelhouse.targets import Target
from tests.support.board_device import (
    CONFIG,
    PROFILE,
    PROGRAM,
    ask,
    bring_enrolment,
    drop,
    outbox,
    require_same_reading,
    serving,
    unpack,
)
from tests.support.board_root import Board, board, debian_root, layer_of
from tests.support.clinic import small_picture
from tests.support.fleet import Fleet, make_fleet
from tests.support.processes import wait_for

TARGET = Target("x86_64", "311")
# Everything but what was brought there: names, times of change, rights, targets of links, and what is in the files.
_SEEN = (
    r"find / -xdev \( -path /root -o -path /tmp -o -path /proc -o -path /sys -o -path /dev -o -path /run \) -prune -o "
    r"-printf '%p %T@ %m %u %g %l\n'; "
    "find /opt /etc /var /srv -xdev -type f -exec sha256sum {} +"
)
# Of whoever adds and removes a user, the copies that Debian's own tools make of the lists.
_NAMES = "find / -xdev | grep -v -E '^/etc/(passwd|shadow|group|gshadow|subuid|subgid)-$'"


@pytest.fixture(scope="module")
def root() -> Path:
    return debian_root(packages=("python3", "strace"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    made = make_fleet(tmp_path_factory.mktemp("fleet") / "centre")
    made.enroll("clinic-1", "--facility", "Clinic 1")
    return made


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package of this tree, and the same software as a later version."""
    folder = tmp_path_factory.mktemp("packages")
    return collect(TARGET, folder), collect(TARGET, folder, version="99.0.0")


@pytest.fixture(scope="module")
def blank(root: Path, fleet: Fleet, packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board with the package and its enrolment file lying on it."""
    folder = tmp_path_factory.mktemp("blank")
    with board(root, folder, keep=True) as made:
        unpack(made, packages[0], "/root/package")
        bring_enrolment(made, fleet, "clinic-1")
        made.write("/root/board.toml", PROFILE)
    return layer_of(folder)


ENROL = ("--enrol", "/root/clinic-1.enrol", "--code-file", "/root/code", "--profile", "/root/board.toml")


@pytest.fixture(scope="module")
def installed(root: Path, blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with board(root, folder, [blank], keep=True) as made:
        said = made.must("/root/package/install.sh", *ENROL)
        assert "This board is clinic-1 of Clinic 1." in said
        assert "http://127.0.0.1:8080    the PIN is in /etc/cxr-edge/page.pin" in said
    return layer_of(folder)


@pytest.fixture
def device(root: Path, blank: Path, installed: Path, tmp_path: Path) -> Iterator[Board]:
    """A board with the device installed."""
    with board(root, tmp_path / "board", [installed, blank]) as made:
        yield made


def test_two_packages_of_one_tree_are_the_same_to_the_byte(packages: tuple[Path, Path], tmp_path: Path) -> None:
    assert collect(TARGET, tmp_path).read_bytes() == packages[0].read_bytes()


def test_it_reads_a_picture_as_it_is_read_here(device: Board, tmp_path: Path) -> None:
    require_same_reading(device, small_picture(tmp_path / "a.png", 1))


def test_a_second_run_changes_nothing_at_all(device: Board) -> None:
    before = sorted(device.must("sh", "-c", _SEEN).splitlines())
    said = device.must("/root/package/install.sh", *ENROL)
    assert "Nothing was changed." in said
    after = sorted(device.must("sh", "-c", _SEEN).splitlines())
    assert sorted(set(after) ^ set(before)) == []
    assert len(after) > 10_000
    device.must("rm", "/etc/systemd/system/cxr-relay.service")
    said = device.must("/root/package/install.sh", *ENROL)
    assert "done     this version in service" in said
    assert "Nothing was changed." not in said
    device.must("test", "-s", "/etc/systemd/system/cxr-relay.service")


def test_it_delivers_with_nothing_but_the_way_to_the_broker_and_an_upgrade_keeps_what_waits(
    device: Board, fleet: Fleet, packages: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "golden inputs give the scores expected of ai-edge-litert" in ask(device, "check")
    with device.network(), fleet.mosquitto(), fleet.aggregator(), serving(device, tmp_path / "first.log"):
        said = ask(device, "check", "--to-the-centre", timeout_s=150)
    assert "receipt" in said.splitlines()[-1], said

    with serving(device, tmp_path / "alone.log"):
        drop(device, small_picture(tmp_path / "a.png", 1))
        wait_for(lambda: len(outbox(device)) == 2, "the picture is read", 60)
    before = outbox(device)
    assert [row["receipted"] for row in before] == [False, True]
    unpack(device, packages[1], "/root/newer")
    assert "would be software in /opt/cxr-edge/versions/99.0.0-" in device.must("/root/newer/install.sh", "--dry-run")
    device.must("/root/newer/install.sh")
    assert device.must(PROGRAM, "--version").strip() == "cxr-edge 99.0.0"
    assert outbox(device) == before
    with device.network(), fleet.mosquitto(), fleet.aggregator(), serving(device, tmp_path / "second.log"):
        wait_for(lambda: all(row["receipted"] for row in outbox(device)), "the receipt has come", 60)
    assert outbox(device) == [{**row, "receipted": True} for row in before]
    assert len(device.must("ls", "/opt/cxr-edge/versions").split()) == 2, "the version before stays"
    # Back by hand is quick, since it is still there; so is a package of its own version.
    device.must("/root/package/install.sh")
    assert device.must(PROGRAM, "--version").strip() == f"cxr-edge {edge.__version__}"
    assert len(outbox(device)) == 2


def test_a_device_whose_site_key_comes_later_is_installed_says_so_and_can_be_upgraded(
    root: Path, blank: Path, installed: Path, fleet: Fleet, packages: tuple[Path, Path], tmp_path: Path
) -> None:
    """The second one of a facility: its file has no site key, and the paper is not at hand."""
    restore = f"cxr-edge key restore --config {CONFIG}"
    fleet.enroll("clinic-2", "--facility", "Clinic 1")
    with board(root, tmp_path / "board", [installed, blank]) as made:
        # The software is there already, which saves unpacking it.
        made.must("sh", "-c", "rm -r /etc/cxr-edge /var/lib/cxr-edge && userdel cxr-edge && rm /opt/cxr-edge/current")
        enrol = (*bring_enrolment(made, fleet, "clinic-2"), *ENROL[4:])
        said = made.must("/root/package/install.sh", *enrol)
        key_id = made.read("/var/lib/cxr-edge/identity/site.key.expected").strip()
        assert f"site key: No X-ray is read before the site's key {key_id} is typed from its paper: {restore}" in said
        assert "Nothing was changed." in (again := made.must("/root/package/install.sh", *enrol))
        assert restore in again
        unpack(made, packages[1], "/root/newer")
        # Nor does the certificate count, which no version renews.
        made.must("sh", "-c", "chmod 0 /var/lib/cxr-edge/identity/ca.pem")
        said = made.must("/root/newer/install.sh")
        assert restore in said
        assert "TLS files: " in said
        assert made.must(PROGRAM, "--version").strip() == "cxr-edge 99.0.0"
        with serving(made, tmp_path / "log"):
            drop(made, small_picture(tmp_path / "a.png", 1))
            wait_for(lambda: restore in (tmp_path / "log").read_text(), "it says what is missing", 60)
            assert outbox(made) == []
            made.must(*restore.split(), text=fleet.site_key_lines("clinic-1"))  # as the technician types it
            wait_for(lambda: len(outbox(made)) == 1, "what waited is read", 60)


def test_a_purge_waits_for_what_has_not_reached_the_centre(device: Board, tmp_path: Path) -> None:
    device.put(small_picture(tmp_path / "a.png", 1), "/srv/cxr/inbox/a.png")
    done = device.run("/opt/cxr-edge/current/install.sh", "--uninstall", "--purge")
    assert done.returncode == 2
    assert "1 results or X-rays have not reached the centre" in done.stdout
    device.must("test", "-x", PROGRAM)
    said = device.must("/opt/cxr-edge/current/install.sh", "--uninstall", "--purge", "--even-unsent")
    assert "its site key is on the paper alone" in said
    assert device.run("sh", "-c", "ls -d /opt/cxr-edge /etc/cxr-edge /var/lib/cxr-edge /srv/cxr").stdout.count("No such") == 4
    assert device.run("id", "cxr-edge").returncode != 0


def refused(made: Board, *options: str, package: str = "/root/package") -> str:
    """Run the installer where it has to refuse with one sentence, and see that it left nothing behind."""
    before = made.must("sh", "-c", _NAMES)
    done = made.run(f"{package}/install.sh", *options)
    assert done.returncode == 2, done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("install.sh: "), done.stdout
    assert last.endswith("."), last
    assert "Traceback" not in done.stdout
    after = made.must("sh", "-c", _NAMES)
    assert set(after.splitlines()) <= set(before.splitlines()), done.stdout
    assert made.run("id", "cxr-edge").returncode != 0
    return last.removeprefix("install.sh: ")


def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(root: Path, blank: Path, fleet: Fleet, tmp_path: Path) -> None:
    with board(root, tmp_path / "board", [blank]) as made:
        assert refused(made).startswith(
            "This board is not enrolled yet: give the file that the centre has made for it with --enrol"
        )
        assert refused(made, "--enrol", "/root/none.enrol").startswith(
            "The enrolment file /root/none.enrol cannot be used (No such"
        )
        assert refused(made, *ENROL[:4], "--profile", "toaster").startswith("There is no profile toaster: ")
        made.write("/root/wrong", fleet.code("clinic-1")[::-1] + "\n")
        refused(made, *ENROL[:2], "--code-file", "/root/wrong", *ENROL[4:])

        not_root = made.run("setpriv", "--reuid=65534", "--clear-groups", "/root/package/install.sh")
        assert not_root.returncode != 0

        unpack(made, collect(Target("aarch64", "311"), tmp_path), "/root/arm")
        assert refused(made, *ENROL, package="/root/arm") == (
            "This package is for aarch64, and this is an x86_64 machine: take the one for x86_64."
        )
        made.write("/root/meminfo", "MemTotal:         415000 kB\n")
        made.must("mount", "--bind", "/root/meminfo", "/proc/meminfo")
        assert refused(made, *ENROL[:4], "--profile", "amd64").startswith("This board has 405 MB of memory, and ")
        made.must("umount", "/proc/meminfo")

        made.must("sh", "-c", "cd /root/package && printf x >>requirements.txt")
        assert refused(made, *ENROL) == (
            "This package is damaged (requirements.txt is not what it was): copy it anew and unpack it again."
        )


def test_an_expired_and_a_damaged_enrolment_file_are_refused_by_the_software_and_change_nothing(
    root: Path, blank: Path, installed: Path, fleet: Fleet, tmp_path: Path
) -> None:
    code = read_code(fleet.code("clinic-1"))
    sealed = (fleet.out / "clinic-1.enrol").read_bytes()
    expired = msgspec.structs.replace(unlock(sealed, code), use_before=date(2020, 1, 31))
    (tmp_path / "expired.enrol").write_bytes(lock(expired, code))
    (tmp_path / "damaged.enrol").write_bytes(sealed[:20])
    with board(root, tmp_path / "board", [installed, blank]) as made:
        # The software is there, so that refusing takes a second: what was unpacked for it is removed as after a wrong code.
        made.must("sh", "-c", "rm -r /etc/cxr-edge /var/lib/cxr-edge && userdel cxr-edge && rm /opt/cxr-edge/current")
        for name in ("expired.enrol", "damaged.enrol"):
            made.put(tmp_path / name, f"/root/{name}")
        assert "could be used until 2020-01-31" in refused(made, "--enrol", "/root/expired.enrol", *ENROL[2:])
        assert "damaged" in refused(made, "--enrol", "/root/damaged.enrol", *ENROL[2:])


def test_a_full_and_a_read_only_card_are_refused_and_left_as_they_were(root: Path, blank: Path, tmp_path: Path) -> None:
    with board(root, tmp_path / "small", [blank]) as made:
        made.must("mount", "-t", "tmpfs", "-o", "size=100m", "small", "/opt")
        assert refused(made, *ENROL).startswith("/opt has 100 MB free, and ")
        # Room enough by what the package says, and full all the same, as when something else writes at that time.
        made.must(
            "sh",
            "-c",
            'cd /root/package && sed -i \'s/"unpacked_mb": .*/"unpacked_mb": 1/\' package.json && '
            "sed -i '/ package.json$/d' SHA256SUMS && sha256sum package.json >>SHA256SUMS",
        )
        said = refused(made, *ENROL)
        assert said.startswith("The card is full: "), said
    with board(root, tmp_path / "worn", [blank]) as made:
        made.must("mount", "-t", "tmpfs", "-o", "ro", "worn", "/opt")
        assert refused(made, *ENROL).startswith("The card is read-only: nothing can be written to /opt.")
