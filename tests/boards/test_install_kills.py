"""The installer killed at every step of an installation, an upgrade and a return, in a Debian root.

Before each system call by which it changes a name it is killed once: with SIGKILL, as a power cut would end it. What is between two
such calls changes nothing that counts: files get their names when they are whole and on the disk. The software is a stand-in that
installs in a second; virtual environment, pip, units and links are real. At the end, what else is quick to see with it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware_configs.wheelhouse.fetch import fetched_pip
from tests.support.board_root import Board, board, debian_root, layer_of
from tests.support.small_package import small_package

CALLS = "rename,renameat,renameat2,unlink,unlinkat,symlink,symlinkat,mkdir,mkdirat,rmdir"
ENROL = ("--enrol", "/root/enrol", "--code-file", "/root/code", "--profile", "/root/board.toml")
_LINE = re.compile(r"(\w+)\((.*)\) += ")


@dataclass(frozen=True)
class Call:
    """The `number`th call of this name in a run, and what it was about."""

    name: str
    number: int
    about: str


@pytest.fixture(scope="module")
def root() -> Path:
    return debian_root(packages=("python3", "strace"))


@pytest.fixture(scope="module")
def empty(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board with three packages lying on it, nothing installed."""
    folder = tmp_path_factory.mktemp("empty")
    pip = fetched_pip()
    with board(root, folder / "board", keep=True) as made:
        for version in ("1.0", "2.0", "3.0"):
            made.put(small_package(folder / version, pip, version, broken=version == "3.0"), f"/root/{version}")
        made.write("/root/enrol", "sealed\n")
        made.write("/root/code", "right\n")
        made.write("/root/board.toml", "")
    return layer_of(folder / "board")


@pytest.fixture(scope="module")
def first(root: Path, empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That board with version 1.0 in service, and an older one that has not been removed."""
    folder = tmp_path_factory.mktemp("first")
    with board(root, folder, [empty], keep=True) as made:
        install(made, "1.0", *ENROL)
        made.must("sh", "-c", "mkdir /opt/cxr-edge/versions/0.9-old && touch /opt/cxr-edge/versions/0.9-old/.complete")
        made.must("sh", "-c", "printf 1.0 >/var/lib/cxr-edge/outbox.db && chown cxr-edge: /var/lib/cxr-edge/outbox.db")
    return layer_of(folder)


def with_software(root: Path, folder: Path, layers: list[Path], version: str) -> Path:
    """Those layers with the software of a version complete, and nothing changed to it: where a run of the installer is then."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from installer.package import open_package\n"
        "from installer.versions import build_version; from installer.places import Places\n"
        "build_version(open_package(Path(sys.argv[1])), Places())"
    )
    with board(root, folder, layers, keep=True) as made:
        made.must("python3", "-I", "-B", "-c", script, f"/root/{version}")
    return layer_of(folder)


