"""One decoding process and the two pipes to it.

It is forked while this process has a single thread, which saves the start of an interpreter. Later, with threads about, fork
is not safe and a fresh interpreter is started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time


class DecoderProcess:
    """A running child. `requests` and `answers` are file descriptors of this end."""

    def __init__(self, memory_mb: int, cpu_seconds: int) -> None:
        child_requests, self.requests = os.pipe()
        self.answers, child_answers = os.pipe()
        arguments = (memory_mb, cpu_seconds)
        start = _fork if len(os.listdir("/proc/self/task")) == 1 else _spawn
        try:
            self.pid = start(child_requests, child_answers, arguments)
        finally:
            os.close(child_requests)
            os.close(child_answers)

    def end(self, patience_s: float) -> int:
        """Wait at most `patience_s` seconds for the child to end by itself, then kill it.

        Returns:
            Its exit status, negative for a signal.
        """
        code = self._wait(patience_s)
        if code is None:
            os.kill(self.pid, signal.SIGKILL)
            code = self._wait(10.0)
        for handle in (self.requests, self.answers):
            with contextlib.suppress(OSError):
                os.close(handle)
        return -signal.SIGKILL if code is None else code

    def close(self) -> None:
        """Let the child end as one does whose parent has gone: its requests come to an end."""
        os.close(self.requests)
        self.requests = -1
        self.end(2.0)

    def _wait(self, patience_s: float) -> int | None:
        deadline = time.monotonic() + patience_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.001)


def _fork(requests: int, answers: int, arguments: tuple[int, int]) -> int:
    """Fork before anything large is loaded: the child loads Pillow while the parent loads numpy and the network."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.dup2(requests, 0)
        os.dup2(2, 1)  # decoders write to stdout now and then
        answers = os.dup2(answers, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))  # locks and pipes of the parent must end with the parent
        with os.fdopen(0, "rb") as requests_file, os.fdopen(answers, "wb") as answers_file:
            from edge.pixels.decoder_child import serve

            serve(requests_file, answers_file, *arguments)
        os._exit(0)
    except BaseException:
        os._exit(70)


def _spawn(requests: int, answers: int, arguments: tuple[int, int]) -> int:
    command = [sys.executable, "-m", "edge.pixels.decoder_child", *map(str, arguments)]
    files = [(os.POSIX_SPAWN_DUP2, requests, 0), (os.POSIX_SPAWN_DUP2, answers, 1)]
    return os.posix_spawn(sys.executable, command, os.environ, file_actions=files)
