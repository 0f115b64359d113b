"""The golden card: it becomes one device by a file on its boot partition, and what else it is told at its first boot."""

from __future__ import annotations

import configparser
import hashlib
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from firmware_configs.installer.boards import choose_profile, read_board
from firmware_configs.installer.checks import require_board
from firmware_configs.installer.errors import Refused
from firmware_configs.installer.machine import Machine
from tests.support.processes import find_program, wait_for

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "firmware_configs/first-boot"
PROFILES = ROOT / "firmware_configs/profiles"
SCRIPTS = sorted(path for path in FOLDER.iterdir() if path.read_bytes().startswith(b"#!/bin/sh"))
UNITS = sorted(path for path in FOLDER.iterdir() if path.suffix in (".service", ".timer", ".mount"))
BINDS = {
    "/opt/cxr-edge": "/data/opt",
    "/etc/cxr-edge": "/data/etc",
    "/var/lib/cxr-edge": "/data/state",
    "/srv/cxr/inbox": "/data/inbox",
    "/var/log/journal": "/data/journal",
    "/var/lib/systemd": "/data/systemd",
    "/var/lib/NetworkManager": "/data/network",
}

# As cxr-edge enrol: reads the code from its input, says one sentence, ends with 0 or 2.
ENROL = """#!/bin/sh
echo "$*" >>"$0.asked"
[ ! -t 0 ] || printf 'Code of the enrolment file: '
read -r code
[ "$code" = GOOD ] || { echo "cxr-edge: Group 2 of the code was mistyped. Nothing was changed." >&2; exit 2; }
echo "This board is clinic-7 of Ward 7. Its results go to mqtts://centre.example:8883."
echo "It reads no X-ray before it has the site's key."
echo "Processes that run go on with what they began with: start them again. Delete the enrolment file."
"""
BECOME = """This board is clinic-7 of Ward 7. Its results go to mqtts://centre.example:8883.
It reads no X-ray before it has the site's key.
"""
PROFILE = '[board]\nmodel = "{model}"\narchitecture = "{architecture}"\n'


@pytest.fixture
def card(tmp_path):
    """A boot partition, an empty /etc/cxr-edge, software whose `enrol` is a stand-in, on a Raspberry Pi 4."""
    made = Card(tmp_path)
    made.current.joinpath("bin").mkdir(parents=True)
    made.current.joinpath("profiles").mkdir()
    for folder in (made.boot, made.settings):
        folder.mkdir()
    made.program.write_text(ENROL)
    made.program.chmod(0o755)
    here = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}[debian()]
    for name, model in (("four", "Raspberry Pi 4"), ("three", "Raspberry Pi 3 Model B+")):
        (made.current / f"profiles/{name}.toml").write_text(PROFILE.format(model=model, architecture=here))
    (made.current / "profiles/other.toml").write_text(PROFILE.format(model="Raspberry Pi 4 Model B", architecture="riscv64"))
    made.model("Raspberry Pi 4 Model B Rev 1.4")
    made.memory(1850)
    return made


def debian():
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


class Card:
    def __init__(self, home):
        self.boot, self.settings, self.current = home / "boot", home / "etc", home / "current"
        self.program = self.current / "bin/cxr-edge"

    def model(self, name):
        (self.current.parent / "model").write_bytes(name.encode() + b"\0")

    def memory(self, megabytes):
        (self.current.parent / "memory").write_text(f"MemTotal:  {megabytes * 1024} kB\nMemFree: 1 kB\n")

    def put(self, name="clinic-7", code="GOOD", content=b"sealed"):
        (self.boot / f"{name}.enrol").write_bytes(content)
        if code is not None:
            (self.boot / f"{name}.code").write_text(f"{code}\n")

    def stand_in(self, name, does):
        """Put a program in front of the system's."""
        path = self.boot.parent / "programs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    def environment(self):
        return {
            "PATH": f"{self.boot.parent / 'programs'}:{os.environ['PATH']}",
            "CXR_SYSTEMD": str(self.boot.parent / "systemd"),
            "CXR_PATIENCE": "1",
            "CXR_BOOT": str(self.boot),
            "CXR_SETTINGS": str(self.settings),
            "CXR_CURRENT": str(self.current),
            "CXR_MODEL": str(self.current.parent / "model"),
            "CXR_KEPT": str(self.boot.parent / "kept"),
            "CXR_RUN": str(self.boot.parent / "run"),
            "CXR_MEMORY": str(self.current.parent / "memory"),
        }

    def begin(self):
        """Start it as the first of a group of processes, as a unit has them."""
        ends = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([str(FOLDER / "cxr-first-boot")], env=self.environment(), start_new_session=True, **ends)

    def start(self, program="cxr-first-boot", **options):
        given = {"stdin": subprocess.DEVNULL} | options
        script = [str(FOLDER / program)]
        return subprocess.run(script, env=self.environment(), capture_output=True, text=True, timeout=30, check=False, **given)

    def names(self):
        return sorted(path.name for path in self.boot.iterdir())

    def said(self):
        return (self.boot / "cxr-edge-status.txt").read_text()

    def asked(self):
        path = self.program.with_name("cxr-edge.asked")
        return path.read_text().splitlines() if path.exists() else []