@pytest.fixture(scope="module")
def unpacked(root: Path, empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_software(root, tmp_path_factory.mktemp("unpacked"), [empty], "1.0")


@pytest.fixture(scope="module")
def built(root: Path, empty: Path, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_software(root, tmp_path_factory.mktemp("built"), [first, empty], "2.0")


@pytest.fixture(scope="module")
def broken(root: Path, empty: Path, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 3.0 does not work."""
    return with_software(root, tmp_path_factory.mktemp("broken"), [first, empty], "3.0")


def install(made: Board, version: str, *options: str) -> str:
    return made.must(f"/root/{version}/install.sh", *options)


def traced(made: Board, command: list[str]) -> list[Call]:
    """Run the installer to its end and return the calls by which it changes names, in order."""
    made.must("sh", "-c", 'strace -qq -o /run/calls -e "trace=$0" "$@" || [ $? -le 2 ]', CALLS, *command)
    counted: Counter[str] = Counter()
    calls = []
    for line in made.read("/run/calls").splitlines():
        if found := _LINE.match(line):
            counted[found[1]] += 1
            calls.append(Call(found[1], counted[found[1]], found[2]))
    return calls


def killed(made: Board, command: list[str], call: Call) -> None:
    """Run the installer and kill it just before that call."""
    inject = f"inject={call.name}:signal=KILL:when={call.number}"
    done = made.run("strace", "-qq", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", inject, *command)
    assert done.returncode in {137, -9}, f"it was not killed at {call}: {done.returncode} {done.stdout}"


def in_service(made: Board) -> str:
    """Return which version answers, after comparing the units with those that it brought."""
    return made.must("/opt/cxr-edge/current/bin/cxr-edge", "--version").split()[1]


def require_at_rest(made: Board) -> None:
    """Nothing is half done, and the units are those of the version in service."""
    assert made.run("test", "-e", "/opt/cxr-edge/trial").returncode == 1
    assert not made.must("sh", "-c", 'for one in /opt/cxr-edge/versions/*; do [ -e "$one/.complete" ] || echo "$one"; done')
    assert not made.must("find", "/opt/cxr-edge", "/etc", "-name", "*.part")
    same = 'for one in /opt/cxr-edge/current/systemd/*; do cmp "$one" "/etc/systemd/system/${one##*/}" || exit 1; done'
    made.must("sh", "-c", same)


def some_that_unpack(calls: list[Call]) -> list[Call]:
    """Of the calls that fill the folder of a new version four: until its last all are the same, a folder that is not complete."""
    filling = [call for call in calls if "/versions/2.0-" in call.about]
    assert ".complete" in filling[-1].about
    return [filling[0], filling[1], filling[len(filling) // 2], filling[-1]]


def test_a_first_installation_killed_at_every_step_is_finished_by_the_next_run(
    root: Path, empty: Path, unpacked: Path, tmp_path: Path
) -> None:
    command = ["python3", "-I", "-B", "-c", _START, "/root/1.0", *ENROL]
    with board(root, tmp_path / "calls", [unpacked, empty]) as made:
        calls = traced(made, command)
        require_at_rest(made)
    assert len(calls) > 15
    print(f"{len(calls)} steps of a first installation")
    for number, call in enumerate(calls):
        with board(root, tmp_path / str(number), [unpacked, empty]) as made:
            killed(made, command, call)
            install(made, "1.0", *ENROL)
            assert in_service(made) == "1.0", call
            require_at_rest(made)
            if number % 5 == 0:
                assert "Nothing was changed" in install(made, "1.0", *ENROL), call


@pytest.mark.parametrize("then", ["boot", "again", "old"])
def test_an_upgrade_killed_at_every_step_leaves_a_working_version(
    then: str, root: Path, empty: Path, first: Path, built: Path, tmp_path: Path
) -> None:
    command = ["python3", "-I", "-B", "-c", _START, "/root/2.0"]
    layers = [built, first, empty]
    with board(root, tmp_path / "calls", layers) as made:
        calls = traced(made, command)
        assert in_service(made) == "2.0"
        require_at_rest(made)
        assert "0.9-old" not in made.must("ls", "/opt/cxr-edge/versions"), "what is older than the version before is removed"
    assert len(calls) > 8
    print(f"{len(calls)} steps of an upgrade")
    for number, call in enumerate(calls):
        with board(root, tmp_path / str(number), layers) as made:
            killed(made, command, call)
            assert in_service(made) in {"1.0", "2.0"}, call
            if then == "boot":
                made.must("/opt/cxr-edge/current/install.sh", "--confirm")
                assert made.run("test", "-e", "/opt/cxr-edge/trial").returncode == 1, call
                now = in_service(made)
                made.must("cmp", f"/root/{now}/systemd/cxr-infer.service", "/etc/systemd/system/cxr-infer.service")
            version = "1.0" if then == "old" else "2.0"
            install(made, version)
            assert in_service(made) == version, call
            require_at_rest(made)
            if number % 5 == 0:
                assert "Nothing was changed" in install(made, version), call


def test_an_upgrade_killed_while_its_software_is_unpacked_is_finished_by_the_next_run(
    root: Path, empty: Path, first: Path, tmp_path: Path
) -> None:
    command = ["python3", "-I", "-B", "-c", _START, "/root/2.0"]
    with board(root, tmp_path / "calls", [first, empty]) as made:
        calls = some_that_unpack(traced(made, command))
    for number, call in enumerate(calls):
        with board(root, tmp_path / str(number), [first, empty]) as made:
            killed(made, command, call)
            assert in_service(made) == "1.0"
            install(made, "2.0")
            assert in_service(made) == "2.0"
            require_at_rest(made)


def test_a_version_that_does_not_work_is_taken_back_also_when_that_is_killed_at_any_step(
    root: Path, empty: Path, first: Path, broken: Path, tmp_path: Path
) -> None:
    command = ["python3", "-I", "-B", "-c", _START, "/root/3.0"]
    with board(root, tmp_path / "back", [broken, first, empty]) as made:
        done = made.run("/root/3.0/install.sh")
        assert done.returncode == 1
        last = done.stdout.splitlines()[-1]
        assert "does not work here: model: it was found broken. The earlier version 1.0-" in last, done.stdout
        assert "is in service again, with every result." in last
        assert in_service(made) == "1.0"
        require_at_rest(made)
        assert "3.0-" not in made.must("ls", "/opt/cxr-edge/versions")
    with board(root, tmp_path / "calls", [broken, first, empty]) as made:
        calls = traced(made, command)
    begun = next(number for number, call in enumerate(calls) if "/trial" in call.about)
    # Of the removal of its folder only the beginning: from then on it is one that is not complete.
    steps = [call for call in calls[begun:] if not re.search(r"^AT_FDCWD|^\d+, ", call.about)]
    assert len(steps) > 8
    for number, call in enumerate(steps):
        with board(root, tmp_path / str(number), [broken, first, empty]) as made:
            killed(made, command, call)
            made.must("/opt/cxr-edge/current/install.sh", "--confirm")
            assert in_service(made) == "1.0", call
            install(made, "1.0")
            require_at_rest(made)


def test_no_way_back_where_the_earlier_version_cannot_read_the_outbox(
    root: Path, empty: Path, first: Path, broken: Path, tmp_path: Path
) -> None:
    with board(root, tmp_path / "board", [broken, first, empty]) as made:
        made.write("/var/lib/cxr-edge/outbox.db", "2.0")
        done = made.run("/root/3.0/install.sh")
        assert done.returncode == 1
        assert "cannot read what the new one has written: the new one stays in service, and no result is lost" in done.stdout
        assert in_service(made) == "3.0"


def test_a_card_for_many_boards_is_made_without_an_enrolment(root: Path, empty: Path, tmp_path: Path) -> None:
    with board(root, tmp_path / "board", [empty]) as made:
        assert "Not enrolled yet." in install(made, "1.0", "--image")
        require_at_rest(made)
        made.must("test", "-L", "/etc/systemd/system/multi-user.target.wants/cxr-relay.service")
        assert made.run("test", "-e", "/etc/cxr-edge/device.toml").returncode == 1
        assert "Nothing was changed" in install(made, "1.0", "--image")
        assert "This board is clinic-1 of Clinic 1." in install(made, "1.0", *ENROL)


def test_what_is_removed_comes_back_with_all_that_it_had(root: Path, empty: Path, first: Path, tmp_path: Path) -> None:
    kept = "find /etc/cxr-edge /var/lib/cxr-edge /srv/cxr -printf '%p %m %u\\n' | sort; cat /var/lib/cxr-edge/outbox.db"
    with board(root, tmp_path / "board", [first, empty]) as made:
        before = made.must("sh", "-c", kept)
        assert "Nothing was changed." in made.must("/opt/cxr-edge/current/install.sh", "--uninstall", "--dry-run")
        assert in_service(made) == "1.0"
        assert "Kept: /etc/cxr-edge" in made.must("/opt/cxr-edge/current/install.sh", "--uninstall")
        left = "find / -xdev -name 'cxr-*.service' -not -path '/root/*'; ls -d /opt/cxr-edge 2>/dev/null || :"
        assert not made.must("sh", "-c", left)
        assert made.must("sh", "-c", kept) == before
        assert "Nothing was changed." in made.must("/root/1.0/install.sh", "--uninstall")
        install(made, "2.0")
        assert in_service(made) == "2.0"
        assert made.must("sh", "-c", kept) == before
        require_at_rest(made)


def test_where_folders_are_mounted_what_is_in_them_is_removed_and_they_stay(
    root: Path, empty: Path, first: Path, tmp_path: Path
) -> None:
    """As on the golden card, where all four lie on the data partition; and a disk of its own for a part of the state."""
    folders = ("/opt/cxr-edge", "/etc/cxr-edge", "/var/lib/cxr-edge", "/srv/cxr/inbox")
    uninstall = ("/opt/cxr-edge/current/install.sh", "--uninstall")
    with board(root, tmp_path / "board", [first, empty]) as made:
        for folder in folders:
            made.must("sh", "-c", 'mkdir -p "/data$0" && cp -a "$0/." "/data$0" && mount --bind "/data$0" "$0"', folder)
        made.must("sh", "-c", "mkdir -p /var/lib/cxr-edge/spool/deep && mount -t tmpfs disk /var/lib/cxr-edge/spool/deep")
        films = ("/var/lib/cxr-edge/spool/deep/film", "/srv/cxr/inbox/film")
        made.must("sh", "-c", 'for one; do echo film >"$one"; done; ln -s /usr /srv/cxr/inbox/link', "sh", *films)
        assert "/opt/cxr-edge is emptied; it stays" in made.must(*uninstall)
        made.must("ls", *films, "/etc/cxr-edge/device.toml")
        assert "Nothing was changed." in made.must("/root/1.0/install.sh", "--uninstall")
        install(made, "1.0")
        assert made.run(*uninstall, "--purge").returncode == 2
        said = made.must(*uninstall, "--purge", "--even-unsent")
        assert [f"{folder} is emptied; it stays, as something is mounted there" in said for folder in folders] == [True] * 4, said
        assert said.index("/srv/cxr/inbox") < said.index("/var/lib/cxr-edge") < said.index("/opt/cxr-edge is emptied")
        assert not made.must("find", *folders, "/data", "-not", "-type", "d")
        made.must("test", "-e", "/usr/bin/python3")
        assert made.run("id", "cxr-edge").returncode != 0
        assert "Nothing was changed." in made.must("/root/1.0/install.sh", "--uninstall", "--purge")
        assert "This board is clinic-1 of Clinic 1." in install(made, "1.0", *ENROL)


def test_every_change_of_a_name_is_on_the_disk_before_the_next(
    root: Path, empty: Path, first: Path, built: Path, tmp_path: Path
) -> None:
    """So that what a power cut leaves is what a kill leaves: a file is forced before it gets its name, and its folder after."""
    command = ["python3", "-I", "-B", "-c", _START, "/root/2.0"]
    with board(root, tmp_path / "board", [built, first, empty]) as made:
        watched = f"{CALLS},fsync,write"
        made.must("strace", "-qq", "-y", "-o", "/run/calls", "-e", f"trace={watched}", *command)
        lines = made.read("/run/calls").splitlines()
    changed = ""
    written = ""
    seen = 0
    for line in lines:
        name, _, rest = line.partition("(")
        paths = re.findall(r'"(/[^"]*)"', rest)
        if name == "write" and "/.part" not in rest and ".part>" in rest:
            written = rest.partition("<")[2].partition(">")[0]
        elif name == "fsync":
            forced = rest.partition("<")[2].partition(">")[0]
            written = "" if forced == written else written
            changed = "" if forced == changed else changed
        elif name in CALLS.split(",") and paths and paths[-1].startswith(("/opt", "/etc")) and "/tmp" not in paths[-1]:
            if name == "symlink" or ".cxr-edge-" in paths[-1] or (name == "unlink" and paths[-1].endswith(".part")):
                continue  # gets its name by the rename that follows, or is the probe
            assert not changed, f"{changed} was not forced before {line}"
            assert not (name == "rename" and written), f"{written} was not forced before {line}"
            changed = paths[-1].rpartition("/")[0]
            seen += 1
    assert seen >= 5
    assert not changed


_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from installer.main import main; sys.exit(main())"
