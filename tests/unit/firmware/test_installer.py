"""What the installer decides, with machines and managers that are made up; tests/boards runs it for real."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.commands.setup_device import set_up
from firmware_configs.installer import account, checks, units
from firmware_configs.installer.boards import Board, choose_profile
from firmware_configs.installer.device import problems
from firmware_configs.installer.errors import Refused
from firmware_configs.installer.install import Installation, Request
from firmware_configs.installer.machine import Machine, _architecture
from firmware_configs.installer.package import Package, open_package
from firmware_configs.installer.places import Places
from firmware_configs.installer.summary import summary
from firmware_configs.installer.trial import Change, Trial, read_trial
from tests.support.processes import find_program
from tests.support.small_package import small_package, write_sums

MACHINE = Machine(True, "aarch64", "3.11", "2.36", 1800, "Raspberry Pi 4 Model B Rev 1.4", lambda _path: 20_000)
PACKAGE = Package(Path("/p"), "1.0", "aarch64", "3.11", False, "2.34", 250, "ab" * 32)
BOARD = Board("Raspberry Pi 4", "aarch64", 1700, 4096)


def require_all(package, board, machine, first):
    checks.require_root(machine)
    checks.require_system(package, machine)
    checks.require_board(board, machine)
    checks.require_room(package, board, machine, Places(Path("/")), first=first)


def refusal(package=PACKAGE, board=BOARD, first=True, **facts):
    machine = dataclasses.replace(MACHINE, **facts)
    with pytest.raises(Refused) as caught:
        require_all(package, board, machine, first)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


def test_a_board_that_fits_is_taken():
    require_all(PACKAGE, BOARD, MACHINE, first=True)


def test_what_does_not_fit_is_refused_with_one_sentence_that_says_what_to_do():
    assert refusal(is_root=False) == "Only root can install: run it again with sudo."
    assert refusal(architecture="x86_64") == (
        "This package is for aarch64, and this is an x86_64 machine: take the one for x86_64."
    )
    assert refusal(python="3.13") == (
        "This package is for Python 3.11, and this system has 3.13: take the one whose name ends in py313."
    )
    assert refusal(glibc="2.31") == "This system's C library is 2.31, and 2.34 is needed: use a newer system."
    assert refusal(memory_mb=905) == (
        "This board has 905 MB of memory, and Raspberry Pi 4 needs 1700: use a board with more, or the profile of a smaller one."
    )
    assert refusal(free_mb=lambda _path: 439).endswith(" has 439 MB free, and 4096 MB are needed: make room, or use a larger card.")
    assert "that profile is for" in refusal(board=dataclasses.replace(BOARD, architecture="armv7l")).lower()


def test_glibc_is_compared_as_numbers():
    checks.require_system(dataclasses.replace(PACKAGE, glibc="2.9"), MACHINE)


def test_an_upgrade_asks_for_the_room_of_the_software_alone():
    machine = dataclasses.replace(MACHINE, free_mb=lambda _path: 600)
    checks.require_room(PACKAGE, BOARD, machine, Places(Path("/")), first=False)
    assert "are needed" in refusal(first=False, free_mb=lambda _path: 300)


def test_a_32_bit_system_on_a_64_bit_kernel_is_32_bit():
    assert _architecture("aarch64", 4) == "armv7l"
    assert _architecture("aarch64", 8) == "aarch64"
    assert _architecture("armv8l", 4) == "armv7l"
    assert _architecture("x86_64", 8) == "x86_64"


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EROFS, "is read-only"), (errno.ENOSPC, "is full"), (errno.EIO, "does not work")]
)
def test_what_a_disk_says_is_told_in_one_sentence(number, words):
    said = checks.disk_trouble(OSError(number, "x"), Path("/opt"))
    assert f"The card {words}" in said
    assert said.endswith(".")


def test_a_board_that_nobody_knows_is_told_which_profiles_there_are():
    machine = dataclasses.replace(MACHINE, model="Banana Board 2")
    profiles = Path(__file__).resolve().parents[3] / "firmware_configs/profiles"
    with pytest.raises(Refused, match=r"This is Banana Board 2, and no profile .* raspberry-pi-4, raspberry-pi-5"):
        choose_profile(profiles, "", machine)
    assert choose_profile(profiles, "raspberry-pi-5", machine).stem == "raspberry-pi-5"
    with pytest.raises(Refused, match="There is no profile nothing"):
        choose_profile(profiles, "nothing", machine)


@pytest.fixture
def package(tmp_path):
    pip = tmp_path / "pip-1-py3-none-any.whl"
    pip.write_bytes(b"")
    return small_package(tmp_path / "package", pip, "1.0")


def test_a_package_that_is_whole_is_opened(package):
    (package / "clinic-1.enrol").write_text("what somebody has put beside it")
    opened = open_package(package)
    assert opened.version == "1.0"
    assert opened.name == f"1.0-{opened.sums[:12]}"


@pytest.mark.parametrize("name", ["requirements.txt", "installer/main.py", "systemd/cxr-infer.service", "package.json"])
def test_a_package_with_one_changed_or_missing_file_is_refused(package, name):
    content = (package / name).read_bytes()
    (package / name).write_bytes(content + b" ")
    with pytest.raises(Refused, match=f"damaged .*{Path(name).name}"):
        open_package(package)
    (package / name).unlink()
    with pytest.raises(Refused, match="damaged"):
        open_package(package)


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b"\xff\xfe"])
def test_a_package_that_does_not_say_what_it_is_for_is_refused(package, content):
    (package / "package.json").write_bytes(content)
    write_sums(package)
    with pytest.raises(Refused, match="damaged"):
        open_package(package)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xfe"])
def test_a_list_of_sums_that_was_cut_off_is_no_reason_to_look_at_nothing(package, content):
    (package / "SHA256SUMS").write_bytes(content)
    with pytest.raises(Refused, match="damaged"):
        open_package(package)


class Manager:
    """systemd, as far as the installer sees it: units of some versions do not come up."""

    running = True

    def __init__(self, places, broken="", down=()):
        self.places, self.broken, self.down, self.told = places, broken, down, []

    def reload(self):
        self.told.append("reload")

    def restart(self, names: Sequence[str]):
        self.told.append(f"restart {self.places.current_name()}")

    def stop(self, names: Sequence[str]):
        self.told.append(f"stop {self.places.current_name()}")

    def idle(self, names: Sequence[str]):
        return [name for name in names if name in self.down or (self.broken and self.places.current_name() == self.broken)]


class Software:
    """What an installed version answers."""

    reads = True

    def __init__(self, version, places):
        self.version = version

    def trouble(self):
        return ""

    def reads_outbox(self):
        return Software.reads


@pytest.fixture
def board(tmp_path):
    """A board with `old` in service and `new` beside it, whose units differ."""
    places = Places(tmp_path)
    for name in ("old", "new", "older"):
        version = places.versions / name
        (version / "systemd").mkdir(parents=True)
        (version / "systemd/cxr-infer.service").write_text(f"# {name}\n[Install]\nWantedBy=multi-user.target\n")
        (version / ".complete").write_text("")
    (places.versions / "new/systemd/cxr-new.service").write_text("[Service]\n")
    (places.versions / "new/systemd/cxr-dicom.service").write_text("[Install]\nWantedBy=multi-user.target\n")
    places.config.mkdir(parents=True)
    places.units.mkdir(parents=True)
    places.device_toml.write_text('device = "clinic-1"\nfacility = "Clinic 1"\n[dicom]\n')
    Change(places, Manager(places), 0.1, Software).switch("old")
    return places


def test_the_units_that_a_device_starts_are_those_of_its_tables_and_without_device_toml_all(board):
    version = board.versions / "new"
    for name in ("watch", "relay", "page", "pacs"):
        (version / f"systemd/cxr-{name}.service").write_text("[Install]\nWantedBy=multi-user.target\n")
    always = {"cxr-watch.service", "cxr-infer.service", "cxr-relay.service"}
    board.device_toml.write_text("[dicom]\n")
    assert set(units.wanted_units(version, board)) == always | {"cxr-dicom.service"}
    board.device_toml.write_text("[page]\n")
    assert set(units.wanted_units(version, board)) == always | {"cxr-page.service"}
    units.put_links(version, board)
    wants = board.units / "multi-user.target.wants"
    assert {path.name for path in wants.iterdir()} == always | {"cxr-page.service"}
    board.device_toml.unlink()  # a card of --image: which tables there will be is not known
    units.put_links(version, board)
    assert {path.name for path in wants.iterdir()} == always | {f"cxr-{name}.service" for name in ("page", "dicom", "pacs")}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(
        "firmware_configs.installer.trial.wait_until_serving",
        lambda manager, names, patience: units.wait_until_serving(manager, names, patience, steady_s=0.02),
    )
    monkeypatch.setattr(Software, "reads", True)


def unit(places):
    return (places.units / "cxr-infer.service").read_text().split()[1]


def test_a_new_version_that_serves_is_confirmed_and_only_the_one_before_is_kept(board):
    manager = Manager(board)
    change = Change(board, manager, 0.1, Software)
    trial = change.begin("new")
    assert read_trial(board) == Trial("old", "new")
    assert json.loads(board.trial.read_bytes()) == {"before": "old", "after": "new"}, "what every earlier version can read"
    change.switch("new")
    change.start("new")
    assert change.settle() == "The new version new works and stays in service."
    assert (board.current_name(), unit(board), read_trial(board)) == ("new", "new", None)
    assert sorted(path.name for path in board.versions.iterdir()) == ["new", "old"]
    assert manager.told == ["reload", "restart new"]
    assert trial.before == "old"
    links = {path.name for path in (board.units / "multi-user.target.wants").iterdir()}
    assert links == {"cxr-infer.service", "cxr-dicom.service"}, "[dicom] is in device.toml, and the new version has its unit"


def test_a_version_whose_units_do_not_serve_is_left_again_with_its_units(board):
    manager = Manager(board, broken="new")
    change = Change(board, manager, 0.1, Software)
    change.begin("new")
    change.switch("new")
    said = change.settle()
    assert "cxr-infer.service, cxr-dicom.service did not serve within 0 s" in said
    assert "The earlier version old is in service again, with every result." in said
    assert (board.current_name(), unit(board), read_trial(board)) == ("old", "old", None)
    assert not (board.units / "cxr-new.service").exists()
    assert not (board.versions / "new").exists()
    assert manager.told == ["stop new", "reload", "restart old"]


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_unit_that_did_not_serve_before_is_no_reason_against_a_new_version_and_any_other_is(board, cut_off):
    """As where a share is not mounted: no version puts that right."""
    (board.versions / "old/systemd/cxr-dicom.service").write_text("[Install]\nWantedBy=multi-user.target\n")
    manager = Manager(board, down=("cxr-dicom.service",))
    change = Change(board, manager, 0.1, Software)
    trial = change.begin("new")
    assert trial == read_trial(board) == Trial("old", "new", ("cxr-dicom.service",))
    change.switch("new")
    if cut_off:
        trial = Change(board, manager, 0.1, Software).begin("new")
    assert change.trouble(trial) == ""
    manager.down = ("cxr-dicom.service", "cxr-infer.service")
    assert change.trouble(trial) == "cxr-infer.service did not serve within 0 s"
    assert "The earlier version old is in service again" in change.settle()


def test_units_that_come_and_go_before_an_upgrade_are_asked_to_serve_after_it(board, monkeypatch):
    monkeypatch.setattr("firmware_configs.installer.trial.wait_until_serving", lambda manager, names, patience: list(names))
    assert Change(board, Manager(board), 0.1, Software).begin("new").idle == ()


def test_a_trial_that_an_earlier_version_began_is_read(board):
    board.trial.write_text('{"before": "old", "after": "new"}')
    assert read_trial(board) == Trial("old", "new")


def test_on_a_card_with_a_read_only_root_the_link_goes_back_alone(board, monkeypatch):
    change = Change(board, Manager(board, broken="new"), 0.1, Software)
    change.begin("new")
    change.switch("new")

    def refuse(version, places):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("firmware_configs.installer.trial.put_files", refuse)
    assert "The earlier version old is in service again" in change.settle()
    assert (board.current_name(), unit(board), read_trial(board)) == ("old", "new", None)
    assert units.differing(board.versions / "old", board), "the next run sees it"


def test_there_is_no_way_back_to_a_version_that_cannot_read_the_outbox(board, monkeypatch):
    monkeypatch.setattr(Software, "reads", False)
    change = Change(board, Manager(board, broken="new"), 0.1, Software)
    change.begin("new")
    change.switch("new")
    assert "cannot read what the new one has written: the new one stays in service" in change.settle()
    assert (board.current_name(), read_trial(board)) == ("new", None)
    assert (board.versions / "old").exists()


def test_a_change_that_was_cut_off_before_its_switch_is_taken_back(board):
    change = Change(board, Manager(board), 0.1, Software)
    change.begin("new")
    units.put_files(board.versions / "new", board)
    assert unit(board) == "new"
    assert change.settle() == "A change to new was cut off before it was made; old is in service."
    assert (board.current_name(), unit(board), read_trial(board)) == ("old", "old", None)


def test_who_was_in_service_before_an_unended_trial_stays_the_one_to_go_back_to(board):
    change = Change(board, Manager(board), 0.1, Software)
    change.begin("new")
    change.switch("new")
    assert change.begin("older") == Trial("old", "older")


def test_nothing_is_settled_where_nothing_is_open(board):
    assert Change(board, Manager(board), 0.1, Software).settle() == ""


def test_a_unit_whose_table_has_gone_no_longer_starts_with_the_board(board):
    change = Change(board, Manager(board), 0.1, Software)
    change.switch("new")
    link = board.units / "multi-user.target.wants/cxr-dicom.service"
    assert link.readlink() == Path("/etc/systemd/system/cxr-dicom.service")
    board.device_toml.write_text('device = "clinic-1"\n')
    change.switch("new")
    assert not link.is_symlink()
    assert not units.mislinked(board.versions / "new", board)


def test_what_a_member_of_the_group_puts_into_the_inbox_is_of_the_group(tmp_path):
    places = Places(tmp_path)
    (inbox,) = [folder for folder in account.folders(places) if folder.path == places.inbox]
    assert (inbox.mode, inbox.group) == (0o2770, "cxr-edge")
    here = dataclasses.replace(inbox, path=tmp_path / "inbox", owner="root", group="daemon")
    if os.getuid() == 0:
        here.make()
        (here.path / "film").write_bytes(b"")
        assert (here.path / "film").group() == "daemon"


@pytest.fixture
def install(board, monkeypatch):
    """Installs the package, whose version is unpacked already, and returns what is said."""
    (board.versions / "new").rename(board.versions / PACKAGE.name)
    monkeypatch.setattr("firmware_configs.installer.account.has_user", lambda: True)
    monkeypatch.setattr("firmware_configs.installer.account.folders", lambda places: ())
    for name, answer in {"enrol": None, "missing": [], "trouble": ""}.items():
        monkeypatch.setattr(f"firmware_configs.installer.install.Device.{name}", lambda *_, answer=answer: answer)
    for folder in (board.state, board.inbox, board.journald, board.command.parent):
        folder.mkdir(parents=True, exist_ok=True)

    def run(manager, **asked):
        said: list[str] = []
        change = Change(board, manager, 0.1, Software)
        Installation(Request(**asked), PACKAGE, MACHINE, board, manager, change, said.append).run()
        return said

    return run


def test_a_running_board_that_is_enrolled_again_is_started_again(board, install, tmp_path):
    manager = Manager(board)
    Change(board, manager, 0.1, Software).switch(PACKAGE.name)
    file = tmp_path / "clinic-1.enrol"
    for content in (b"first", b"renewed"):
        file.write_bytes(content)
        assert "would be this version in service" in install(manager, enrol=file, dry_run=True)
        assert manager.told == []
        assert "done     this version in service" in install(manager, enrol=file)
        assert manager.told == ["reload", f"restart {PACKAGE.name}"]
        manager.told.clear()
        assert "as it is this version in service" in install(manager, enrol=file)
        assert manager.told == []


@pytest.mark.parametrize("running", [True, False])
def test_who_upgrades_is_told_that_it_may_take_minutes(board, install, running):
    manager = Manager(board)
    manager.running = running
    said = install(manager)
    assert board.current_name() == PACKAGE.name
    assert any("takes up to ten minutes" in line for line in said[: said.index("done     this version in service")]) == running


def test_the_units_of_a_golden_card_are_not_taken_for_what_an_older_version_has_left(board):
    (board.versions / "new/first-boot").mkdir()
    (board.versions / "new/first-boot/cxr-data-partition.service").write_text("[Service]\n")
    for name in ("cxr-data-partition.service", "cxr-older.service"):
        (board.units / name).write_text("[Service]\n")
    Change(board, Manager(board), 0.1, Software).switch("new")
    assert (board.units / "cxr-data-partition.service").exists(), "without it the card has no data"
    assert not (board.units / "cxr-older.service").exists()


def test_units_that_come_and_go_do_not_count_as_serving():
    class Restless:
        running = True
        asked = 0

        def idle(self, names):
            Restless.asked += 1
            return ["cxr-infer.service"] if Restless.asked % 2 == 0 else []

    assert units.wait_until_serving(Restless(), ["cxr-infer.service"], 0.3, steady_s=0.2) == ["cxr-infer.service"]


def test_the_problems_of_the_device_own_check_are_told(tmp_path):
    """The real command, so that its words and what is looked for in them stay the same."""
    set_up(tmp_path, "clinic-1", "Clinic 1", "mqtt://127.0.0.1:1")
    (tmp_path / "inbox").rmdir()
    (tmp_path / "site.key").unlink()
    done = check_in(tmp_path)
    assert done.returncode == 1
    assert problems(done.stdout) == [
        f"watched folder: {tmp_path}/inbox is not there. Make the folder, or mount the disk or share that holds it.",
        "site key: No X-ray is read before the site's key is typed from its paper: "
        f"cxr-edge key restore --config {tmp_path}/device.toml",
    ]
    assert problems("cxr-edge: device.toml: no such key\n") == ["cxr-edge: device.toml: no such key"]


def check_in(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.cli", "check", "--config", str(folder / "device.toml"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_surrounds_the_device_is_no_reason_against_a_version_and_what_it_answers_for_itself_is(tmp_path):
    """The real command: what the installer asks before and after it takes a version into service."""
    set_up(tmp_path, "clinic-1", "Clinic 1", "mqtts://127.0.0.1:1")  # no certificate either
    (tmp_path / "inbox").rmdir()
    (tmp_path / "site.key").unlink()
    (tmp_path / "page.pin").unlink()
    assert check_in(tmp_path).returncode == 1
    done = check_in(tmp_path, "--software")
    assert done.returncode == 0, done.stdout
    assert "golden inputs give the scores expected" in done.stdout

    config = tmp_path / "device.toml"
    right = config.read_text()
    config.write_text(f'{right}\n[model]\nbundle = "{tmp_path}"\n')
    assert check_in(tmp_path, "--software").returncode == 1
    config.write_text(f"{right}\n[none-such]\n")
    assert check_in(tmp_path, "--software").returncode != 0


def test_systemd_understands_the_unit_that_ends_a_trial(tmp_path):
    path = Path(units.__file__).with_name(units.CONFIRM)
    (tmp_path / path.name).write_text(path.read_text().replace("/opt/cxr-edge/current/install.sh", "/bin/true"))
    program = find_program("systemd-analyze", "systemd")
    done = subprocess.run([program, "verify", "--man=no", str(tmp_path / path.name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_end_says_who_this_is_and_where_the_page_is(board):
    board.device_toml.write_text(
        'device = "clinic-1"\nfacility = "Clinic 1"\n[page]\npin = "/etc/cxr-edge/page.pin"\naddress = "192.168.1.10"\nport = 80\n'
    )
    text = "\n".join(summary(board, Manager(board), ["site key: type it"], enrolled=True))
    assert "This board is clinic-1 of Clinic 1." in text
    assert "http://192.168.1.10:80    the PIN is in /etc/cxr-edge/page.pin" in text
    assert "--to-the-centre" in text
    assert "Still to be done, as root:\n           site key: type it\n" in text
    assert "Still to be done" not in "\n".join(summary(board, Manager(board), [], enrolled=True))
