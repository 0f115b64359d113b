"""How the machine itself is: heat, throttling, memory, load, as the kernel tells it. What a board does not have is None or empty.

temperature   /sys/class/thermal/thermal_zone*
throttling    Raspberry Pi: its firmware's word; under-voltage also by hwmon. Jetson, PC: what cools by slowing down
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_FIRMWARE = "sys/devices/platform/soc*/soc*:firmware/get_throttled"
"""soc/soc:firmware on most, soc@107c000000/soc@107c000000:firmware on a Raspberry Pi 5."""
_FIRMWARE_BITS = {0: "under_voltage", 1: "frequency_capped", 2: "throttled", 3: "too_hot", 16: "under_voltage_since_boot"}
_IGNORED_ZONES = ("PMIC-Die", "iwlwifi")
"""The first always says 100 degrees on a Jetson; the second is of a radio."""
_SLOWING = ("cpufreq", "processor", "cpu-throttle", "gpu-throttle", "devfreq", "intel_powerclamp")
"""Kinds of cooling devices that make the machine slower; a fan does not."""


@dataclass(frozen=True)
class Board:
    """temperature_c: of the hottest zone. throttled: why the machine is slower than it could be, as codes. Sizes in bytes.

    power_told: whether a weak power supply would be among them. Where it is not, its absence says nothing.
    """

    temperature_c: float | None
    throttled: list[str]
    memory_available: int | None
    memory_total: int | None
    load_1m: float
    power_told: bool = False

    def hot(self, hot_c: float) -> bool:
        """Whether it is so hot that it slows down, or will, which boards do from `hot_c` degrees on."""
        return "too_hot" in self.throttled or (self.temperature_c is not None and self.temperature_c >= hot_c)

    @property
    def low_memory(self) -> bool:
        """Whether less than a tenth of the memory is available."""
        available, total = self.memory_available, self.memory_total
        return available is not None and total is not None and available < total / 10


def read_board(root: Path = _ROOT) -> Board:
    """Return the present state. Args: root: where /sys and /proc are."""
    available, total = _memory(root)
    firmware, sensors = _firmware(root), _power_sensors(root)
    throttled = _throttled(root, firmware or 0, sensors)
    told = firmware is not None or bool(sensors)
    return Board(_temperature(root), throttled, available, total, round(os.getloadavg()[0], 2), told)


def _temperature(root: Path) -> float | None:
    found = []
    for zone in root.glob("sys/class/thermal/thermal_zone*"):
        kind, value = _text(zone / "type"), _text(zone / "temp")
        # A sensor that is switched off gives an error, or what no board survives.
        if not kind.startswith(_IGNORED_ZONES) and value.lstrip("-").isdigit() and -40_000 < int(value) < 150_000:
            found.append(int(value) / 1000)
    return max(found, default=None)


def _firmware(root: Path) -> int | None:
    """The bits that the firmware of a Raspberry Pi sets; None where it says nothing."""
    for path in root.glob(_FIRMWARE):
        try:
            return int(_text(path), 16)
        except ValueError:
            continue
    return None


def _power_sensors(root: Path) -> list[str]:
    """What each sensor says of the power supply: 1: too weak, 0: it was not."""
    sensors = [sensor for sensor in root.glob("sys/class/hwmon/hwmon*") if _text(sensor / "name") == "rpi_volt"]
    return [said for sensor in sensors if (said := _text(sensor / "in0_lcrit_alarm"))]


def _throttled(root: Path, firmware: int, sensors: list[str]) -> list[str]:
    found = [code for bit, code in _FIRMWARE_BITS.items() if firmware >> bit & 1]
    if "1" in sensors:
        found.append("under_voltage")
    for device in root.glob("sys/class/thermal/cooling_device*"):
        slowing = any(kind in _text(device / "type").lower() for kind in _SLOWING)
        if slowing and _text(device / "cur_state") not in ("", "0", "-1"):
            found.append("throttled")
    return sorted(set(found))


def _memory(root: Path) -> tuple[int | None, int | None]:
    lines = dict(line.partition(":")[::2] for line in _text(root / "proc/meminfo").splitlines())
    sizes = [lines.get(name, "").split()[:1] for name in ("MemAvailable", "MemTotal")]
    available, total = (int(size[0]) * 1024 if size and size[0].isdigit() else None for size in sizes)
    return available, total


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