def test_a_card_takes_its_file_and_removes_it_with_its_code(card):
    card.put()
    done = card.start()
    assert done.returncode == 0, done.stderr
    assert card.names() == ["cxr-edge-status.txt"]
    assert card.said() == BECOME
    profile = card.current / "profiles/four.toml"
    assert card.asked() == [f"enrol {card.boot}/clinic-7.enrol --config {card.settings}/device.toml --profile {profile}"]
    assert "GOOD" not in done.stdout + done.stderr


def test_a_wrong_code_leaves_everything_and_a_sentence(card):
    card.put(code="BAD")
    done = card.start()
    assert done.returncode == 1
    assert card.names() == ["clinic-7.code", "clinic-7.enrol", "cxr-edge-status.txt"]
    assert card.said() == "clinic-7.enrol was not taken: Group 2 of the code was mistyped. Nothing was changed.\n"
    assert not list(card.settings.iterdir())
    (card.boot / "clinic-7.code").write_text("GOOD\n")
    assert card.start().returncode == 0
    assert card.names() == ["cxr-edge-status.txt"]


def test_without_a_code_on_the_card_it_waits_for_a_person(card):
    card.put(code=None)
    assert card.start().returncode == 1
    assert card.said().startswith("This card waits for the code of clinic-7.enrol: log in and run sudo cxr-first-boot")
    assert card.asked() == []
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"GOOD\n")
        done = card.start(stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert "before it has the site's key" in done.stdout, "who types the code sees all that enrol says"
    assert card.said() == BECOME
    assert card.names() == ["cxr-edge-status.txt"]


def test_a_card_that_became_a_device_runs_at_once(card):
    told = card.boot.parent / "told"
    card.stand_in("systemctl", f'echo "$*" >>{told}')
    card.put()
    assert card.start().returncode == 0
    assert not told.exists(), "without systemd nothing is started"
    (card.boot.parent / "systemd").mkdir()
    card.put(code="BAD", content=b"another")
    assert card.start().returncode == 1
    assert not told.exists()
    card.put(content=b"another")
    assert card.start().returncode == 0
    (line,) = told.read_text().splitlines()
    units = {path.stem for path in (ROOT / "firmware_configs/systemd").glob("*.service")}
    assert line.split()[:2] == ["--no-block", "restart"], "one that runs as another device is to stop being it"
    assert set(line.split()[2:]) == units
    card.stand_in("systemctl", "exit 1")
    card.put(content=b"a third")
    assert card.start().returncode == 0
    assert card.said() == BECOME


def test_a_board_without_a_screen_says_on_its_card_where_it_is(card):
    card.stand_in("hostname", 'if [ "${1:-}" = -I ]; then echo "10.1.2.3 fd00::7 "; else echo cxr-edge; fi')
    line = "Its name in the network is cxr-edge, its addresses: 10.1.2.3 fd00::7\n"
    card.put()
    card.start()
    for _ in range(2):
        assert card.start("cxr-address").returncode == 0
        assert card.said() == BECOME + line
    written = (card.boot / "cxr-edge-status.txt").stat().st_ino
    assert card.start("cxr-address").returncode == 0
    assert (card.boot / "cxr-edge-status.txt").stat().st_ino == written, "nothing new, nothing written"
    card.put(content=b"another")
    card.start()
    assert card.said() == BECOME + line, "a new sentence leaves the address"
    card.stand_in("hostname", 'if [ "${1:-}" = -I ]; then echo; else echo cxr-edge; fi')
    assert card.start("cxr-address").returncode == 0
    assert card.said() == BECOME + line, "without an address nothing is said"
    (card.boot / "cxr-edge-status.txt").unlink()
    card.stand_in("hostname", 'if [ "${1:-}" = -I ]; then echo 10.1.2.4; else echo cxr-edge; fi')
    assert card.start("cxr-address").returncode == 0
    assert card.said() == "Its name in the network is cxr-edge, its addresses: 10.1.2.4\n"


WIFI = "[connection]\nid=clinic\ntype=wifi\n\n[wifi]\nssid=Ward 7\n\n[wifi-security]\nkey-mgmt=wpa-psk\npsk=a password\n"


@pytest.fixture
def wifi(card):
    """A card whose NetworkManager is a stand-in; what it was told is in the file."""
    (card.boot.parent / "kept").mkdir()
    card.told = card.boot.parent / "told"
    card.stand_in("nmcli", f'echo "$*" >>{card.told}')
    card.stored = card.boot.parent / "kept/cxr-wifi.nmconnection"
    card.given = card.boot.parent / "run/system-connections/cxr-wifi.nmconnection"
    return card


def bring(card, text, encoding="utf-8"):
    (card.boot / "wifi.nmconnection").write_bytes(text.encode(encoding))
    return card.start("cxr-wifi")


def test_a_wifi_that_came_on_the_card_is_moved_off_it_and_given_to_networkmanager_at_each_start(wifi):
    done = bring(wifi, WIFI)
    assert (done.returncode, done.stderr) == (0, "")
    assert wifi.names() == ["cxr-edge-status.txt"], "a password does not stay on a partition that every computer reads"
    assert wifi.said() == "Wi-Fi: wifi.nmconnection was taken, and is no longer on this partition.\n"
    assert "password" not in done.stdout + wifi.said()
    for path in (wifi.stored, wifi.given):
        assert path.read_text() == WIFI
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, "NetworkManager takes no other"
    assert stat.S_IMODE(wifi.given.parent.parent.stat().st_mode) == 0o755, "others look for the name servers there"
    shutil.rmtree(wifi.given.parents[1])  # what is in memory is gone with the power
    assert wifi.start("cxr-wifi").returncode == 0
    assert wifi.given.read_text() == WIFI
    bring(wifi, WIFI.replace("Ward 7", "Ward 8"))
    assert wifi.given.read_text() == wifi.stored.read_text() == WIFI.replace("Ward 7", "Ward 8")
    assert wifi.told.read_text().splitlines() == ["connection reload"] * 3
    assert [path.name for path in wifi.given.parent.iterdir()] == ["cxr-wifi.nmconnection"]
    wifi.stored.unlink()
    wifi.given.unlink()
    assert wifi.start("cxr-wifi").returncode == 0
    assert not wifi.given.exists(), "forgotten"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        "\0" * 4096,
        WIFI.replace("type=wifi", "type=vpn"),
        WIFI.replace("ssid=Ward 7", "ssid="),
        WIFI.replace("[connection]", "[other]"),
        '{"ssid": "Ward 7", "type": "wifi"}',
    ],
)
def test_what_is_no_wifi_stays_on_the_card_with_a_sentence_and_the_former_one_goes_on(wifi, text):
    bring(wifi, WIFI)
    done = bring(wifi, text)
    assert done.returncode == 0
    assert wifi.names() == ["cxr-edge-status.txt", "wifi.nmconnection"]
    sentence = "Wi-Fi: wifi.nmconnection was not taken: it is no keyfile with type=wifi in [connection] and ssid= in [wifi]."
    assert wifi.said() == f"{sentence} Put it right.\n"
    assert wifi.given.read_text() == WIFI
    assert [path.name for path in wifi.stored.parent.iterdir()] == [wifi.stored.name]


