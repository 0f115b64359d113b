"""No process of the device leaves a core dump, what it writes is its user's alone, and its log quotes no exception."""

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edge.unattended.hardening import begin_private
from tests.support.clinic import make_device, small_picture
from tests.support.dicom import MACHINE
from tests.support.processes import find_program, free_port, wait_for

_CRASH = "import ctypes; ctypes.string_at(0)"


def ended(cwd, before=""):
    """Run a crash after `before` with core dumps allowed; return (signal, whether there was a dump)."""
    script = f"import resource\n{before}\nopen('ready', 'w').close()\n{_CRASH}"
    allow = (
        "import resource, os, sys; resource.setrlimit(resource.RLIMIT_CORE, (2**24, 2**24)); os.execv(sys.executable, sys.argv[1:])"
    )
    process = subprocess.Popen([sys.executable, "-c", allow, sys.executable, "-c", script], cwd=cwd, stderr=subprocess.DEVNULL)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = status
    assert (cwd / "ready").exists()
    return os.WTERMSIG(status), os.WCOREDUMP(status)


def test_a_crash_leaves_a_dump_where_nobody_forbids_it_and_none_where_either_way_is_used(tmp_path):
    assert ended(tmp_path) == (signal.SIGSEGV, True), "this machine makes no core dumps, so the test can show nothing"
    one_way = "import edge.unattended.hardening as h; h.forbid_core_dumps()"
    assert ended(tmp_path, one_way) == (signal.SIGSEGV, False)
    # systemd-coredump is handed a dump whatever the limit is: so the second way has to do alone.
    no_limit = "import edge.unattended.hardening as h; h.resource.setrlimit = lambda *_: None; h.forbid_core_dumps()"
    assert ended(tmp_path, no_limit) == (signal.SIGSEGV, False)
    mock = "lambda _: __import__('unittest.mock').mock.Mock()"
    no_second = f"import edge.unattended.hardening as h; h.ctypes.CDLL = {mock}; h.forbid_core_dumps()"
    assert ended(tmp_path, no_second) == (signal.SIGSEGV, False)


def core_limits(pid):
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[4:6] for line in lines if line.startswith("Max core file size"))


@pytest.fixture
def running(tmp_path):
    """A whole device, started with core dumps allowed and files for everybody, as a careless service manager would."""
    device = make_device(tmp_path / "home", f"mqtt://127.0.0.1:{free_port()}")
    table = f'\n[dicom]\nport = {free_port()}\nallow = ["{MACHINE}@127.0.0.1"]\n'
    device.config.write_text(device.config.read_text("utf-8") + table, "utf-8")
    device.state.chmod(0o755)
    before, limits = os.umask(0), resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    try:
        device.start()
    finally:
        os.umask(before)
        resource.setrlimit(resource.RLIMIT_CORE, limits)
    yield device
    device.stop()


def test_a_running_device_makes_no_dump_and_shows_its_files_to_nobody(running):
    names = {"run", "watch", "infer", "relay", "dicom", "page", "decoder"}
    wait_for(lambda: set(running.pids()) == names, "all processes run", 60)
    small_picture(running.inbox / "Lovelace.png", 1)
    wait_for(running.waiting, "the picture has its outcome", 60)
    wait_for(lambda: (running.state / "page.lock").exists() and (running.state / "dicom.lock").exists(), "page and dicom run")
    pids = running.pids()
    assert {name: core_limits(pid) for name, pid in pids.items()} == {name: ["0", "0"] for name in names}
    made = [running.state, *running.state.rglob("*")]
    assert len(made) > 12
    open_ones = {str(path.relative_to(running.home)): oct(path.lstat().st_mode) for path in made if path.lstat().st_mode & 0o077}
    taken_over = {name for name in open_ones if name.startswith("state/done/")}
    assert set(open_ones) == taken_over, "a file that came by rename keeps its mode, inside of a folder that nobody else can enter"
    assert stat.S_IMODE(running.state.stat().st_mode) == 0o700
    for pid in set(pids.values()) - {pids["run"]}:
        os.kill(pid, signal.SIGSEGV)
    wait_for(lambda: len(set(running.pids().values()) - set(pids.values())) >= len(names) - 2, "they are started again", 60)
    assert not [path for path in running.home.rglob("core*") if path.is_file()]


def test_another_process_of_the_same_user_cannot_read_the_memory(tmp_path):
    user = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable] if os.getuid() == 0 else [sys.executable]
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "if sys.argv[2] == 'private':\n"
        "    from edge.unattended.hardening import begin_private; begin_private()\n"
        "pid = os.getpid(); child = os.fork()\n"
        "if child == 0:\n"
        "    try: open(f'/proc/{pid}/mem', 'rb'); os._exit(0)\n"
        "    except PermissionError: os._exit(13)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    root = os.getcwd()
    codes = [subprocess.run([*user, "-c", script, root, mode], check=False).returncode for mode in ("open", "private")]
    assert codes == [0, 13]


def test_what_ends_a_process_is_logged_without_the_name_of_a_file(tmp_path):
    strace = find_program("strace", "strace")
    device = make_device(tmp_path / "home", f"mqtt://127.0.0.1:{free_port()}")
    for folder in ("spool", "done", "aside", "arriving"):
        (device.state / folder).mkdir(parents=True)
    small_picture(device.state / "spool" / ("0" * 32 + "~Lovelace^Ada.png"), 1)
    infer = [sys.executable, "-m", "edge.cli", "infer", "--config", str(device.config)]
    broken = [strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename", "-e", "inject=rename:error=EIO", "-P"]
    broken += [str(device.state / "spool" / ("0" * 32 + "~Lovelace^Ada.png"))]
    done = subprocess.run([*broken, *infer], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "Input/output error" in done.stderr
    assert "Lovelace" not in done.stderr


@pytest.mark.parametrize("where", ["main", "thread", "handler"])
def test_a_fault_is_logged_with_its_place_and_without_its_text(where):
    script = f"""
import logging, threading
from edge.unattended.logs import set_up
set_up("infer", None)
def fault():
    try:
        raise ValueError("Lovelace^Ada")
    except ValueError as error:
        raise KeyError("Lovelace, Ada") from error
if {where!r} == "main": fault()
if {where!r} == "thread":
    thread = threading.Thread(target=fault); thread.start(); thread.join()
if {where!r} == "handler":
    try: fault()
    except KeyError: logging.getLogger("uvicorn.error").exception("a request failed")
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stderr
    assert "process=infer" in said
    assert "KeyError" in said
    assert "at=<string>" in said
    assert "Lovelace" not in said


def test_private_files_are_made_whatever_the_umask_was(tmp_path):
    pid = os.fork()
    if pid == 0:
        os.umask(0)
        begin_private()
        (tmp_path / "file").write_text("x")
        (tmp_path / "folder").mkdir()
        socket.socket(socket.AF_UNIX).bind(str(tmp_path / "socket"))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert {path.name: stat.S_IMODE(path.lstat().st_mode) for path in tmp_path.iterdir()} == {
        "file": 0o600,
        "folder": 0o700,
        "socket": 0o700,
    }
