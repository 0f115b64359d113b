"""What is put on a board is loaded by the device's own loader and starts commands that exist."""

import configparser
import json
import shlex
import subprocess
from pathlib import Path

import msgspec
import pytest

from edge.cli import parser
from edge.commands.check import check_device
from edge.config import Decode, load_config
from tests.support.processes import find_program

ROOT = Path(__file__).resolve().parents[2]
PROFILES = sorted((ROOT / "firmware_configs/profiles").glob("*.toml"))
UNITS = sorted((ROOT / "firmware_configs/systemd").glob("*.service"))
EXPOSURE = {"cxr-infer": 0.5, "cxr-watch": 0.5}
"""What systemd-analyze may find at most: 0 nothing, 10 everything. Those with a network are at 1.5."""
KNOWN_OPEN = {
    "RootDirectoryOrRootImage",  # needs an image of a system of its own
    "ProcSubset",  # boot_id, cpuinfo and meminfo are read
    "ProtectClock",  # asking whether the clock is right belongs to it
    "SystemCallFilter_clock",
    "SystemCallFilter_privileged",  # @clock is part of it
    "RestrictAddressFamilies_AF_UNIX",  # how systemd is told
}
WITH_A_NETWORK = {"PrivateNetwork", "RestrictAddressFamilies_AF_INET_INET6", "IPAddressDeny"}


def unit(path):
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(path)
    return parser


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_is_loaded_by_the_device(path):
    device = load_config(path)
    assert device.relay.url.startswith("mqtts://"), "a real link is encrypted"
    assert all((device.relay.ca, device.relay.certificate, device.relay.private_key))
    assert Path(device.state).is_absolute()
    assert device.board is not None, "a profile says for which board it is"
    assert device.relay.certificate == device.relay.private_key, "one file, so that one rename renews both"


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_what_a_profile_asks_for_fits_its_board(path):
    device = load_config(path)
    board = device.board
    assert device.decode.memory_mb < board.memory_mb, "the decoder alone may not take all"
    assert device.decode.max_file_mb * 2**20 < board.memory_mb * 2**20
    assert device.storage.results_mb < board.disk_mb
    if board.model.startswith("Raspberry"):
        assert board.watchdog_s <= 15, "its counter ends at 16 s; systemd would be refused more"
        assert board.hot_c <= 80, "its firmware slows down from there on"
    runtime = {"armv7l": "tflite-runtime"}.get(board.architecture, "ai-edge-litert")
    assert board.runtime.startswith(runtime + "==")


