"""The parent's side of decoding: one child process, replaced whenever it dies, hangs or outgrows its limits."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from edge.config import Decode
from edge.pixels.decoder_process import DecoderProcess
from edge.pixels.decoder_protocol import Answer, NotReady, Request, await_frame, frame
from edge.pixels.turn import turn

log = logging.getLogger(__name__)

_ENDED_BY = {-signal.SIGXCPU: "decoder_timeout", -signal.SIGKILL: "decoder_memory"}
"""SIGXCPU is the CPU limit; SIGKILL comes from the kernel when the machine is out of memory."""

_ENDED = {"event": "decoder_ended"}

_PATIENCE_S = 30.0
"""For the page to have drawn a film; part of the minute that a piece of work may take beside its decoding."""

T = TypeVar("T")

_DIED = frozenset({"decoder_crashed", "decoder_memory"})


class Decoder:
    """Decodes one file at a time in a child process. Not for several threads."""

    def __init__(self, limits: Decode, turn_file: Path | None = None) -> None:
        """`turn_file`: see `edge.pixels.turn`; None where nobody else decodes."""
        self._limits, self._turn = limits, turn_file
        self._answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
        self._child = self._start()

    @property
    def pid(self) -> int:
        """Process id of the present child."""
        return self._child.pid

    def decode(self, path: Path) -> Answer:
        """Return the network's input for a file, or why there is none.

        Raises:
            FileNotFoundError: if there is no such file.
        """
        return self.decode_while(path, lambda: None)[0]

    def decode_while(self, path: Path, work: Callable[[], T]) -> tuple[Answer, T]:
        """Do `work` here while the child decodes; return the answer and what `work` returned.

        Raises:
            FileNotFoundError: if there is no such file.
            Exception: what `work` raises; the child's answer is then thrown away.
        """
        path.stat()
        with turn(self._turn, _PATIENCE_S):
            return self._decode_while(path, work)

    def _decode_while(self, path: Path, work: Callable[[], T]) -> tuple[Answer, T]:
        request = Request(os.fsencode(path), self._limits.max_bytes, self._limits.max_pixels)
        order = frame(msgspec.msgpack.encode(request))
        asked = self._ask(order)
        try:
            done = work()
        except BaseException:
            self._replace(0)  # else the next file would be given this one's answer
            raise
        answer = self._answer(asked)
        # A child that dies says little about the picture (the machine may be short of memory, someone may have ended it):
        # each picture has a second chance. One that hangs had all its time.
        if isinstance(answer, NotReady) and answer.reason in _DIED and answer.detail:
            log.warning("the decoding process ended (%s); the picture is tried again", answer.detail, extra=_ENDED)
            answer = self._answer(self._ask(order))
        return answer, done

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def _start(self) -> DecoderProcess:
        return DecoderProcess(self._limits.memory_mb, max(int(self._limits.timeout_s), 1))

    def _replace(self, patience_s: float) -> int:
        code = self._child.end(patience_s)
        self._child = self._start()
        return code

    def _ask(self, order: bytes) -> bool:
        """Hand a request to the child; return whether it took it (a child that has died is noticed here or on reading)."""
        try:
            os.write(self._child.requests, order)
        except BrokenPipeError:
            return False
        return True

    def _answer(self, asked: bool) -> Answer:
        deadline = time.monotonic() + self._limits.timeout_s
        try:
            if not asked:
                raise EOFError
            return self._answers.decode(await_frame(self._child.answers, deadline))
        except TimeoutError:
            self._replace(0)
            return NotReady(False, "decoder_timeout")
        except (EOFError, ValueError, msgspec.DecodeError):
            code = self._replace(1.0)  # so that its own exit status is seen, not that of our kill
            return NotReady(False, _ENDED_BY.get(code, "decoder_crashed"), f"exit status {code}")
