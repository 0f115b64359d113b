"""The parent's side of decoding: one child process, replaced whenever it dies, hangs or outgrows its limits."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from edge.config import Decode
from edge.decoder_protocol import LENGTH, Answer, NotReady, Request, frame_length

_ENDED_BY = {-signal.SIGXCPU: "decoder_timeout", -signal.SIGKILL: "decoder_memory"}
"""SIGXCPU is the CPU limit; SIGKILL comes from the kernel when the machine is out of memory."""

_DIED = frozenset({"decoder_crashed", "decoder_memory"})


class Decoder:
    """Decodes one file at a time in a child process. Not for several threads."""

    def __init__(self, limits: Decode) -> None:
        self._limits = limits
        self._answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
        self._child = self._start()

    @property
    def pid(self) -> int:
        """Process id of the present child."""
        return self._child.pid

    def decode(self, path: Path) -> Answer:
        """Return the network's input for a file, or why there is none.

        Raises:
            FileNotFoundError: if the file has gone.
        """
        path.stat()
        request = Request(str(path), self._limits.max_file_mb * 1024 * 1024, self._limits.max_megapixels * 1_000_000)
        content = msgspec.msgpack.encode(request)
        answer = self._ask(content)
        # A child that dies says little about the picture (the machine may be short of memory, someone may have ended it):
        # each picture has a second chance. One that hangs had all its time.
        return self._ask(content) if isinstance(answer, NotReady) and answer.reason in _DIED else answer

    def close(self) -> None:
        """End the child."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._stdout.close()

    def _start(self) -> subprocess.Popen[bytes]:
        seconds = max(int(self._limits.timeout_s), 1)
        child = subprocess.Popen(
            [sys.executable, "-m", "edge.decoder_child", str(self._limits.memory_mb), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        self._stdin, self._stdout = child.stdin, child.stdout
        return child

    def _replace(self) -> int:
        self._child.kill()
        code = self._child.wait()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        self._child = self._start()
        return code

    def _ask(self, content: bytes) -> Answer:
        deadline = time.monotonic() + self._limits.timeout_s
        try:
            self._stdin.write(LENGTH.pack(len(content)) + content)
            head = self._read(LENGTH.size, deadline)
            return self._answers.decode(self._read(frame_length(head), deadline))
        except TimeoutError:
            self._replace()
            return NotReady(False, "decoder_timeout")
        except (BrokenPipeError, EOFError, ValueError, msgspec.DecodeError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout=1)  # so that its own exit code is seen, not that of our kill
            code = self._replace()
            return NotReady(False, _ENDED_BY.get(code, "decoder_crashed"), f"exit status {code}")

    def _read(self, count: int, deadline: float) -> bytes:
        handle = self._stdout.fileno()
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        parts = bytearray()
        while len(parts) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1e3):
                raise TimeoutError
            part = os.read(handle, count - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)
