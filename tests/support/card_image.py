"""The golden card as a file: made from nothing by the stage of `firmware_configs/image` itself, for a PC's processor.

pi-gen and Debian for Raspberry Pi cannot be had here. What stands for them: Debian of this machine's architecture with the
packages of Raspberry Pi OS Lite that matter to the card, the few files and the user that pi-gen leaves for the stage, and what its
export does afterwards. Everything between is the stage's own scripts, run as pi-gen runs them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.board_root import Board, board, debian_root
from tests.support.centre import ROOT
from tests.support.processes import find_program

STAGE = ROOT / "firmware_configs/image/stage-cxr"
_CARDS = ROOT / "build" / "cards"
# Of Raspberry Pi OS Lite: what starts the system, brings it into the network, and what writes to a root by itself.
_SYSTEM = """
systemd systemd-sysv libpam-systemd udev dbus kmod linux-image-amd64 initramfs-tools sudo polkitd network-manager avahi-daemon
fake-hwclock dosfstools logrotate man-db cron ca-certificates iproute2 netbase procps psmisc rfkill parted locales tzdata
less apt-utils
"""
# debootstrap does not find a package of which another one needs only what it provides.
_PROVIDERS = "python3-cffi-backend"
# As pi-gen writes them; the firmware of a Raspberry Pi gives the first to the kernel.
_CMDLINE = "console=tty1 root=ROOTDEV rootfstype=ext4 fsck.repair=yes rootwait quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n"
_CONFIG = "arm_64bit=1\n"
_DISK_ID = "c0ffee01"
_MIB = 2**20
_BOOT_AT, _BOOT_MB = 4, 256
# What its export leaves: a name server of its own, in place of what was there.
_EXPORTED = r"""
rm --force /etc/resolv.conf
echo "nameserver 192.0.2.53" >/etc/resolv.conf
sed --in-place "s/BOOTDEV/PARTUUID=$0-01/; s/ROOTDEV/PARTUUID=$0-02/" /etc/fstab
sed --in-place "s/ROOTDEV/PARTUUID=$0-02/" /boot/firmware/cmdline.txt
update-initramfs -u
find /var/log -type f -exec cp /dev/null {} \;
rm --force /var/lib/dbus/machine-id
: >/etc/machine-id
ln --no-dereference --symbolic --force /proc/mounts /etc/mtab
"""


@dataclass(frozen=True)
class Card:
    """A card that nobody has started yet, and what a board's firmware takes from it. Nothing may write to these files."""

    image: Path
    kernel: Path
    initrd: Path
    cmdline: str
    boot_at: int
    """Where the boot partition begins, in bytes."""


def golden_card(package: Path, size_gib: int = 16) -> Card:
    """Return the card with the software of an offline package, made if this tree has none like it yet.

    Raises:
        ServerMissing: if a program to make it is not there, or this is not root.
        AssertionError: if a script of the stage fails, with its words.
    """
    root = debian_root("amd64", tuple(sorted({*_SYSTEM.split(), _PROVIDERS, *_stage_packages()})))
    place = _CARDS / _digest([root.name.encode(), package.read_bytes(), str(size_gib).encode(), *_sources()])
    if not (place / "described.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        with board(root, place / "making") as made:
            _stage(made, package)
            _write_image(made, place, size_gib)
        shutil.rmtree(place / "making")
    described = json.loads((place / "described.json").read_text())
    return Card(place / "card.img", place / "kernel", place / "initrd", described["cmdline"], _BOOT_AT * _MIB)


def _stage_packages() -> list[str]:
    return [name for path in sorted(STAGE.glob("*/*-packages-nr")) for name in path.read_text().split()]


def _sources() -> Iterator[bytes]:
    folders = (STAGE, ROOT / "firmware_configs/first-boot")
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        yield path.name.encode() + path.read_bytes()
    yield Path(__file__).read_bytes()


def _digest(contents: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()[:12]


def _stage(made: Board, package: Path) -> None:
    """Run the stage on a copy of a Debian system, in pi-gen's order."""
    made.write("/boot/firmware/cmdline.txt", _CMDLINE)
    made.write("/boot/firmware/config.txt", _CONFIG)
    made.write("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 cxr-edge\n")
    made.must("useradd", "--create-home", "building")
    for folder in sorted(path for path in STAGE.iterdir() if path.is_dir()):
        for script in sorted(folder.glob("*-run*.sh")):
            if script.name.endswith("-run-chroot.sh"):
                made.must("bash", "-e", text=script.read_text(), timeout_s=900)
            else:
                _beside(made, "bash", "-e", str(script), CXR_EDGE=str(ROOT), CXR_PACKAGE=str(package))
    made.must("sh", "-ec", _EXPORTED, _DISK_ID, timeout_s=600)


def _beside(made: Board, *command: str, **environment: str) -> None:
    """Run a program of this machine that sees the copy's tree."""
    words = [f"{name}={value}" for name, value in {"ROOTFS_DIR": str(made.tree), **environment}.items()]
    enter = ["nsenter", f"--mount=/proc/{made.number}/ns/mnt", "--", "env", *words]
    done = subprocess.run([*enter, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}"


# Arguments: the tree, a folder for the results. What is mounted in the tree (/proc, /dev, /run) is not of the card.
_PARTITIONS = r"""
mkdir "$2/system"
mount --bind "$1" "$2/system"
cp "$2"/system/boot/vmlinuz-* "$2/kernel"
cp "$2"/system/boot/initrd.img-* "$2/initrd"
truncate --size="$3M" "$2/boot.part"
mkfs.vfat -F 32 -n bootfs "$2/boot.part"
mcopy -s -i "$2/boot.part" "$2"/system/boot/firmware/* ::/
mkdir "$2/empty"
mount --bind "$2/empty" "$2/system/boot/firmware"
truncate --size="$(($(du --summarize --one-file-system --block-size=1M "$2/system" | cut -f 1) * 5 / 4 + 400))M" "$2/root.part"
mkfs.ext4 -q -L rootfs -d "$2/system" "$2/root.part"
"""


def _write_image(made: Board, place: Path, size_gib: int) -> None:
    for program, name in (("mkfs.vfat", "dosfstools"), ("mcopy", "mtools"), ("mkfs.ext4", "e2fsprogs"), ("sfdisk", "fdisk")):
        find_program(program, name)
    cmdline = made.read("/boot/firmware/cmdline.txt").strip()
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    _beside(made, "unshare", "--mount", "sh", "-ec", _PARTITIONS, "sh", str(made.tree), str(place), str(_BOOT_MB), PATH=path)
    image, boot, root = (place / name for name in ("card.img", "boot.part", "root.part"))
    root_at, root_mb = _BOOT_AT + _BOOT_MB, -(-root.stat().st_size // _MIB)
    with image.open("wb") as card:
        card.truncate(size_gib * 2**30)
    table = f"label: dos\nlabel-id: 0x{_DISK_ID}\n"
    table += f"start={_BOOT_AT}MiB, size={_BOOT_MB}MiB, type=c\nstart={root_at}MiB, size={root_mb}MiB, type=83\n"
    subprocess.run([find_program("sfdisk", "fdisk"), "--quiet", str(image)], input=table, text=True, check=True)
    for part, at in ((boot, _BOOT_AT), (root, root_at)):
        copy = ["dd", f"if={part}", f"of={image}", f"seek={at}", "bs=1M", "conv=notrunc,sparse", "status=none"]
        subprocess.run(copy, check=True)
        part.unlink()
    for name in ("system", "empty"):
        (place / name).rmdir()
    (place / "described.json").write_text(json.dumps({"cmdline": cmdline}))
