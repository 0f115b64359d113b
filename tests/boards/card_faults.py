"""What `make card` does to the device: processes that hang, power that fails, a kernel that dies, a file that is none."""

from __future__ import annotations

import time

from firmware_configs.wheelhouse.collect import collect
from firmware_configs.wheelhouse.targets import Target
from tests.boards.card_bench import RUNNING, Bench, Figures, failed, served_after
from tests.support.card_device import PATIENCE_S, CardDevice
from tests.support.processes import wait_for


def hung_and_killed(bench: Bench) -> Figures:
    """infer stands still: systemd's own watchdog ends it. Each process is killed once."""
    device, machine = bench.device, bench.device.machine
    device.allow_dicom()
    before = _main_pids(device)
    for path in bench.pictures(2):
        device.drop(path)
    machine.must("sudo systemctl kill --signal=STOP --kill-whom=all cxr-infer")
    began = time.monotonic()
    wait_for(lambda: _main_pids(device).get("cxr-infer") not in {before["cxr-infer"], 0}, "infer runs anew", 900)
    waited = round(time.monotonic() - began)
    said = machine.must("sudo journalctl -b -u cxr-infer --no-pager")
    others = [name for name in RUNNING if name != "cxr-infer"]
    machine.must(f"sudo systemctl kill --signal=KILL {' '.join(others)}")
    began = time.monotonic()
    wait_for(lambda: device.serves(RUNNING), "all serve again", PATIENCE_S)
    back = round(time.monotonic() - began)
    device.wait_until_delivered(bench.sent)
    now = _main_pids(device)
    return {
        "ended_by_the_watchdog": "Watchdog timeout" in said,
        "seconds_until_infer_ran_anew": waited,
        "seconds_until_the_killed_served": back,
        "each_is_another_process": all(now[name] not in {before[name], 0} for name in RUNNING),
        "delivered_once_each": device.once_each(bench.sent),
    }


def _main_pids(device: CardDevice) -> dict[str, int]:
    said = device.machine.must(f"systemctl show --value -p MainPID {' '.join(RUNNING)}", timeout_s=120)
    return dict(zip(RUNNING, map(int, said.split()), strict=True))


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
    return {"cuts": cuts, "films": bench.sent, "delivered_once_each": device.once_each(bench.sent), "failed": failed(device)}


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


def start_without_cable(bench: Bench) -> Figures:
    """The power comes back before the network does, with a film in the folder that nobody has read."""
    device, machine = bench.device, bench.device.machine
    machine.must("sudo systemctl stop cxr-watch")
    for path in bench.pictures(1):
        device.drop(path)
    machine.cut()
    before = len(device.at_centre())
    machine.start(cable=False)
    wait_for(machine.is_started, f"it is started; {machine.console} says more", PATIENCE_S)
    time.sleep(60)
    until_plugged = len(device.at_centre())
    machine.cable(plugged=True)
    began = time.monotonic()
    device.wait_until_serving()
    plugged_after = float(machine.must("cat /proc/uptime").split()[0]) - (time.monotonic() - began)
    served = served_after(device)
    device.wait_until_delivered(bench.sent)
    return {
        "nothing_got_through_without_a_cable": until_plugged == before,
        "served_after_its_own_seconds": served,
        "served_before_the_cable_was_in": served < plugged_after,
        "failed": failed(device),
        "delivered_once_each": device.once_each(bench.sent),
    }


def damaged_boot_partition(bench: Bench) -> Figures:
    """The boot partition is no file system any more when the power comes back."""
    device, machine = bench.device, bench.device.machine
    machine.cut()
    machine.wipe_boot()
    machine.start()
    device.wait_until_serving()
    for path in bench.pictures(1):
        device.drop(path)
    device.wait_until_delivered(bench.sent)
    return {
        "it_is_not_mounted": not machine.answers("findmnt /boot/firmware"),
        "failed": failed(device),
        "delivered_once_each": device.once_each(bench.sent),
    }


def later_enrolment(bench: Bench) -> Figures:
    """Another card, without a network at first: the power fails in its first boot, it waits, is given a bad file, then its own."""
    bench.fleet.enroll("clinic-2", "--facility", "Clinic 2")
    device = bench.board("clinic-2")
    machine = device.machine
    moments = (60, 120)
    for seconds in moments:
        machine.start(cable=False)
        time.sleep(seconds)
        machine.cut()
    machine.write_boot("clinic-2.enrol", b"no enrolment file\n")
    machine.write_boot("clinic-2.code", f"{bench.fleet.code('clinic-2')}\n".encode())
    machine.start(cable=False)
    resets = machine.resets
    wait_for(lambda: machine.resets > resets and machine.is_started(), "the first boot is over", PATIENCE_S)
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