def test_there_is_a_profile_for_each_board():
    names = {path.stem for path in PROFILES}
    pis = {f"raspberry-pi-{name}" for name in ("zero-2w", "3b-plus", "4", "5", "32bit")}
    assert names == pis | {"jetson-orin-nano", "amd64"}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_a_command_that_exists_with_options_that_it_takes(path):
    program, command, *options = shlex.split(unit(path)["Service"]["ExecStart"])
    assert program == "/opt/cxr-edge/current/bin/cxr-edge"
    parser().parse_args([command, *options])  # ends with SystemExit for what cxr-edge does not have


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_itself_understands_a_unit_and_finds_nothing_wrong(path, tmp_path):
    # The software is not in /opt here; all else is as on a board.
    text = path.read_text().replace("/opt/cxr-edge/current/bin/cxr-edge", "/bin/true")
    (tmp_path / path.name).write_text(text)
    program = find_program("systemd-analyze", "systemd")
    done = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / path.name)], capture_output=True, text=True, timeout=60, check=False
    )
    assert not [line for line in done.stderr.splitlines() if path.name in line], done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_finds_little_that_a_unit_could_still_do(path):
    program = find_program("systemd-analyze", "systemd")
    command = [program, "security", "--offline=yes", "--no-pager", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    (last,) = [line for line in said.splitlines() if "Overall exposure level" in line]
    exposure = float(last.rpartition(": ")[2].split()[0])
    print(f"{path.stem}: {exposure}")
    assert exposure <= EXPOSURE.get(path.stem, 1.5)
    found = json.loads(subprocess.run([*command, "--json=short"], capture_output=True, timeout=60, check=False).stdout)
    still = {one["json_field"] for one in found if one["set"] is False and one["exposure"]}
    assert still <= KNOWN_OPEN | (set() if path.stem in EXPOSURE else WITH_A_NETWORK)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_waits_for_no_network_and_no_time_and_for_its_disk_and_its_enrolment(path):
    head = unit(path)["Unit"]
    assert head["After"] == "cxr-first-boot.service"
    assert not {"Wants", "Requires"} & set(head)
    assert head["ConditionPathExists"] == "/etc/cxr-edge/device.toml", "a card that is not enrolled does not start in vain"
    assert {"/var/lib/cxr-edge", "/etc/cxr-edge", "/opt/cxr-edge"} <= set(head["RequiresMountsFor"].split())


def test_an_open_trial_is_ended_when_all_that_it_is_about_is_mounted():
    head = unit(ROOT / "firmware_configs/installer/cxr-confirm.service")["Unit"]
    assert {"/var/lib/cxr-edge", "/etc/cxr-edge", "/opt/cxr-edge"} <= set(head["RequiresMountsFor"].split())


@pytest.mark.parametrize("name", ["dicom", "pacs", "page"])
def test_an_optional_process_is_started_only_where_device_toml_has_its_table(name, tmp_path):
    program, *words = shlex.split(unit(ROOT / f"firmware_configs/systemd/cxr-{name}.service")["Service"]["ExecCondition"])
    file = tmp_path / "device.toml"
    answers = []
    for text in (
        f"[{name}]\n",
        f"  [{name}] # here\n",
        f"\t[ {name}\t]\n",
        f"# [{name}]\n",
        f"[{name}s]\n",
        f'facility = "[{name}]"\n',
    ):
        file.write_text(text)
        answers.append(subprocess.run([program, *words[:-1], str(file)], check=False).returncode)
    assert words[-1] == "/etc/cxr-edge/device.toml"
    assert answers == [0, 0, 0, 1, 1, 1]


def megabytes(value):
    assert value.endswith("M")
    return int(value[:-1])


def test_memory_is_shared_out_so_that_a_small_board_keeps_its_system_and_the_outbox_its_writers():
    limits = {path.stem: unit(path)["Service"] for path in UNITS}
    together = int(unit(ROOT / "firmware_configs/systemd/cxr.slice")["Slice"]["MemoryMax"].rstrip("%"))
    assert all(service["Slice"] == "cxr.slice" for service in limits.values())
    small = 415  # MB that Linux has of 512 on a Raspberry Pi
    assert small * (100 - together) / 100 >= 80, "for the system"
    infer = int(limits["cxr-infer"]["MemoryMax"].rstrip("%"))
    assert small * infer / 100 + 25 + 35 <= small * together / 100, "beside a decoder that fills its share"
    assert {name: megabytes(limits[f"cxr-{name}"]["MemoryMax"]) for name in ("watch", "relay", "dicom", "page", "pacs")} == {
        "watch": 128,
        "relay": 128,
        "dicom": 256,
        "page": 256,
        "pacs": 512,
    }
    last = sorted(limits, key=lambda name: int(limits[name]["OOMScoreAdjust"]))[:2]
    assert set(last) == {"cxr-infer", "cxr-relay"}, "the outbox's writers die last"
    assert {name for name, service in limits.items() if service.get("OOMPolicy") == "continue"} == {
        "cxr-infer",
        "cxr-pacs",
        "cxr-page",
    }, "a child that dies of a picture takes no process with it"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_watches_progress_is_started_again_alone_and_writes_no_memory_down(path):
    service = unit(path)["Service"]
    assert (service["Type"], service["NotifyAccess"], service["Restart"], service["LimitCORE"]) == ("notify", "main", "always", "0")
    assert service["WatchdogSignal"] == "SIGKILL"
    assert int(service["WatchdogSec"]) >= 60
    assert float(service["RestartSec"]) <= 1, "five seconds from the kill to serving again, and the start is in them"
    head = unit(path)["Unit"]
    assert head["StartLimitIntervalSec"] == "0", "never given up"
    assert not {"Requires", "BindsTo", "PartOf", "Requisite"} & set(head), "each alone"


def test_infer_may_finish_the_picture_in_hand_before_it_is_killed():
    service = unit(ROOT / "firmware_configs/systemd/cxr-infer.service")["Service"]
    assert int(service["TimeoutStopSec"]) >= 2 * Decode().timeout_s + 10
    assert int(service["WatchdogSec"]) >= 2 * Decode().timeout_s + 10


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_waits_for_a_slow_board_to_start(path):
    """infer took 79 s in a virtual machine that started everything at once; systemd's own limit is 90 s, and then begins anew."""
    assert int(unit(path)["Service"]["TimeoutStartSec"]) >= 3 * 79


def test_the_journal_is_bounded():
    journal = unit(ROOT / "firmware_configs/journald/cxr-edge.conf")["Journal"]
    assert journal["SystemMaxUse"].endswith("M")
    assert int(journal["RateLimitBurst"]) > 0


def test_there_is_a_unit_for_each_process_of_the_supervisor():
    assert {path.stem for path in UNITS} == {"cxr-watch", "cxr-infer", "cxr-relay", "cxr-dicom", "cxr-pacs", "cxr-page"}


def test_the_units_and_the_profiles_speak_of_the_same_places():
    for path in UNITS:
        service = unit(path)["Service"]
        assert "/etc/cxr-edge/device.toml" in service["ExecStart"]
        assert service["StateDirectory"] == "cxr-edge"
    for path in PROFILES:
        device = load_config(path)
        assert device.state == "/var/lib/cxr-edge"
        assert unit(ROOT / "firmware_configs/systemd/cxr-watch.service")["Service"]["ReadWritePaths"] == device.watch.folder


def test_a_profile_on_a_machine_without_its_files_is_told_what_is_missing(tmp_path):
    device = load_config(PROFILES[0])
    nowhere = msgspec.structs.replace(device.relay, url="mqtts://127.0.0.1:1", ca=str(tmp_path / "ca.pem"))
    key = str(tmp_path / "site.key")
    device = msgspec.structs.replace(device, relay=nowhere, site_key=key, state=str(tmp_path / "not/yet"))
    findings = {finding.subject: finding for finding in check_device(device)}
    assert findings["state folder"].ok
    assert not (tmp_path / "not").exists(), "a check changes nothing"
    assert not findings["site key"].ok
    assert "cxr-edge key restore" in findings["site key"].text
    assert not findings["TLS files"].ok


def test_the_page_about_boards_says_of_each_profile_what_was_tried():
    text = (ROOT / "docs/reference/boards.md").read_text("utf-8")
    table = text.partition("<!-- boards: start -->")[2].partition("<!-- boards: end -->")[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    names = {path.stem.removeprefix("raspberry-pi-") for path in PROFILES}
    assert set(rows[0][1:]) == names
    cells = [cell for row in rows[2:] for cell in row[1:]]
    assert all(len(row) == len(rows[0]) for row in rows)
    assert set(cells) == {"x86", "emulated", "virtual", "stand-in", "not tried", "-"}