def test_a_wifi_that_another_system_has_written_is_understood(wifi):
    bring(wifi, WIFI.replace("\n", "\r\n"), "utf-8-sig")
    assert wifi.given.read_bytes() == WIFI.encode()
    bring(wifi, WIFI.replace("=wifi", " = 802-11-wireless").replace("[wifi]", "[802-11-wireless]").replace("ssid=", "ssid = "))
    assert " was taken" in wifi.said()


def test_a_partition_that_cannot_be_written_to_costs_the_move_alone(wifi):
    wifi.stand_in("rm", "exit 1")
    done = bring(wifi, WIFI)
    assert (done.returncode, wifi.given.read_text()) == (0, WIFI)
    assert "remove wifi.nmconnection in a computer" in done.stderr
    wifi.stand_in("rm", 'exec /bin/rm "$@"')
    wifi.stand_in("sed", "exit 4")
    bring(wifi, WIFI.replace("Ward 7", "Ward 8"))
    assert wifi.given.read_text() == WIFI
    assert "wifi.nmconnection" in wifi.names()


def test_a_networkmanager_that_is_not_there_yet_stops_nothing(wifi):
    wifi.stand_in("nmcli", "exit 8")
    assert bring(wifi, WIFI).returncode == 0
    assert wifi.given.read_text() == WIFI


