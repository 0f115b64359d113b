"""The data partition of a golden card, made on a loop device: once, whole after every power cut, and never over something else."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import find_program

SCRIPT = Path(__file__).resolve().parents[2] / "firmware_configs/first-boot/cxr-data-partition"
OWNER = 64321
FOLDERS = {"etc", "inbox", "journal", "lost+found", "network", "opt", "state", "systemd"}
GIB = 2**30

pytestmark = pytest.mark.skipif(os.getuid() != 0 and "CI" not in os.environ, reason="only root can make loop devices and mount")


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    words = [find_program(str(command[0]), "util-linux"), *map(str, command[1:])]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


@dataclass
class Card:
    """A disk with a boot and a root partition, and free space behind them. Mounts end with the command that needs them."""

    device: str
    home: Path

    @property
    def remembered(self) -> Path:
        """What on the root says that the data partition is made."""
        return self.home / "etc/cxr-data.made"

    def stand_in(self, program: str, does: str) -> None:
        path = self.home / "programs" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    def start(self) -> subprocess.CompletedProcess[str]:
        """Run the script as at a boot."""
        shadow = self.home / "programs"
        shadow.mkdir(exist_ok=True)
        environment = os.environ | {
            "CXR_OWNER": f"{OWNER}:{OWNER}",
            "CXR_MADE": str(self.remembered),
            "PATH": f"{shadow}:{os.environ['PATH']}:/usr/sbin:/sbin",
        }
        words = f'mount -t tmpfs tmpfs /run; exec "{SCRIPT}" {self.device} {self.home / "software"}'
        return run("unshare", "--mount", "sh", "-c", words, env=environment)

    def stop_at(self, program: str) -> None:
        """Let the power fail when the script comes to a program."""
        self.stand_in(program, "kill -KILL $PPID")

    def go_on(self) -> None:
        for path in (self.home / "programs").iterdir():
            path.unlink()

    def look(self, words: str) -> str:
        """Return what a shell prints in the mounted data partition."""
        place = self.home / "place"
        place.mkdir(exist_ok=True)
        # Not read-only: the kernel may still be letting go of an earlier mount, and one device is mounted in one way.
        done = run("unshare", "--mount", "sh", "-c", f"mount {self.device}p3 {place} && cd {place} && {words}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lose_first_block(self) -> None:
        """Let the data partition say nothing of itself any more."""
        assert run("dd", "if=/dev/zero", f"of={self.device}p3", "bs=64K", "count=1", "conv=fsync").returncode == 0

    def write(self, words: str) -> None:
        place = self.home / "place"
        place.mkdir(exist_ok=True)
        assert run("unshare", "--mount", "sh", "-c", f"mount {self.device}p3 {place} && cd {place} && {words}").returncode == 0


@contextlib.contextmanager
def card(home: Path, size: int) -> Iterator[Card]:
    image = home / "card.img"
    with image.open("wb") as file:
        file.truncate(size)
    # As pi-gen does it: 4 MiB before the first partition, of which a new one would fill 3.
    assert run("sfdisk", "--quiet", image, input="label: dos\nstart=8192,size=16M,type=c\nsize=64M,type=L\n").returncode == 0
    attached = run("losetup", "--show", "--find", image)
    assert attached.returncode == 0, attached.stderr
    device = attached.stdout.strip()
    (home / "software/versions").mkdir(parents=True)
    (home / "software/current").write_text("1.0")
    (home / "etc").mkdir()
    try:
        run("partx", "--add", device)
        yield Card(device, home)
    finally:
        run("partx", "--delete", device)
        assert run("losetup", "--detach", device).returncode == 0


def whole(made: Card) -> bool:
    names = set(made.look("ls -A").split())
    owners = made.look("stat -c '%n %u %g %a' state etc inbox opt").splitlines()
    assert names == FOLDERS | {".ready"}
    assert owners == [f"state {OWNER} {OWNER} 700", f"etc 0 {OWNER} 750", f"inbox {OWNER} {OWNER} 2770", "opt 0 0 755"]
    return made.look("cat opt/current") == "1.0"


def test_the_rest_of_the_card_becomes_the_data_partition_once(tmp_path: Path) -> None:
    with card(tmp_path, 4 * GIB) as made:
        done = made.start()
        assert done.returncode == 0, done.stderr
        assert whole(made)
        assert int(run("blockdev", "--getsize64", f"{made.device}p3").stdout) > 3.8 * GIB
        made.write("echo 2.0 > opt/current && echo film > state/film && chmod 00750 inbox")
        for _ in range(2):
            assert made.start().returncode == 0
        assert made.look("cat opt/current state/film && stat -c %a inbox") == "2.0\nfilm\n750\n", "a later boot changes nothing"
        assert made.remembered.exists()


@pytest.mark.parametrize("program", ["sfdisk", "partx", "mkfs.ext4", "e2label", "mount", "cp", "mkdir", "chown", "touch"])
def test_a_power_cut_at_any_step_is_mended_by_the_next_boot(tmp_path: Path, program: str) -> None:
    with card(tmp_path, 3 * GIB) as made:
        made.stop_at(program)
        assert made.start().returncode != 0
        made.go_on()
        run("partx", "--update", made.device)  # as the kernel does at a boot
        done = made.start()
        assert done.returncode == 0, done.stderr
        assert whole(made)


@pytest.mark.parametrize("cut", [False, True])
def test_in_whatever_order_partitions_are_listed_the_last_one_is_made(tmp_path: Path, cut: bool) -> None:
    """On a card the order changed when the third had come, and the boot partition was formatted in its place."""
    with card(tmp_path, 3 * GIB) as made:
        if cut:
            made.stop_at("mkfs.ext4")
            assert made.start().returncode != 0
            made.go_on()
            run("partx", "--update", made.device)
        made.stand_in("lsblk", f'{find_program("lsblk", "util-linux")} "$@" | sort --reverse')
        done = made.start()
        assert done.returncode == 0, done.stderr
        assert whole(made)
        for number in (1, 2):
            assert run("blkid", "--probe", "--match-tag", "TYPE", f"{made.device}p{number}").stdout.strip() == "", "it is as it was"


def test_what_was_copied_before_a_power_cut_may_be_empty_and_is_copied_anew(tmp_path: Path) -> None:
    with card(tmp_path, 3 * GIB) as made:
        made.stop_at("chown")
        assert made.start().returncode != 0
        made.go_on()
        made.write(": > opt/current && touch opt/half")  # what a file system that names files before their content does
        assert made.start().returncode == 0
        assert whole(made)
        assert "half" not in made.look("ls opt")


@pytest.mark.parametrize("program", ["", "partx", "mkfs.ext4", "e2label", "mount", "touch"])
def test_what_an_earlier_use_of_the_card_has_left_is_gone_even_if_the_power_fails(tmp_path: Path, program: str) -> None:
    with card(tmp_path, 3 * GIB) as made:
        assert made.start().returncode == 0
        made.write("echo name > state/patient")
        deleted = run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--delete", made.device, 3)  # written anew
        assert deleted.returncode == 0
        run("partx", "--delete", "--nr", "3", made.device)
        made.remembered.unlink()
        if program:
            made.stop_at(program)
            assert made.start().returncode != 0
            made.go_on()
            run("partx", "--update", made.device)
        done = made.start()
        assert done.returncode == 0, done.stderr
        assert whole(made)
        assert made.look("ls state") == ""


def test_what_cannot_be_read_any_more_is_never_made_anew_and_can_be_saved(tmp_path: Path) -> None:
    """It may hold what ninety days without a link have left."""
    with card(tmp_path, 3 * GIB) as made:
        assert made.start().returncode == 0
        made.write("echo result > state/outbox.db && sync")
        made.lose_first_block()
        for _ in range(2):
            done = made.start()
            assert done.returncode == 1
            assert done.stderr.startswith("The data partition of this card cannot be read any more, and is left as it is")
        mended = run("e2fsck", "-f", "-y", "-b", "32768", "-B", "4096", f"{made.device}p3")
        assert mended.returncode in (0, 1), mended.stdout  # 1: errors were corrected
        assert made.start().returncode == 0
        assert made.look("cat state/outbox.db") == "result\n"


def test_one_that_was_encrypted_is_left_to_those_who_open_it(tmp_path: Path) -> None:
    with card(tmp_path, 3 * GIB) as made:
        assert made.start().returncode == 0
        made.lose_first_block()
        Path(f"{made.device}p3").write_bytes(b"LUKS\xba\xbe\x00\x01")
        done = made.start()
        assert (done.returncode, done.stderr) == (0, "")


def test_a_root_that_is_closed_already_is_opened_to_remember_and_closed_again(tmp_path: Path) -> None:
    with card(tmp_path, 3 * GIB) as made:
        assert made.start().returncode == 0
        made.remembered.unlink()
        made.remembered.parent.rmdir()
        told = tmp_path / "told"
        mount = find_program("mount", "mount")
        opened = f'case "$*" in *remount*) echo "$*" >>{told}; mkdir -p {made.remembered.parent} ;; *) exec {mount} "$@" ;; esac'
        made.stand_in("mount", opened)
        for _ in range(2):
            done = made.start()
            assert done.returncode == 0, done.stderr
        assert made.remembered.exists()
        assert told.read_text() == "-o remount,rw /\n-o remount,ro /\n", "once"


def test_a_card_that_is_too_small_or_holds_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    with card(tmp_path / "small", GIB) as made:
        done = made.start()
        assert done.returncode == 1
        assert done.stderr.startswith("The card has no room for the data partition")
        assert "p3" not in run("lsblk", "--raw", made.device).stdout, "nothing was changed"
    (tmp_path / "other").mkdir()
    with card(tmp_path / "other", 3 * GIB) as made:
        run("sfdisk", "--quiet", "--append", "--no-reread", "--no-tell-kernel", made.device, input=",,L\n")
        run("partx", "--update", made.device)
        assert run("mkfs.ext4", "-q", "-L", "somebody", f"{made.device}p3").returncode == 0
        done = made.start()
        assert done.returncode == 1
        assert "holds something else" in done.stderr
        assert run("blkid", "--probe", "--output", "value", "--match-tag", "LABEL", f"{made.device}p3").stdout == "somebody\n"
