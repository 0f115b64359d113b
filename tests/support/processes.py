"""Starting and ending real programs for tests: each in a folder of its own, on a free loopback port, ended by its process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


class ServerMissing(AssertionError):
    """A program that the tests need is not installed. This fails a test: a test that is skipped checks nothing."""


def find_program(name: str, package: str, also: Sequence[str] = ()) -> str:
    """Return the path of a program, looked up in PATH, the sbin folders and `also`.

    Raises:
        ServerMissing: with the Debian package to install.
    """
    folders = [*os.environ.get("PATH", os.defpath).split(":"), "/usr/local/sbin", "/usr/sbin", "/sbin", *also]
    found = shutil.which(name, path=":".join(folders))
    if found is None:
        raise ServerMissing(f"{name} is not installed, and this test needs a real one: apt install {package}")
    return found


def free_port() -> int:
    """Return a TCP port that nobody listened on just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether something accepts connections on that loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Wait until `condition()` is true.

    Raises:
        AssertionError: saying `what` did not come true in time.
    """
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 20.0) -> None:
    """Wait until `process` listens; fail with its log if it ends first."""

    def ready() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"{process.args!r} ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
        return listens(port)

    wait_for(ready, f"{process.args!r} listens on {port}; its log is {log}", timeout_s)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM, timeout_s: float = 15.0) -> int:
    """End one process and return its exit status; killed if it does not follow in time."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


@contextlib.contextmanager
def running(arguments: Sequence[str], log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with both outputs in `log`, and end it at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(list(arguments), stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        end(process)
