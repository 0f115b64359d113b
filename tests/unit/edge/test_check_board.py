"""Whether the machine is the one that its profile is for is said before anything else, in one sentence each."""

import os
import struct
import sys

import msgspec
import pytest

from edge.commands import check_board as module
from edge.commands.check import check_device
from edge.commands.check_board import architecture, check_board
from edge.config import HOT_C, Board, Device, Watch, load_config
from edge.errors import ConfigError

HERE = Board(
    model="This machine",
    architecture="x86_64",
    python=(".".join(map(str, sys.version_info[:2])),),
    runtime="ai-edge-litert==1.2.3",
    memory_mb=1000,
    disk_mb=1,
    hot_c=85.0,
    watchdog_s=14,
)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(module, "architecture", lambda: "x86_64")
    monkeypatch.setattr(module, "version", lambda name: "1.2.3")


def findings(tmp_path, board=HERE, files=()):
    for name, content in {"proc/meminfo": "MemTotal: 2048000 kB\n", **dict(files)}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return {finding.subject: finding for finding in check_board(board, tmp_path)}


def changed(**values):
    return msgspec.structs.replace(HERE, **values)


ZONE = "sys/class/thermal/thermal_zone0"


def test_the_machine_of_the_profile_has_nothing_wrong(tmp_path):
    found = findings(tmp_path, files={f"{ZONE}/type": "cpu", f"{ZONE}/temp": "84900", "dev/watchdog0": ""}.items())
    assert all(finding.ok for finding in found.values()), found
    assert list(found) == ["board", "Python", "runtime", "memory", "temperature", "watchdog"]
    assert found["temperature"].text == "85 °C, too hot from 85 on"
    assert found["watchdog"].text.endswith("is to be 14")
    assert set(findings(tmp_path / "other", changed(watchdog_s=0))) == {"board", "Python", "runtime", "memory"}


@pytest.mark.parametrize(
    ("board", "subject", "fatal", "says"),
    [
        (changed(architecture="aarch64"), "board", True, "this machine is x86_64, and the profile is for This machine (aarch64)"),
        (changed(python=("3.1", "3.2")), "Python", False, "the profile of This machine is for 3.1 or 3.2: not tried together"),
        (changed(runtime="ai-edge-litert==2.0"), "runtime", False, "ai-edge-litert 1.2.3, and the profile asks for 2.0"),
        (changed(memory_mb=2001), "memory", True, "2000 MiB, and the profile needs 2001"),
        (HERE, "watchdog", False, "/dev/watchdog0 is not there"),
    ],
)
def test_what_is_another_is_said(tmp_path, board, subject, fatal, says):
    wrong = findings(tmp_path, board)
    assert says in wrong[subject].text
    assert (wrong[subject].ok, wrong[subject].fatal) == (False, fatal)
    others = {name for name, finding in wrong.items() if not finding.ok} - {"watchdog"}
    assert others == {subject} - {"watchdog"}


def test_a_runtime_that_is_not_there_is_said(tmp_path, monkeypatch):
    def none(name):
        raise module.PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", none)
    assert "ai-edge-litert is not installed" in findings(tmp_path)["runtime"].text


def test_heat_is_judged_by_the_boards_own_limit_and_by_its_firmware(tmp_path):
    warm = {f"{ZONE}/type": "cpu", f"{ZONE}/temp": "85000"}
    assert "give it air" in findings(tmp_path, files=warm.items())["temperature"].text
    assert findings(tmp_path, changed(hot_c=95.0))["temperature"].ok
    firmware = {"sys/devices/platform/soc/soc:firmware/get_throttled": "8"}
    assert not findings(tmp_path, changed(hot_c=95.0), firmware.items())["temperature"].ok


def test_a_pi_that_says_nothing_of_its_power_supply_is_not_taken_for_well_fed(tmp_path):
    pi = {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}
    found = findings(tmp_path / "silent", files=pi.items())["power supply"]
    assert (found.ok, found.fatal) == (False, False)
    told = {"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0"}
    assert "power supply" not in findings(tmp_path / "told", files={**pi, **told}.items())


def test_a_machine_that_does_not_tell_its_memory_is_no_error(tmp_path):
    found = findings(tmp_path, files={"proc/meminfo": "?"}.items())["memory"]
    assert (found.ok, found.fatal) == (False, False)


@pytest.mark.parametrize(
    ("kernel", "pointer", "said"),
    [
        ("aarch64", 8, "aarch64"),
        ("aarch64", 4, "armv7l"),
        ("armv7l", 4, "armv7l"),
        ("armv8l", 4, "armv7l"),
        ("x86_64", 8, "x86_64"),
    ],
)
def test_a_32_bit_system_on_a_64_bit_kernel_is_known(monkeypatch, kernel, pointer, said):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "pi", "6", "1", kernel)))
    monkeypatch.setattr(struct, "calcsize", lambda code: pointer)
    assert architecture() == said


def test_check_looks_at_the_board_first_where_there_is_a_profile(tmp_path):
    device = Device(device="d", facility="f", state=str(tmp_path), site_key="k", watch=Watch(folder="f"))
    assert next(check_device(device)).subject == "watched folder"
    assert next(check_device(msgspec.structs.replace(device, board=HERE))).subject == "board"
    assert (device.hot_c, msgspec.structs.replace(device, board=HERE).hot_c) == (HOT_C, 85.0)


TOML = """device = "d"
facility = "f"
state = "s"
site_key = "k"
[watch]
folder = "i"
[board]
model = "m"
architecture = "aarch64"
python = ["3.11"]
runtime = "ai-edge-litert==2.3.0"
memory_mb = 400
disk_mb = 400
"""


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ('architecture = "aarch64"', 'architecture = "arm64"'),
        ('python = ["3.11"]', 'python = ["2.7"]'),
        ('python = ["3.11"]', "python = []"),
        ('runtime = "ai-edge-litert==2.3.0"', 'runtime = "ai-edge-litert>=2.3.0"'),
        ("memory_mb = 400", "memory_mb = 0"),
        ("disk_mb = 400", "hot_c = 80.0"),
        ("disk_mb = 400", "disk_mb = 400\nhot_c = 20.0"),
    ],
)
def test_a_profile_with_a_value_out_of_range_is_refused_with_its_place(tmp_path, line, instead):
    path = tmp_path / "device.toml"
    path.write_text(TOML)
    assert load_config(path).board.hot_c == HOT_C
    path.write_text(TOML.replace(line, instead))
    with pytest.raises(ConfigError, match=r"board"):
        load_config(path)
