"""What `make card` does with the card, step by step. A figure that is a plain no fails the whole."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware_configs.wheelhouse.collect import collect
from firmware_configs.wheelhouse.targets import Target
from tests.boards.report import Report
from tests.support.board_device import CONFIG, PROGRAM
from tests.support.card_device import PATIENCE_S, UNITS, CardDevice
from tests.support.clinic import small_picture
from tests.support.dicom import film
from tests.support.fleet import Fleet
from tests.support.processes import wait_for

Figures = dict[str, Any]
_DICOM = """
[dicom]
address = "0.0.0.0"
allow = ["XRAY1@10.0.2.2"]
"""
_RUNNING = ("cxr-watch", "cxr-infer", "cxr-relay", "cxr-page", "cxr-dicom")


@dataclass
class Bench:
    """What the steps share: the device that the first one makes, and how many films it was told to keep."""

    scratch: Path
    fleet: Fleet
    report: Report
    new_board: Callable[[str], CardDevice]
    devices: list[CardDevice] = field(default_factory=list)
    sent: int = 0

    @property
    def device(self) -> CardDevice:
        return self.devices[0]

    def board(self, name: str) -> CardDevice:
        """A new card in a new board, which is not under power yet."""
        self.devices.append(self.new_board(name))
        return self.devices[-1]

    def enrol_on_card(self, device: CardDevice) -> None:
        """Put the enrolment file and its code onto the boot partition of a card that is not in its slot."""
        name = device.name
        device.machine.write_boot(f"{name}.enrol", (self.fleet.out / f"{name}.enrol").read_bytes())
        device.machine.write_boot(f"{name}.code", f"{self.fleet.code(name)}\n".encode())

    def pictures(self, count: int) -> list[Path]:
        """Draw so many X-rays that were not sent yet, and count them as sent."""
        paths = []
        for _ in range(count):
            self.sent += 1
            paths.append(small_picture(self.scratch / f"film-{self.sent}.{'png' if self.sent % 2 else 'jpg'}", self.sent))
        return paths

    def close(self) -> None:
        for device in self.devices:
            device.machine.close()


def first_boot(bench: Bench) -> Figures:
    """An enrolment file and its code lie on the card; nobody touches the board until it serves."""
    bench.fleet.enroll("clinic-1", "--facility", "Clinic 1")
    device = bench.board("clinic-1")
    bench.enrol_on_card(device)
    machine, began = device.machine, time.monotonic()
    machine.start()
    closed = "test -e /etc/cloud/cloud-init.disabled && findmnt --noheadings --options ro /"
    wait_for(lambda: machine.answers(closed), f"the first boot is over; {machine.console} says more", PATIENCE_S)
    device.wait_until_serving()
    seconds = round(time.monotonic() - began)
    machine.must("systemctl is-system-running --wait || true", timeout_s=PATIENCE_S)
    status = machine.must("sudo cat /boot/firmware/cxr-edge-status.txt")
    left = machine.must("sudo ls /boot/firmware").split()
    return {
        "seconds_until_it_serves": seconds,
        "serves_after_its_own_seconds": _served_after(device),
        "system": machine.ssh("systemctl is-system-running").stdout.strip(),
        "nothing_failed": _failed(device) == [],
        "failed": _failed(device),
        "root_read_only": machine.answers("findmnt --noheadings --options ro / && ! sudo touch /etc/written"),
        "boot_partition_read_only": machine.answers("findmnt --noheadings --options ro /boot/firmware"),
        "data_is_bound": machine.answers(
            "for at in /opt/cxr-edge /var/lib/cxr-edge /var/log/journal; do findmnt $at || exit 1; done"
        ),
        "status_says_who": "This board is clinic-1 of Clinic 1." in status,
        "status_says_where": "10.0.2.15" in status,
        "name_servers_are_the_networks": machine.answers('test "$(readlink /etc/resolv.conf)" = /run/NetworkManager/resolv.conf'),
        "files_of_the_enrolment_are_gone": not [name for name in left if name.endswith((".enrol", ".code"))],
        "no_password_opens_it": not machine.must("sudo cut -d : -f 2 /etc/shadow | grep '^[$]' || true").strip(),
        "memory_is_limited": "memory" in machine.must("cat /sys/fs/cgroup/cgroup.controllers").split(),
        "swap_in_memory": "/dev/zram0" in machine.must("cat /proc/swaps"),
        "watchdog_is_fed": machine.answers(
            "systemctl show -p RuntimeWatchdogUSec | grep 14s && sudo ls -l /proc/1/fd | grep /dev/watchdog"
        ),
    }


def _failed(device: CardDevice) -> list[str]:
    return [line.split()[0] for line in device.machine.must("systemctl --failed --plain --no-legend").splitlines()]


def _served_after(device: CardDevice) -> int:
    """Seconds of its own clock from the start of its kernel until the last of its units was ready."""
    asked = f"systemctl show --value -p ActiveEnterTimestampMonotonic {' '.join(UNITS)}"
    return max(int(line) for line in device.machine.must(asked).split()) // 1_000_000


def films(bench: Bench) -> Figures:
    """An X-ray machine is allowed in device.toml; it sends, and files are put into the watched folder."""
    device, machine = bench.device, bench.device.machine
    machine.must(f"sudo tee -a {CONFIG} >/dev/null && sudo systemctl start cxr-dicom", _DICOM, timeout_s=300)
    pictures = bench.pictures(3)
    for path in pictures:
        device.drop(path)
    sent = [film(bench.scratch / f"{number}.dcm", f"1.2.826.0.7.{number}", side=256, seed=number, drawn=True) for number in (1, 2)]
    answered = device.send(*sent)
    bench.sent += len(sent)
    device.wait_until_delivered(bench.sent)
    here, there = (_readings(said) for said in (_classify_here(pictures), _classify_there(device, pictures)))
    return {
        "sent": bench.sent,
        "the_x_ray_machine_was_told_success": answered,
        "delivered_once_each": device.once_each(bench.sent),
        "readings": len(here),
        "readings_as_on_this_machine": here == there,
    }


def _classify_here(pictures: list[Path]) -> str:
    command = [sys.executable, "-m", "edge.cli", "classify", "--json", *map(str, pictures)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _classify_there(device: CardDevice, pictures: list[Path]) -> str:
    for path in pictures:
        device.machine.must(f"cat >/tmp/{path.name}", path.read_bytes())
    return device.machine.must(f"{PROGRAM} classify --json {' '.join(f'/tmp/{path.name}' for path in pictures)}", timeout_s=600)


def _readings(said: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [{key: value for key, value in line.items() if key != "file"} for line in lines]


def firewall(bench: Bench) -> Figures:
    """What answers from outside, and what does not although something listens there."""
    machine = bench.device.machine
    machine.must("sudo systemd-run --unit=listener python3 -m http.server 9000", timeout_s=120)
    wait_for(
        lambda: machine.answers("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 9000))'"), "it listens", 120
    )
    found = {
        "page": bench.device.page_answers(),
        "ssh": machine.answers(),
        "dicom": bench.device.send(film(bench.scratch / "firewall.dcm", "1.2.826.0.7.900", side=256, seed=9, drawn=True)),
        "nothing_else": not _is_greeted(machine.ports[9000]),
    }
    machine.must("sudo systemctl stop listener")
    bench.sent += 1
    return found


def _is_greeted(port: int) -> bool:
    """Whether an HTTP server there says anything; qemu takes the connection in any case."""
    import http.client

    link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        link.request("GET", "/")
        link.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()
    return True


def hung_and_killed(bench: Bench) -> Figures:
    """infer stands still: systemd's own watchdog ends it. Each process is killed once."""
    device, machine = bench.device, bench.device.machine
    before = _main_pids(device)
    for path in bench.pictures(2):
        device.drop(path)
    machine.must("sudo systemctl kill --signal=STOP --kill-whom=all cxr-infer")
    began = time.monotonic()
    wait_for(lambda: _main_pids(device).get("cxr-infer") not in {before["cxr-infer"], 0}, "infer runs anew", 900)
    waited = round(time.monotonic() - began)
    said = machine.must("sudo journalctl -b -u cxr-infer --no-pager")
    others = [name for name in _RUNNING if name != "cxr-infer"]
    machine.must(f"sudo systemctl kill --signal=KILL {' '.join(others)}")
    began = time.monotonic()
    wait_for(lambda: device.serves(_RUNNING), "all serve again", PATIENCE_S)
    back = round(time.monotonic() - began)
    device.wait_until_delivered(bench.sent)
    now = _main_pids(device)
    return {
        "ended_by_the_watchdog": "Watchdog timeout" in said,
        "seconds_until_infer_ran_anew": waited,
        "seconds_until_the_killed_served": back,
        "each_is_another_process": all(now[name] not in {before[name], 0} for name in _RUNNING),
        "delivered_once_each": device.once_each(bench.sent),
    }