def test_a_wifi_and_what_the_card_became_are_both_told(wifi):
    line = "Wi-Fi: wifi.nmconnection was taken, and is no longer on this partition.\n"
    bring(wifi, WIFI)
    wifi.put()
    wifi.start()
    assert wifi.said() == BECOME + line
    wifi.stand_in("hostname", 'if [ "${1:-}" = -I ]; then echo 10.1.2.3; else echo cxr-edge; fi')
    wifi.start("cxr-address")
    bring(wifi, "hello")
    address = "Its name in the network is cxr-edge, its addresses: 10.1.2.3\n"
    assert wifi.said().startswith(BECOME + address + "Wi-Fi: wifi.nmconnection was not taken")
    assert wifi.said().count("Wi-Fi: ") == 1


def test_nothing_of_the_start_waits_for_a_wifi():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(FOLDER / "cxr-wifi.service")
    assert not {"After", "RequiredBy"} & (set(unit["Unit"]) | set(unit["Install"]))
    assert set(unit["Unit"]["Before"].split()) == {"cxr-first-boot.service", "cxr-address.service"}
    assert int(unit["Service"]["TimeoutStartSec"]) <= 60
    both = re.findall(r"^ConditionPathExists=(.*)$", (FOLDER / "cxr-wifi.service").read_text(), re.MULTILINE)
    assert both == ["|/boot/firmware/wifi.nmconnection", "|/var/lib/NetworkManager/cxr-wifi.nmconnection"]


