"""The device at work under the restrictions of its units, and what these restrictions refuse. Needs root."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.contract.codec import decode_outcome
from edge.contract.messages import Result
from tests.support.authority import Authority
from tests.support.centre import aggregator
from tests.support.confined_life import PROCESSES, Clinic, clinic, work
from tests.support.confinement import USER, Board, board
from tests.support.mosquitto import fleet_mosquitto
from tests.support.processes import free_port, wait_for

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.getuid() != 0 and "CI" not in os.environ, reason="only root can restrict a process so"),
]

WATCHED = {"watch", "infer"}
"""Processes without a network."""

# Each is a name, what is tried, and what comes of it: an error's name, or what is printed.
FORBIDDEN = {
    "write_elsewhere": ("open('/etc/cxr-edge/x', 'w')", "OSError 30"),
    "change_the_software": ("open('/opt/cxr-edge/current/bin/x', 'w')", "OSError 30"),
    "write_a_setting_of_the_kernel": ("open('/proc/sys/kernel/hostname', 'w')", "OSError 30"),
    "read_homes": ("os.listdir('/home')", "PermissionError 13"),
    "see_the_disks": ("{'mem', 'kmsg', 'loop-control', 'loop0'} & set(os.listdir('/dev')) or 1/0", "ZeroDivisionError None"),
    "see_other_processes": ("[p for p in os.listdir('/proc') if p.isdigit() and int(p) == 1] or 1/0", "ZeroDivisionError None"),
    "run_what_was_put_into_the_state": ("os.execv('/var/lib/cxr-edge/program', ['x'])", "PermissionError 13"),
    "memory_written_and_run": ("mmap.mmap(-1, 4096, prot=7)", "PermissionError 1|13"),
    "memory_run_later": (
        "m = mmap.mmap(-1, 4096); a = ctypes.addressof(ctypes.c_char.from_buffer(m)); "
        "check(libc.mprotect(ctypes.c_void_p(a), 4096, 5))",
        "PermissionError 1|13",
    ),
    "set_the_clock": ("time.clock_settime(time.CLOCK_REALTIME, 0)", "PermissionError 1"),
    "new_namespaces": ("check(libc.unshare(0x10000000))", "PermissionError 1"),
    "mount": ("check(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))", "PermissionError 1"),
    "trace": ("check(libc.ptrace(16, 1, 0, 0))", "PermissionError 1"),
    "a_program_of_another_user": ("p = '/var/lib/cxr-edge/s'; open(p, 'w'); os.chmod(p, 0o4755)", "PermissionError 1"),
    "raw_packets": ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "OSError 97"),
    "keys_of_the_kernel": ("check(libc.syscall(keyctl, 0, -3, 1))", "PermissionError 1"),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board on which nothing runs, with a program in its state folder."""
    with board(tmp_path_factory.mktemp("bare"), f"mqtt://127.0.0.1:{free_port()}") as made:
        program = made.device.state / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        os.chown(program, USER, USER)
        yield made


def tried(made: Board, unit: str, attempts: dict[str, str]) -> dict[str, str]:
    """Return what comes of each attempt under the restrictions of a unit."""
    code = """
import ctypes, mmap, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
keyctl = 250 if os.uname().machine == "x86_64" else 219
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
"""
    for name, attempt in attempts.items():
        body = "\n    ".join(attempt.split("; "))
        code += f"try:\n    {body}\n    print('{name}: done')\n"
        code += f"except Exception as error:\n    print('{name}:', type(error).__name__, getattr(error, 'errno', None))\n"
    found = (line.partition(": ") for line in made.says(unit, code).splitlines())
    return {name: said for name, _, said in found if name in attempts}


@pytest.mark.parametrize("unit", PROCESSES)
def test_a_unit_refuses_what_its_process_has_no_need_of(bare: Board, unit: str) -> None:
    found = tried(bare, unit, {name: attempt for name, (attempt, _) in FORBIDDEN.items()})
    wrong = {}
    for name, (_, expected) in FORBIDDEN.items():
        kind, _, numbers = expected.partition(" ")
        if found[name].partition(" ")[0] != kind or found[name].partition(" ")[2] not in numbers.split("|"):
            wrong[name] = found[name]
    assert not wrong


@pytest.mark.parametrize("unit", PROCESSES)
def test_a_unit_lets_its_process_ask_whether_the_clock_is_right_and_which_boot_this_is(bare: Board, unit: str) -> None:
    outside = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    asked = {
        "clock": "print('clock_says', libc.adjtimex(ctypes.create_string_buffer(512)) >= 0)",
        "boot": f"from edge.clock import boot_id; assert boot_id() == '{outside}'",
        "state": "open('/var/lib/cxr-edge/y', 'w')",
        "inbox": "open('/srv/cxr/inbox/y', 'w')",
        "network": "socket.socket(socket.AF_INET).bind(('127.0.0.1', 0))",
    }
    found = tried(bare, unit, asked)
    assert (found["clock"], found["boot"], found["state"]) == ("done", "done", "done")
    assert "clock_says True" in bare.log()
    assert found["inbox"] == ("done" if unit == "watch" else "OSError 30"), "watch alone takes out of the watched folder"
    assert found["network"] == ("OSError 97" if unit in WATCHED else "done")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A board of a clinic that delivers by TLS to a real broker and a centre."""
    home = tmp_path_factory.mktemp("whole")
    authority = Authority(home / "authority")
    for name in ("broker", "board"):
        (home / name).mkdir()
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(fleet_mosquitto(home / "broker", authority))
        place = stack.enter_context(clinic(home / "board", fleet, authority))
        one, url = authority.client("aggregator"), f"mqtts://127.0.0.1:{fleet.port}"
        files = ("--ca", str(authority.ca), "--cert", str(one.cert), "--key", str(one.key))
        stack.enter_context(aggregator(home, url, f"sqlite:///{home / 'centre.db'}", files))
        yield place


def test_the_whole_line_works_under_its_units(whole: Clinic) -> None:
    """Folder, listener and page; a decoder that is killed; answers in an archive; receipts of a centre; told to end."""
    made = whole.board
    with whole.serve() as pids:
        work(whole, pids)
        wait_for(lambda: made.device.waiting() == 0, "the centre has everything", 60)
        with contextlib.closing(sqlite3.connect(f"file:{made.device.state / 'outbox.db'}?mode=ro", uri=True)) as database:
            outcomes = [decode_outcome(bytes(row[0])) for row in database.execute("SELECT payload FROM outcome ORDER BY number")]
        assert [type(one) for one in outcomes] == [Result] * 3, "the picture whose decoder died has its result"
        for name, pid in pids.items():
            status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
            assert status["Uid"].split() == [str(USER)] * 4, name
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), name
            assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0), name
            assert Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink(), name
            own = Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
            assert own == (name in WATCHED), name
        for pid in pids.values():
            os.kill(pid, signal.SIGTERM)
        made.listens.wait_for("STOPPING=1", len(PROCESSES))
    # That infer was ready says that the golden inputs gave the golden scores, to the step (edge/network/bundle.py).
    assert "XNNPACK delegate" in made.log(), "the runtime's fast kernels load under MemoryDenyWriteExecute"
    assert not [line for line in made.log().splitlines() if "level=critical" in line]