def _main_pids(device: CardDevice) -> dict[str, int]:
    said = device.machine.must(f"systemctl show --value -p MainPID {' '.join(_RUNNING)}", timeout_s=120)
    return dict(zip(_RUNNING, map(int, said.split()), strict=True))


def power_cuts_at_work(bench: Bench) -> Figures:
    """The power fails while films are being read and delivered."""
    device, machine = bench.device, bench.device.machine
    cuts = 2
    for _ in range(cuts):
        for path in bench.pictures(3):
            device.drop(path)
        machine.cut()
        machine.start()
        device.wait_until_serving()
    device.wait_until_delivered(bench.sent)
    return {"cuts": cuts, "films": bench.sent, "delivered_once_each": device.once_each(bench.sent), "failed": _failed(device)}


# Each moment of an upgrade as a question to the board.
_MOMENTS = {
    "while it unpacks": "ls -d /opt/cxr-edge/versions/*/ | wc -l | grep -q 2 && ! test -e /opt/cxr-edge/trial",
    "on trial": "test -e /opt/cxr-edge/trial && readlink /opt/cxr-edge/current | grep -q {version}",
}


def upgrade(bench: Bench) -> Figures:
    """To a second version by the documented commands; the power fails in between, and then it is done again."""
    device, machine, version = bench.device, bench.device.machine, "0.2.0"
    package = collect(Target("x86_64", "311"), bench.scratch / "second", version)
    machine.must("sudo rm -rf /data/upgrade && sudo mkdir /data/upgrade")
    machine.must("sudo tar x -C /data/upgrade --strip-components=1 --no-same-owner && sync", package.read_bytes(), timeout_s=900)
    cuts = 0
    found: Figures = {}
    for moment, question in _MOMENTS.items():
        for path in bench.pictures(1):
            device.drop(path)
        machine.must("sudo mount -o remount,rw /")
        machine.must("sudo systemd-run --unit=upgrade sh /data/upgrade/install.sh", timeout_s=120)
        wait_for(lambda asked=question: machine.answers(asked.format(version=version)), moment, PATIENCE_S)  # type: ignore[misc]
        machine.cut()
        cuts += 1
        machine.start()
        device.wait_until_serving()
        wait_for(lambda: not machine.answers("test -e /opt/cxr-edge/trial"), "the trial is over", PATIENCE_S)
        found[f"cut_{moment.replace(' ', '_')}_serves"] = _version(device)
        if version in _version(device):
            break
    machine.must("sudo mount -o remount,rw /")
    said = machine.must("sudo sh /data/upgrade/install.sh", timeout_s=PATIENCE_S)
    device.wait_until_serving()
    device.wait_until_delivered(bench.sent)
    return {
        **found,
        "cuts": cuts,
        "the_new_version_serves": version in _version(device),
        "the_installer_says_who_it_is": "This board is clinic-1 of Clinic 1." in said,
        "delivered_once_each": device.once_each(bench.sent),
    }


