"""`make arm64`: from nothing to a result delivered from an emulated ARM device.

`make armhf` does the same for 32 bits, `make arm64-trixie` for Debian 13 with its Python 3.13.

A Debian system of the architecture is made and run by qemu, with no network but loopback. In it, from the offline package alone:
the installer, `cxr-edge check`, the networks on the golden and other inputs, `cxr-edge classify`, the tests of the outbox, and the
whole device, which delivers to Mosquitto and an aggregator of this machine. What came out is printed and written to
build/<target>.json. The exit status is 0 only if all of it is as on this machine.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.network.manifest import SHIPPED
from edge.pixels.network_input import INPUT_SIDE, write_pgm
from export.phantom import phantom
from export.runtimes import RUNTIMES
from firmware_configs.wheelhouse.collect import collect
from firmware_configs.wheelhouse.targets import Target
from tests.boards.compiled import compile_missing
from tests.boards.int8_outputs import outputs
from tests.boards.report import Report
from tests.support.board_device import PROGRAM, ask, bring_enrolment, drop, serving, unpack
from tests.support.board_root import Board, board, debian_root
from tests.support.centre import ROOT
from tests.support.clinic import small_picture
from tests.support.fleet import Fleet, make_fleet, run
from tests.support.processes import wait_for

_DEVICE = "clinic-1"
_PYTHON = "/opt/cxr-edge/current/bin/python"
_MODELS = ("model.tflite", "gate.tflite")
_DRAWN_INPUTS = 29
_PICTURES = 4
_OUTBOX_TESTS = ("test_outbox.py", "test_durable.py", "test_seqset.py", "test_sealed.py")
# qemu's user mode has no ptrace, and one test looks at system calls by strace.
_NOT_EMULATED = "test_a_commit_calls_fsync_before_it_returns"
_NEEDED_BY_TESTS = ("pytest", "pytest-timeout", "hypothesis")


@dataclass(frozen=True)
class Kind:
    """One architecture: Debian's name of it, the kernel's, the profile of a board that has it, what its system has and is."""

    debian: str
    machine: str
    profile: str
    packages: tuple[str, ...] = ("python3",)
    python: str = "311"
    suite: str = "bookworm"
    same_runtime: bool = True
    """Whether it has the runtime of this machine: the other one rounds otherwise (docs/adr/0012), and answers alike."""
    others: tuple[str, ...] = ()
    """Processors, as qemu names them, on which the networks are run as well: another one has other instructions."""


KINDS = {
    "arm64": Kind("arm64", "aarch64", "raspberry-pi-4", others=("cortex-a53", "cortex-a76")),
    "arm64-trixie": Kind("arm64", "aarch64", "raspberry-pi-5", python="313", suite="trixie"),
    "armhf": Kind("armhf", "armv7l", "raspberry-pi-32bit", ("python3", "python3-numpy", "python3-pil"), same_runtime=False),
}


def prove(kind: Kind, scratch: Path) -> Report:
    """Take a device of that kind from nothing to a delivered result.

    Raises:
        AssertionError: if a step fails, with what was said.
    """
    report, began = Report(), time.monotonic()
    target = Target(kind.machine, kind.python)
    with report.step("offline package"):
        compile_missing(target, kind.debian, scratch)
        package = collect(target)
    with report.step("Debian system"):
        root = debian_root(kind.debian, kind.packages, kind.suite)
    with board(root, scratch / "board") as device:
        fleet = make_fleet(scratch / "centre")
        with report.step("install and enrol"):
            _install(device, kind, package, fleet)
        with report.step("check"):
            ask(device, "check", timeout_s=900)
        with report.step("networks"):
            report.figures |= _compare_networks(device, scratch, kind.others)
        with report.step("classify"):
            report.figures |= _compare_readings(device, scratch)
        with report.step("tests of the outbox"):
            report.figures["outbox_tests"] = _test_outbox(device, scratch, target.python_version)
        with report.step("deliver"):
            report.figures |= _deliver(device, fleet, scratch)
    report.figures["seconds"] = round(time.monotonic() - began)
    return report


def _install(device: Board, kind: Kind, package: Path, fleet: Fleet) -> None:
    fleet.enroll(_DEVICE, "--facility", "Clinic 1")
    unpack(device, package, "/root/package")
    options = ("--profile", kind.profile, *bring_enrolment(device, fleet, _DEVICE))
    device.must("/root/package/install.sh", *options, timeout_s=3600)


def _compare_networks(device: Board, scratch: Path, others: tuple[str, ...]) -> dict[str, Any]:
    """Every int8 output of both networks, by the same runtime, here and on each processor there."""
    inputs, program = scratch / "inputs", Path(__file__).with_name("int8_outputs.py")
    shutil.copytree(SHIPPED / "golden", inputs)
    for seed in range(_DRAWN_INPUTS):
        (inputs / f"drawn-{seed}.pgm").write_bytes(write_pgm(phantom(seed, width=INPUT_SIDE, height=INPUT_SIDE)))
    device.put(inputs, "/root/inputs")
    device.put(program, "/root/int8_outputs.py")
    where = device.must(_PYTHON, "-c", "from edge.network.manifest import SHIPPED; print(SHIPPED)").strip()
    asked = (_PYTHON, "/root/int8_outputs.py", "/root/inputs", *(f"{where}/{name}" for name in _MODELS))
    there = [_json(device.must(*asked, environment={"QEMU_CPU": one} if one else {})) for one in ("", *others)]
    [name] = {one["runtime"].partition(" ")[0] for one in there}
    wanted: dict[str, str] = {}
    for model in _MODELS:
        wanted |= outputs(SHIPPED / model, inputs, RUNTIMES[name])
    return {
        "runtime": there[0]["runtime"],
        "processors": len(there),
        "int8_outputs": len(wanted) * len(there),
        "int8_outputs_equal": sum(one["outputs"].get(key) == value for one in there for key, value in wanted.items()),
        "golden_equal": int(bool(wanted) and all(one["outputs"] == wanted for one in there)),
    }


def _compare_readings(device: Board, scratch: Path) -> dict[str, int]:
    """What a person sees of a file, here and there: the whole line from decoding to decision."""
    folder = scratch / "pictures"
    folder.mkdir()
    for seed in range(_PICTURES):
        small_picture(folder / f"{seed}.{'png' if seed % 2 else 'jpg'}", seed)
    device.put(folder, "/root/pictures")
    names = sorted(path.name for path in folder.iterdir())
    there = device.must(PROGRAM, "classify", "--json", *(f"/root/pictures/{name}" for name in names)).splitlines()
    command = [sys.executable, "-m", "edge.cli", "classify", "--json", *(str(folder / name) for name in names)]
    here = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = list(zip(map(_reading, here), map(_reading, filter(_is_json, there)), strict=True))
    return {
        "readings": len(pairs),
        "readings_equal": sum(mine == its for mine, its in pairs),
        "answers_equal": sum(_answer(mine) == _answer(its) for mine, its in pairs),
    }


def _reading(line: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(line).items() if key != "file"}


def _answer(reading: dict[str, Any]) -> list[Any]:
    return [reading.get(key) for key in ("status", "label", "abstained")]


def _test_outbox(device: Board, scratch: Path, python: str) -> int:
    """Run the tests of what must not be lost against the installed software; return how many passed."""
    tools, tests = scratch / "tools", scratch / "tests"
    wanted = ["install", "-qq", "--disable-pip-version-check", "--target", str(tools), "--python-version", python]
    wanted += ["--only-binary=:all:", "--implementation", "py", "--platform", "any", *_NEEDED_BY_TESTS]
    subprocess.run([sys.executable, "-m", "pip", *wanted], check=True)
    (tests / "tests/unit/edge").mkdir(parents=True)
    for name in ("__init__.py", "conftest.py"):
        if (ROOT / "tests" / name).exists():
            shutil.copy(ROOT / "tests" / name, tests / "tests" / name)
    # Of the centre what makes certificates, which the tests' authority asks.
    for name in ("tests/golden", "tests/support", "broker/fleet"):
        shutil.copytree(ROOT / name, tests / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "errors.py"):
        shutil.copy(ROOT / "broker" / name, tests / "broker" / name)
    for name in _OUTBOX_TESTS:
        shutil.copy(ROOT / "tests/unit/edge" / name, tests / "tests/unit/edge" / name)
    shutil.copy(ROOT / "setup.cfg", tests / "setup.cfg")
    device.put(tools, "/root/tools")
    device.put(tests, "/root/tests")
    command = (
        _PYTHON,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--timeout",
        "1200",
        "-k",
        f"not {_NOT_EMULATED}",
        "tests/unit/edge",
    )
    environment = {"PYTHONPATH": "/root/tools:/root/tests"}
    done = device.run(*command, environment=environment, folder="/root/tests", timeout_s=2400)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, f"the tests of the outbox failed:\n{done.stdout[-4000:]}"
    assert passed, done.stdout[-4000:]
    return int(passed[1])


def _deliver(device: Board, fleet: Fleet, scratch: Path) -> dict[str, int]:
    """Run the whole device as its own user; return how many X-rays it was given and how many outcomes the centre has of it."""
    pictures = sorted((scratch / "pictures").iterdir())
    with device.network(), fleet.mosquitto(), fleet.aggregator(), serving(device, scratch / "device.log"):
        for path in pictures:
            drop(device, path)
        with contextlib.suppress(AssertionError):  # the figures say it
            wait_for(lambda: _at_centre(fleet) >= len(pictures), "every outcome is at the centre", 900)
    return {"sent": len(pictures), "delivered": _at_centre(fleet)}


def _at_centre(fleet: Fleet) -> int:
    """Return how many outcomes of the device the centre has committed."""
    lines = run("results", "--db", fleet.database, "--json").splitlines()
    return sum(json.loads(line)["device"] == _DEVICE for line in lines)


def _is_json(line: str) -> bool:
    return line.startswith("{")


def _json(said: str) -> Any:
    """Return the one line of JSON among what a program and its libraries have said."""
    [line] = filter(_is_json, said.splitlines())
    return json.loads(line)


def main() -> int:
    """Prove one kind; returns an exit status."""
    kind = KINDS[sys.argv[1]]
    with tempfile.TemporaryDirectory() as scratch:
        report = prove(kind, Path(scratch))
    figures = report.figures
    place = ROOT / "build" / f"{sys.argv[1]}.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps({**figures, "steps": report.steps}, indent=1) + "\n", "utf-8")
    for name, value in figures.items():
        sys.stdout.write(f"{name:>20}  {value}\n")
    alike = figures["readings_equal" if kind.same_runtime else "answers_equal"]
    whole = figures["golden_equal"] == 1 and alike == figures["readings"] and figures["delivered"] == figures["sent"]
    sys.stdout.write(f"{'As on this machine.' if whole else 'NOT as on this machine.'} {place.relative_to(ROOT)}\n")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