def test_a_code_that_is_typed_wrongly_is_told_to_who_types_it(card):
    card.put(code=None)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"BAD\n")
        done = card.start(stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 1
    assert card.said() == "clinic-7.enrol was not taken: Group 2 of the code was mistyped. Nothing was changed.\n"
    assert "clinic-7.enrol" in card.names()


def test_after_a_power_cut_before_the_removal_nothing_is_enrolled_again(card):
    card.put()
    digest = hashlib.sha256(b"sealed").hexdigest()
    assert card.start().returncode == 0
    assert (card.settings / "enrolled-from.sha256").read_text().strip() == digest
    card.put()  # as if it had not been removed
    assert card.start().returncode == 0
    assert len(card.asked()) == 1, "an older key must not come back over a renewed one"
    assert card.names() == ["cxr-edge-status.txt"]
    card.put(content=b"another file of the same device")
    assert card.start().returncode == 0
    assert len(card.asked()) == 2


def test_two_files_are_one_too_many_and_none_is_told(card):
    card.put("clinic-7")
    card.put("clinic-8")
    assert card.start().returncode == 1
    assert "2 enrolment files" in card.said()
    for path in card.boot.iterdir():
        path.unlink()
    assert card.start().returncode == 1
    assert "no enrolment file" in card.said()
    assert card.asked() == []


@pytest.mark.parametrize(
    ("model", "architecture", "memory_mb", "chosen"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0", "aarch64", 416, "raspberry-pi-zero-2w"),
        ("Raspberry Pi 3 Model A Plus Rev 1.0", "aarch64", 416, "raspberry-pi-zero-2w"),
        ("Raspberry Pi 3 Model B Rev 1.2", "aarch64", 905, "raspberry-pi-3b-plus"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "aarch64", 905, "raspberry-pi-3b-plus"),
        ("Raspberry Pi Compute Module 3 Plus Rev 1.0", "aarch64", 905, "raspberry-pi-3b-plus"),
        ("Raspberry Pi 4 Model B Rev 1.1", "aarch64", 905, "raspberry-pi-3b-plus"),
        ("Raspberry Pi 4 Model B Rev 1.5", "aarch64", 1850, "raspberry-pi-4"),
        ("Raspberry Pi 4 Model B Rev 1.5", "aarch64", 7800, "raspberry-pi-4"),
        ("Raspberry Pi 400 Rev 1.0", "aarch64", 3790, "raspberry-pi-4"),
        ("Raspberry Pi Compute Module 4 Rev 1.0", "aarch64", 905, "raspberry-pi-3b-plus"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "aarch64", 1850, "raspberry-pi-4"),
        ("Raspberry Pi Compute Module 4S Rev 1.0", "aarch64", 1850, "raspberry-pi-4"),
        ("Raspberry Pi 5 Model B Rev 1.1", "aarch64", 990, "raspberry-pi-3b-plus"),
        ("Raspberry Pi 5 Model B Rev 1.0", "aarch64", 4040, "raspberry-pi-5"),
        ("Raspberry Pi 500 Rev 1.0", "aarch64", 8060, "raspberry-pi-5"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "aarch64", 2000, "raspberry-pi-5"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "aarch64", 7620, "jetson-orin-nano"),
        ("Raspberry Pi 2 Model B Rev 1.1", "armv7l", 920, "raspberry-pi-32bit"),
        ("Raspberry Pi 3 Model B Rev 1.2", "armv7l", 905, "raspberry-pi-32bit"),
        ("Raspberry Pi 4 Model B Rev 1.4", "armv7l", 3790, "raspberry-pi-32bit"),
        ("", "x86_64", 1850, "amd64"),
        # These have too little for any profile that names them.
        ("Raspberry Pi Zero 2 W Rev 1.0", "aarch64", 399, None),
        ("Raspberry Pi 3 Model A Plus Rev 1.0", "armv7l", 430, None),
        ("NVIDIA Jetson Orin Nano Developer Kit", "aarch64", 3100, None),
        ("", "x86_64", 1000, None),
        # These nothing names.
        ("Raspberry Pi Model B Plus Rev 1.2", "aarch64", 430, ""),
        ("Raspberry Pi 2 Model B Rev 1.2", "aarch64", 920, ""),
        ("Banana Pi 4", "aarch64", 4000, ""),
        ("", "aarch64", 4000, ""),
    ],
)
def test_a_card_and_the_installer_choose_the_same_profile_for_a_board(card, model, architecture, memory_mb, chosen):
    """chosen: None: the board has too little memory; an empty text: it is unknown."""
    shutil.rmtree(card.current / "profiles")
    shutil.copytree(PROFILES, card.current / "profiles")
    card.put()
    if model:
        card.model(model)
    else:
        (card.current.parent / "model").unlink()
    card.memory(memory_mb)
    card.stand_in("dpkg", "echo " + {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}[architecture])
    done = card.start()
    machine = Machine(True, architecture, "3.11", "2.36", memory_mb, model, lambda _path: 20_000)
    if chosen:
        assert (done.returncode, done.stderr) == (0, "")
        assert card.asked()[0].endswith(f" --profile {card.current}/profiles/{chosen}.toml")
        found = choose_profile(PROFILES, "", machine)
        assert found.stem == chosen
        require_board(read_board(found), machine)
        return
    assert done.returncode == 1
    assert card.asked() == []
    with pytest.raises(Refused) as caught:
        require_board(read_board(choose_profile(PROFILES, "", machine)), machine)
    theirs, ours = str(caught.value), card.said()
    if chosen is None:
        assert theirs.startswith(f"This board has {memory_mb} MB of memory, and ")
        assert theirs.partition(": ")[0] == ours.partition(": ")[0], "the same sentence, but for what to do about it"
    else:
        assert "no profile is known to be for it" in theirs
        assert ours.startswith("No profile is for this board (")


def test_a_profile_on_the_card_that_asks_for_more_memory_is_refused_but_not_for_a_device_that_has_its_own(card):
    card.put()
    asks = PROFILE.format(model="Raspberry Pi 4", architecture="aarch64") + "memory_mb = 1700  # MB\n[decode]\nmemory_mb = 1\n"
    (card.boot / "profile.toml").write_text("[decode]\nmemory_mb = 9999\n" + asks)
    assert card.start().returncode == 0
    card.put(content=b"another")
    card.memory(905)
    assert card.start().returncode == 1
    assert card.said() == (
        "This board has 905 MB of memory, and Raspberry Pi 4 needs 1700: use a board with more, or put the profile of a smaller "
        "one beside the enrolment file, as profile.toml.\n"
    )
    (card.settings / "device.toml").write_text("")
    assert card.start().returncode == 0


def test_a_start_that_is_cut_off_leaves_a_sentence_and_the_next_one_takes_the_file(card):
    """systemd tells all processes of a unit that has taken too long to end; so does a board that is being switched off."""
    works = card.program.read_text()
    card.program.write_text(f"#!/bin/sh\ntouch {card.boot.parent}/begun\nexec sleep 30\n")
    card.put()
    process = card.begin()
    wait_for((card.boot.parent / "begun").exists, "it enrols")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(20) == 1
    assert card.said().startswith("clinic-7.enrol was not taken: the board did not come to an end with it")
    assert {"clinic-7.enrol", "clinic-7.code"} <= set(card.names())
    card.program.write_text(works)
    assert card.start().returncode == 0
    assert card.said() == BECOME


def test_a_pc_has_no_device_tree_and_its_profile_all_the_same(card):
    card.put()
    (card.current.parent / "model").unlink()
    (card.current / "profiles/pc.toml").write_text(PROFILE.format(model="PC", architecture="x86_64"))
    card.stand_in("dpkg", "echo amd64")
    assert card.start().returncode == 0, card.said()
    assert card.asked()[0].endswith("/profiles/pc.toml")
    card.put(content=b"another")
    card.stand_in("dpkg", "echo arm64")
    assert card.start().returncode == 1, "a board of another kind that says nothing stays unknown"


def test_a_profile_on_the_card_goes_before_and_an_unknown_board_is_told(card):
    card.put()
    card.model("Another board")
    assert card.start().returncode == 1
    assert card.said() == "No profile is for this board (another board). Put one beside the enrolment file, as profile.toml.\n"
    (card.boot / "profile.toml").write_text("")
    assert card.start().returncode == 0
    assert card.asked()[0].endswith("/boot/profile.toml")
    assert card.names() == ["cxr-edge-status.txt", "profile.toml"]


def test_names_with_blanks_and_dashes_do_no_harm(card):
    card.put("-rf a b")
    assert card.start().returncode == 0, card.said()
    assert card.names() == ["cxr-edge-status.txt"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    done = subprocess.run([find_program("shellcheck", "shellcheck"), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_cloud_init_understands_the_user_data_and_nobody_gets_a_password():
    path = FOLDER / "user-data"
    program = find_program("cloud-init", "cloud-init")
    done = subprocess.run([program, "schema", "--config-file", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    text = path.read_text()
    settings = dict(line.split(": ", 1) for line in text.splitlines() if re.match(r"^ *[a-z_]+: ", line))
    settings = {key.strip(): value for key, value in settings.items()}
    assert (settings["lock_passwd"], settings["ssh_pwauth"], settings["disable_root"]) == ("true", "false", "true")
    assert not re.search(r"^ *(passwd|hashed_passwd|plain_text_passwd|chpasswd|password)\s*:", text, re.MULTILINE)
    keys = re.findall(r"^ *- (ssh-\S+ \S+)", text, re.MULTILINE)
    assert keys == ["ssh-ed25519 PUT-YOUR-PUBLIC-KEY-HERE"], "no key of anybody is in an image"


def test_the_mount_of_the_data_partition_waits_longer_than_its_making_may_take():
    """At the first boot; a mount that gave up meanwhile would leave the card without its software until the next start."""
    unit = (FOLDER / "cxr-data-partition.service").read_text()
    (making,) = re.findall(r"^TimeoutStartSec=(\d+)$", unit, re.MULTILINE)
    (waiting,) = re.findall(r"x-systemd\.device-timeout=(\d+)s", (FOLDER / "fstab").read_text())
    assert int(waiting) > int(making)


def test_a_card_is_in_the_network_of_whatever_board_it_is_in():
    """What cloud-init writes for a network names the socket of the board that the card was first started in."""
    text = (FOLDER / "cloud.cfg").read_text()
    assert re.search(r"^network:\n  config: disabled$", text, re.MULTILINE)
    opened = (FOLDER / "cxr-open-root.service").read_text()
    started = re.findall(r"^ExecStart=(.*)$", opened, re.MULTILINE)
    assert started[0].endswith("remount,rw /")
    assert started[-1].endswith(" /run/NetworkManager/resolv.conf /etc/resolv.conf"), (
        "a read-only root keeps what it was exported with"
    )


def test_a_power_cut_in_the_first_boot_leaves_nothing_of_cloud_init_out():
    """It notes each step before it is done; and that all are done is noted when they are on the card."""
    opened = (FOLDER / "cxr-open-root.service").read_text()
    (removed,) = re.findall(r"^ExecStart=/usr/bin/rm (.*)$", opened, re.MULTILINE)
    assert {"/var/lib/cloud/instance", "/var/lib/cloud/instances", "/var/lib/cloud/sem"} <= set(removed.split())
    assert "\nBefore=" in opened
    assert "cloud-init-local.service" in opened.partition("\nBefore=")[2].partition("\n")[0].split()
    last = re.findall(r"^  - \[(.*)\]$", (FOLDER / "user-data").read_text().partition("runcmd:")[2], re.MULTILINE)
    assert last == ["sync", "touch, /etc/cloud/cloud-init.disabled", "sync"]


def test_what_changes_on_a_card_lies_on_the_data_partition_and_may_be_missing_at_boot(tmp_path):
    """systemd's own generator makes mounts of the lines; the root needs none of them to start."""
    places = ["/usr/lib/systemd/system-generators", "/lib/systemd/system-generators"]
    generator = find_program("systemd-fstab-generator", "systemd", places)
    environment = os.environ | {"SYSTEMD_FSTAB": str(FOLDER / "fstab")}
    folders = [str(tmp_path / name) for name in ("normal", "early", "late")]
    for folder in folders:
        Path(folder).mkdir()
    done = subprocess.run([generator, *folders], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    mounts = {}
    for path in (tmp_path / "normal").glob("*.mount"):
        made = configparser.RawConfigParser(strict=False)
        made.optionxform = str
        made.read(path)
        mounts[made["Mount"]["Where"]] = made
    assert {at for at, made in mounts.items() if made["Mount"]["What"] != "tmpfs"} == {"/data", *BINDS}
    for at, source in BINDS.items():
        made = mounts[at]
        assert made["Mount"]["What"] == source
        options = set(made["Mount"]["Options"].split(","))
        assert {"bind", "nodev", "nosuid"} <= options
        assert ("noexec" in options) == (at != "/opt/cxr-edge"), "software is run from there, and from nowhere else"
        assert "/data" in made["Unit"]["RequiresMountsFor"]
    needed = {path.name for path in (tmp_path / "normal").glob("local-fs.target.requires/*")}
    assert needed <= {"tmp.mount", "var-tmp.mount"}, "a card without its data partition can still be logged into"


def test_what_needs_the_boot_partition_asks_for_its_mount_itself():
    """Nothing else waits for it: a device whose boot partition is damaged is to serve."""
    needing = {path.name for path in SCRIPTS if "/boot/firmware" in path.read_text()}
    for path in [*FOLDER.glob("*.service"), FOLDER / "cloud-init-local.conf"]:
        text = path.read_text()
        started = {Path(words.split()[0]).name for words in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)}
        asked = re.findall(r"^RequiresMountsFor=(.*)$", text, re.MULTILINE)
        if started & needing or path.suffix == ".conf":
            assert any("/boot/firmware" in words.split() for words in asked), path.name
            needing -= started
    assert not needing, "each script is started by a unit"
    for path in (ROOT / "firmware_configs/systemd").iterdir():
        assert path.is_dir() or "/boot/" not in path.read_text(), path.name


def test_nothing_waits_for_the_time_or_the_network():
    for path in [*FOLDER.iterdir(), *(ROOT / "firmware_configs/systemd").iterdir()]:
        words = " ".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
        assert "time-sync.target" not in words, path.name
        assert "network-online.target" not in words, path.name


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_each_unit_of_the_card(path, tmp_path):
    for one in FOLDER.iterdir():
        text = re.sub(r"^ExecStart=/usr/local/sbin/\S+", "ExecStart=/bin/true", one.read_text(), flags=re.MULTILINE)
        (tmp_path / one.name).write_text(text)
    program = find_program("systemd-analyze", "systemd")
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / path.name)], env=environment, capture_output=True, text=True, check=False
    )
    assert not [line for line in done.stderr.splitlines() if path.name in line], done.stderr
    assert done.returncode == 0, done.stderr


def test_each_program_that_a_unit_starts_is_here():
    for path in FOLDER.glob("*.service"):
        for program in re.findall(r"^ExecStart=/usr/local/sbin/(\S+)", path.read_text(), re.MULTILINE):
            assert os.access(FOLDER / program, os.X_OK), program


def test_the_watchdog_is_one_that_a_raspberry_pi_has():
    text = (FOLDER / "watchdog.conf").read_text()
    limits = re.findall(r"^\w+WatchdogSec=(\d+)s$", text, re.MULTILINE)
    assert limits == ["14", "14"]


def test_updates_are_those_of_security_and_touch_nothing_that_the_card_starts_with(tmp_path):
    program = find_program("apt-config", "apt")
    done = subprocess.run(
        [program, "dump", "--config-file", str(FOLDER / "apt-upgrades.conf")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r'^Unattended-Upgrade::(Origins-Pattern|Package-Blacklist):: "(.*)";$', done.stdout, re.MULTILINE)
    assert [value for key, value in found if key == "Origins-Pattern"] == [
        "origin=Debian,codename=${distro_codename}-security,label=Debian-Security"
    ]
    answers = re.findall(r'^DPkg::Options:: "(.*)";$', done.stdout, re.MULTILINE | re.IGNORECASE)
    assert answers == ["--force-confdef", "--force-confold"], "nobody is there to be asked"
    never = [value for key, value in found if key == "Package-Blacklist"]
    for package in ("linux-image-6.6.0-rpi-v8", "raspi-firmware", "rpi-eeprom"):
        assert any(re.match(pattern, package) for pattern in never), package
    assert not any(re.match(pattern, "openssl") for pattern in never)


def test_a_stick_is_mounted_so_that_nothing_on_it_runs():
    text = (FOLDER / "media-cxr.mount").read_text()
    options = text.partition("\nOptions=")[2].partition("\n")[0].split(",")
    assert {"noexec", "nosuid", "nodev", "sync"} <= set(options)
    assert "\nType=vfat,exfat\n" in text, "no other file system is read, whoever starts the mount"
    rule = (FOLDER / "80-cxr-stick.rules").read_text()
    for word in ('ENV{ID_BUS}=="usb"', 'ENV{ID_FS_LABEL}=="CXR"', 'ENV{ID_FS_TYPE}=="vfat|exfat"', "media-cxr.mount"):
        assert word in rule


def test_the_firewall_needs_nothing_of_the_data_partition_and_additions_wait_for_it():
    rules = [line for line in (FOLDER / "nftables.conf").read_text().splitlines() if not line.strip().startswith("#")]
    assert not [line for line in rules if "include" in line]
    additions = configparser.RawConfigParser(strict=False)
    additions.read(FOLDER / "cxr-firewall-additions.service")
    assert additions["Unit"]["RequiresMountsFor"] == "/etc/cxr-edge"
    assert additions["Unit"]["After"] == "nftables.service"
    assert additions["Unit"]["PartOf"] == "nftables.service", "loaded anew, the base rules are all that there is"


def test_after_updates_the_devices_own_units_are_started_again_and_no_others(card, tmp_path):
    """Not by a pattern: it would also start again the unit that this is, and the ones that are done."""
    told = tmp_path / "told"
    for name in ("mount", "sync", "apt-get", "unattended-upgrade"):
        card.stand_in(name, "exit 0")
    card.stand_in("dpkg", 'test "$DEBIAN_FRONTEND $*" = "noninteractive --force-confdef --force-confold --configure --pending"')
    card.stand_in("systemctl", f'echo "$*" >>{told}')
    assert card.start("cxr-maintenance").returncode == 0
    (line,) = told.read_text().splitlines()
    assert line.split()[:2] == ["--no-block", "try-restart"]
    assert set(line.split()[2:]) == {path.name for path in (ROOT / "firmware_configs/systemd").glob("*.service")}