def _version(device: CardDevice) -> str:
    return device.machine.must("readlink /opt/cxr-edge/current").strip().removeprefix("versions/")


def hung_kernel(bench: Bench) -> Figures:
    """The kernel dies and does not start again by itself: the hardware watchdog resets the board."""
    device, machine = bench.device, bench.device.machine
    boot = machine.must("cat /proc/sys/kernel/random/boot_id")
    machine.must("echo 0 | sudo tee /proc/sys/kernel/panic /proc/sys/kernel/panic_on_oops")
    machine.watchdog(armed=True)
    resets = machine.resets
    machine.ssh("(sleep 1; echo c | sudo tee /proc/sysrq-trigger) >/dev/null 2>&1 &")
    began = time.monotonic()
    wait_for(lambda: machine.resets > resets, "the board was reset", 300)
    reset_after = round(time.monotonic() - began)
    device.wait_until_serving()
    return {
        "reset_by_the_watchdog": True,
        "seconds_until_the_reset": reset_after,
        "is_another_boot": machine.must("cat /proc/sys/kernel/random/boot_id") != boot,
        "seconds_until_it_serves_again": round(time.monotonic() - began),
    }


def cable_and_stick(bench: Bench) -> Figures:
    """The cable is pulled; what was dropped before is exported to a stick, and delivered when the cable is back."""
    device, machine = bench.device, bench.device.machine
    image = bench.scratch / "stick.img"
    subprocess.run(["mkfs.vfat", "-C", "-n", "CXR", str(image), "65536"], check=True, stdout=subprocess.DEVNULL)
    machine.stick(image)
    wait_for(lambda: machine.answers("findmnt --types vfat /media/cxr"), "the stick is mounted", 300)
    there = device.at_centre()
    before = len(there)
    for path in bench.pictures(1):
        device.drop(path)
    command = f"sudo -u cxr-edge cxr-edge export /media/cxr --config {CONFIG}"
    machine.must(f"nohup sh -c 'sleep 90; {command}' >/tmp/exported 2>&1 &")
    machine.cable(plugged=False)
    time.sleep(240)
    machine.cable(plugged=True)
    device.wait_until_delivered(before + 1)
    names = machine.must("sudo ls /media/cxr").split()
    machine.pull_stick()
    wait_for(lambda: not machine.answers("findmnt /media/cxr"), "the mount is gone with the stick", 300)
    return {
        "exported": [name for name in names if name.endswith(".sealed")],
        "the_file_is_on_the_stick": any(name.endswith(".sealed") for name in names),
        "delivered_once_each": device.once_each(bench.sent),
    }


