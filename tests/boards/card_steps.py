"""What `make card` does with the card, step by step, as long as nothing fails; and the order of all steps."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.boards.card_bench import FIRST_BOOT_OVER, RUNNING, Bench, Figures, failed, served_after
from tests.boards.card_faults import (
    damaged_boot_partition,
    hung_and_killed,
    hung_kernel,
    later_enrolment,
    power_cuts_at_work,
    start_without_cable,
    upgrade,
)
from tests.support.board_device import CONFIG, PROGRAM
from tests.support.card_device import PATIENCE_S, CardDevice
from tests.support.dicom import film
from tests.support.processes import wait_for

# As an editor of Windows leaves it.
_WIFI = """[connection]
id=clinic
type=wifi

[wifi]
ssid=clinic

[wifi-security]
key-mgmt=wpa-psk
psk=not-a-secret
""".replace("\n", "\r\n")


def first_boot(bench: Bench) -> Figures:
    """An enrolment file, its code and a Wi-Fi lie on the card; nobody touches the board until it serves."""
    bench.fleet.enroll("clinic-1", "--facility", "Clinic 1")
    device = bench.board("clinic-1")
    bench.enrol_on_card(device)
    device.machine.write_boot("wifi.nmconnection", _WIFI.encode())
    machine, began = device.machine, time.monotonic()
    machine.start()
    wait_for(lambda: machine.answers(FIRST_BOOT_OVER), f"the first boot is over; {machine.console} says more", PATIENCE_S)
    device.wait_until_serving()
    seconds = round(time.monotonic() - began)
    machine.must("systemctl is-system-running --wait || true", timeout_s=PATIENCE_S)
    status = machine.must("sudo cat /boot/firmware/cxr-edge-status.txt")
    left = machine.must("sudo ls /boot/firmware").split()
    return {
        "seconds_until_it_serves": seconds,
        "serves_after_its_own_seconds": served_after(device),
        "system": machine.ssh("systemctl is-system-running").stdout.strip(),
        "nothing_failed": failed(device) == [],
        "failed": failed(device),
        "root_read_only": machine.answers("findmnt --noheadings --options ro / && ! sudo touch /etc/written"),
        "boot_partition_read_only": machine.answers("findmnt --noheadings --options ro /boot/firmware"),
        "data_is_remembered": machine.answers("test -e /etc/cxr-data.made"),
        "data_is_bound": machine.answers(
            "for at in /opt/cxr-edge /var/lib/cxr-edge /var/log/journal; do findmnt $at || exit 1; done"
        ),
        "status_says_who": "This board is clinic-1 of Clinic 1." in status,
        "status_says_where": "10.0.2.15" in status,
        "name_servers_are_the_networks": machine.answers('test "$(readlink /etc/resolv.conf)" = /run/NetworkManager/resolv.conf'),
        "files_of_the_enrolment_are_gone": not [name for name in left if name.endswith((".enrol", ".code"))],
        "wifi_is_no_longer_on_the_boot_partition": "wifi.nmconnection" not in left
        and "Wi-Fi: wifi.nmconnection was taken" in status,
        "wifi_is_known": machine.answers("sudo nmcli --get-values NAME connection show | grep -qx clinic"),
        "no_password_opens_it": not machine.must("sudo cut -d : -f 2 /etc/shadow | grep '^[$]' || true").strip(),
        "memory_is_limited": "memory" in machine.must("cat /sys/fs/cgroup/cgroup.controllers").split(),
        "swap_in_memory": "/dev/zram0" in machine.must("cat /proc/swaps"),
        "speaks_to_nobody_unasked": not machine.answers("systemctl is-active avahi-daemon.service avahi-daemon.socket"),
        "watchdog_is_fed": machine.answers(
            "systemctl show -p RuntimeWatchdogUSec | grep 14s && sudo ls -l /proc/1/fd | grep /dev/watchdog"
        ),
    }


def films(bench: Bench) -> Figures:
    """An X-ray machine is allowed in device.toml; it sends, and files are put into the watched folder."""
    device = bench.device
    device.allow_dicom()
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
    bench.device.allow_dicom()
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


def cable_and_stick(bench: Bench) -> Figures:
    """The cable is pulled; what is read meanwhile is exported to a stick, and delivered when the cable is back."""
    device, machine = bench.device, bench.device.machine
    image = bench.scratch / "stick.img"
    subprocess.run(["mkfs.vfat", "-C", "-n", "CXR", str(image), "65536"], check=True, stdout=subprocess.DEVNULL)
    machine.stick(image)
    wait_for(lambda: machine.answers("findmnt --types vfat /media/cxr"), "the stick is mounted", 300)
    there = device.at_centre()
    before = len(there)
    (picture,) = bench.pictures(1)
    device.while_away(picture, 60, f"sudo -u cxr-edge cxr-edge export /media/cxr --config {CONFIG}")
    machine.cable(plugged=False)
    time.sleep(240)
    before_the_cable = len(device.at_centre())
    machine.cable(plugged=True)
    device.wait_until_delivered(before + 1)
    names = machine.must("sudo ls /media/cxr").split()
    machine.pull_stick()
    wait_for(lambda: not machine.answers("findmnt /media/cxr"), "the mount is gone with the stick", 300)
    return {
        "said": device.said_while_away().strip(),
        "nothing_got_through_without_a_cable": before_the_cable == before,
        "exported": [name for name in names if name.endswith(".sealed")],
        "the_file_is_on_the_stick": any(name.endswith(".sealed") for name in names),
        "delivered_once_each": device.once_each(bench.sent),
    }


def units(bench: Bench) -> Figures:
    """What systemd itself says of the running units, and that none of them has ended in a quiet minute."""
    machine = bench.device.machine
    bench.device.allow_dicom()
    asked = f"systemctl show --value -p NRestarts {' '.join(RUNNING)}"
    before = machine.must(asked).split()
    time.sleep(60)
    said = machine.must(
        f"for unit in {' '.join(RUNNING)}; do systemd-analyze security --no-pager $unit.service | tail -n 1; done", timeout_s=600
    )
    exposure = {name: float(line.split(":")[1].split()[0]) for name, line in zip(RUNNING, said.splitlines(), strict=True)}
    return {
        "exposure": exposure,
        "exposure_as_asked": all(value <= (0.5 if name in {"cxr-infer", "cxr-watch"} else 1.5) for name, value in exposure.items()),
        "restarts_in_a_quiet_minute": sum(map(int, machine.must(asked).split())) - sum(map(int, before)),
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
    start_without_cable,
    hung_kernel,
    damaged_boot_partition,
    later_enrolment,
)
