"""The recipe of the golden card, as far as it can be looked at without making one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import find_program

ROOT = Path(__file__).resolve().parents[2]
IMAGE, FIRST_BOOT = ROOT / "firmware_configs/image", ROOT / "firmware_configs/first-boot"
SCRIPTS = sorted(IMAGE.glob("stage-cxr/**/*.sh"))
CMDLINE = "console=tty1 root=ROOTDEV rootfstype=ext4 fsck.repair=yes rootwait quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(IMAGE)))
def test_shellcheck_finds_nothing_and_pi_gen_may_run_it(path):
    done = subprocess.run([find_program("shellcheck", "shellcheck"), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert os.access(path, os.X_OK)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """What the copying stage makes of an empty system with the two files that pi-gen has put there."""
    made = tmp_path_factory.mktemp("root")
    (made / "boot/firmware").mkdir(parents=True)
    (made / "etc").mkdir()
    (made / "boot/firmware/cmdline.txt").write_text(CMDLINE)
    (made / "boot/firmware/config.txt").write_text("arm_64bit=1\n")
    environment = os.environ | {"ROOTFS_DIR": str(made), "CXR_EDGE": str(ROOT)}
    script = IMAGE / "stage-cxr/00-system/00-run.sh"
    done = subprocess.run([str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


def test_every_file_of_the_first_boot_comes_to_where_its_first_lines_say(root):
    laid = {path.read_bytes(): "/" + str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    for path in FIRST_BOOT.iterdir():
        if path.name == "fstab":
            assert path.read_text() in (root / "etc/fstab").read_text()
            continue
        assert path.read_bytes() in laid, path.name
        if "Installed to" in path.read_text():
            place = laid[path.read_bytes()]
            assert f"Installed to {place}" in path.read_text() or f"Installed to {Path(place).parent}" in path.read_text(), (
                path.name
            )


def test_the_units_of_the_card_find_their_programs_there(root):
    for unit in (root / "etc/systemd/system").glob("*.service"):
        for started in re.findall(r"^ExecStart=(/usr/local/\S+)", unit.read_text(), re.MULTILINE):
            assert os.access(root / started[1:], os.X_OK), started


def test_what_the_second_part_enables_is_there(root):
    text = (IMAGE / "stage-cxr/00-system/01-run-chroot.sh").read_text()
    (line,) = re.findall(r"^systemctl enable (.*)$", text, re.MULTILINE)
    own = {name for name in line.split() if name.startswith("cxr-")}
    services = {f"cxr-{name}" for name in ("data-partition", "open-root", "first-boot", "address", "wifi", "firewall-additions")}
    assert own == services | {"cxr-maintenance.timer"}
    for name in own:
        unit = root / "etc/systemd/system" / (name if "." in name else f"{name}.service")
        assert "[Install]" in unit.read_text()
    text = (IMAGE / "stage-cxr/01-device/01-run-chroot.sh").read_text()
    (line,) = re.findall(r"^systemctl enable (.*)$", text, re.MULTILINE)
    assert {f"{name}.service" for name in line.split()} == {
        path.name for path in (ROOT / "firmware_configs/systemd").glob("*.service")
    }


def test_what_would_fail_on_a_read_only_root_or_speaks_unasked_does_not_start_with_it():
    text = (IMAGE / "stage-cxr/00-system/01-run-chroot.sh").read_text()
    disabled = {name for line in re.findall(r"^systemctl disable (.*) 2>", text, re.MULTILINE) for name in line.split()}
    assert {"unattended-upgrades", "fake-hwclock", "logrotate.timer", "man-db.timer", "dpkg-db-backup.timer"} <= disabled
    assert {"avahi-daemon.service", "avahi-daemon.socket", "bluetooth", "rpi-eeprom-update"} <= disabled


def test_the_root_is_read_only_keeps_its_size_and_its_kernel_can_limit_memory(root):
    lines = [line.split() for line in (root / "etc/fstab").read_text().splitlines() if line and not line.startswith("#")]
    options = {line[1]: line[3].split(",") for line in lines}
    assert options["/"][0] == "ro"
    assert {"ro", "noexec", "nosuid", "umask=0077", "nofail"} <= set(options["/boot/firmware"])
    for line in lines:
        if line[1].startswith(("/data", "/opt", "/etc", "/var/lib/cxr", "/srv", "/var/log", "/var/lib/Net")):
            assert (root / line[1][1:]).is_dir(), "a read-only root has to have the folder"
    words = (root / "boot/firmware/cmdline.txt").read_text().split()
    assert not [word for word in words if word.startswith("init=")]
    assert {"cgroup_enable=memory", "panic=10", "root=ROOTDEV"} <= set(words)
    assert "dtparam=watchdog=on" in (root / "boot/firmware/config.txt").read_text()


def test_no_secret_is_in_the_image():
    environment = {"PATH": os.environ["PATH"], "CXR_EDGE": str(ROOT)}
    passwords = set()
    for _ in range(2):
        shown = subprocess.run(
            ["bash", "-c", f". {shlex.quote(str(IMAGE / 'config'))}; echo $FIRST_USER_PASS"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        passwords.add(shown)
    assert len(passwords) == 2, "thrown away with the user who has it"
    removed = (IMAGE / "stage-cxr/00-system/01-run-chroot.sh").read_text()
    assert "userdel --remove --force building" in removed
    assert "FIRST_USER_NAME=building" in (IMAGE / "config").read_text()
    assert ": >/etc/machine-id" in removed
    assert "/etc/ssh/ssh_host_*_key*" in removed
    assert "/var/lib/NetworkManager/secret_key /var/lib/NetworkManager/NetworkManager.state" in removed