def units(bench: Bench) -> Figures:
    """What systemd itself says of the running units, and that none of them has ended in a quiet minute."""
    machine = bench.device.machine
    asked = f"systemctl show --value -p NRestarts {' '.join(_RUNNING)}"
    before = machine.must(asked).split()
    time.sleep(60)
    said = machine.must(
        f"for unit in {' '.join(_RUNNING)}; do systemd-analyze security --no-pager $unit.service | tail -n 1; done", timeout_s=600
    )
    exposure = {name: float(line.split(":")[1].split()[0]) for name, line in zip(_RUNNING, said.splitlines(), strict=True)}
    return {
        "exposure": exposure,
        "exposure_as_asked": all(value <= (0.5 if name in {"cxr-infer", "cxr-watch"} else 1.5) for name, value in exposure.items()),
        "restarts_in_a_quiet_minute": sum(map(int, machine.must(asked).split())) - sum(map(int, before)),
    }


def later_enrolment(bench: Bench) -> Figures:
    """Another card: the power fails in its first boot, it waits, is given a bad file, then its own."""
    bench.fleet.enroll("clinic-2", "--facility", "Clinic 2")
    device = bench.board("clinic-2")
    machine = device.machine
    moments = (60, 120)
    for seconds in moments:
        machine.start()
        time.sleep(seconds)
        machine.cut()
    machine.write_boot("clinic-2.enrol", b"no enrolment file\n")
    machine.write_boot("clinic-2.code", f"{bench.fleet.code('clinic-2')}\n".encode())
    machine.start()
    closed = "test -e /etc/cloud/cloud-init.disabled && findmnt --noheadings --options ro /"
    wait_for(lambda: machine.answers(closed), "the first boot is over", PATIENCE_S)
    machine.must("systemctl is-system-running --wait || true", timeout_s=PATIENCE_S)
    machine.cut()
    refused = machine.read_boot("cxr-edge-status.txt")
    kept = "clinic-2.enrol" in machine.boot_files()
    bench.enrol_on_card(device)
    machine.start()
    device.wait_until_serving()
    machine.must("systemctl is-system-running --wait || true", timeout_s=PATIENCE_S)
    machine.must("sync")
    machine.cut()
    return {
        "cuts_in_the_first_boot": len(moments),
        "a_bad_file_leaves_a_sentence": "clinic-2.enrol was not taken" in refused and kept,
        "later_it_becomes_itself": "This board is clinic-2 of Clinic 2." in machine.read_boot("cxr-edge-status.txt"),
    }


STEPS: tuple[Callable[[Bench], Figures], ...] = (
    first_boot,
    films,
    hung_and_killed,
    upgrade,
    power_cuts_at_work,
    firewall,
    units,
    cable_and_stick,
    hung_kernel,
    later_enrolment,
)
