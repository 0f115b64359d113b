"""What the processes of the device log: one line of `name=value` an event (logfmt), to stderr and to files of a bounded size.

A line holds no patient data by the care of who writes it; an unforeseen error is told by its kind and place alone, since the text
of any exception may quote a file. Of one kind of line at most so many come in a minute: what a peer can bring about, it can repeat.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edge.clock import boot_id, synchronised, wall_clock

PER_MINUTE = 20
"""Lines of one kind in a minute; further ones are counted."""

_WINDOW_S = 60.0
_FILE_BYTES = 1 << 20
_OLDER_FILES = 3
"""Beside the present one, for each process: seven processes fill 28 MiB."""
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")
_FRAMES = 4


def set_up(process: str, folder: Path | None) -> None:
    """Send all that is logged to stderr, and to a file in `folder` unless that is None or the journal of systemd listens.

    Args: process: its name in each line.
    """
    in_journal = "JOURNAL_STREAM" in os.environ
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None and not in_journal:
        from logging.handlers import RotatingFileHandler  # under systemd nothing of it is needed

        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = folder / f"{process}.log"
        handlers.append(RotatingFileHandler(kept, maxBytes=_FILE_BYTES, backupCount=_OLDER_FILES, delay=True))
    logging.raiseExceptions = False  # a full disk or a reader that has gone must not end the work, nor be told without end
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(Logfmt(process, priority=in_journal))
        handler.addFilter(Flood(handler.emit))
        root.addHandler(handler)
    sys.excepthook = lambda kind, error, trace: _log_fault("ended by an error of this software", kind, error, trace)
    threading.excepthook = lambda fault: _log_fault(
        "a thread ended by an error of this software", fault.exc_type, fault.exc_value, fault.exc_traceback
    )
    sys.unraisablehook = lambda fault: _log_fault(
        "an error that nobody waited for", fault.exc_type, fault.exc_value, fault.exc_traceback
    )


class Logfmt(logging.Formatter):
    """time or boot and seconds since it, level, process, event, text, then what the call gave as `extra={"fields": {...}}`."""

    def __init__(self, process: str, *, priority: bool = False) -> None:
        """Args: priority: begin with the level as syslog numbers it, which the journal takes off again."""
        super().__init__()
        self._process = process
        self._priority = priority

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        pairs: dict[str, Any] = _when()
        pairs |= {"level": record.levelname.lower(), "process": self._process, "event": event(record), "text": record.getMessage()}
        pairs |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            pairs |= _fault(*record.exc_info)
        line = " ".join(f"{name}={_value(value)}" for name, value in pairs.items())
        return f"<{_syslog(record.levelno)}>{line}" if self._priority else line


@dataclass
class _Window:
    until: float
    event: str
    count: int = 0


class Flood(logging.Filter):
    """Lets so many lines of one kind through in a minute; how many were left out is told by the next line of whatever kind."""

    def __init__(self, emit: Callable[[logging.LogRecord], None], per_minute: int = PER_MINUTE) -> None:
        """Args: emit: takes a line that is to be told in between."""
        super().__init__()
        self._emit = emit
        self._most = per_minute
        self._windows: dict[tuple[str, str, str], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether this line comes."""
        now = time.monotonic()
        while self._windows and now >= next(iter(self._windows.values())).until:  # they lie in the order in which they end
            window = self._windows.pop(next(iter(self._windows)))
            if window.count > self._most:
                self._emit(_left_out(record, window.event, window.count - self._most))
        kind = event(record)
        window = self._windows.setdefault((record.name, str(record.msg), kind), _Window(now + _WINDOW_S, kind))
        window.count += 1
        return window.count <= self._most


def event(record: logging.LogRecord) -> str:
    """Return the code of a kind of line: what the call gave as `extra={"event": ...}`, else the first words of its fixed text."""
    given = getattr(record, "event", None)
    if given is not None:
        return str(given)
    words = re.findall(r"[a-z0-9]+", re.sub(r"%[-.\d]*[a-z]", " ", str(record.msg)).lower())
    return "_".join(words[:5]) or record.name.rpartition(".")[2]


def _left_out(record: logging.LogRecord, kind: str, count: int) -> logging.LogRecord:
    told = logging.LogRecord(record.name, logging.WARNING, "", 0, "lines were left out", (), None)
    told.fields = {"count": count, "of": kind}
    return told


def _when() -> dict[str, Any]:
    if synchronised():
        return {"time": wall_clock()}
    return {"boot": boot_id(), "seconds": f"{time.clock_gettime(time.CLOCK_BOOTTIME):.3f}"}


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _syslog(level: int) -> int:
    return 3 if level >= logging.ERROR else 4 if level >= logging.WARNING else 6


def _fault(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> dict[str, str]:
    """Return the kind and the places of an error, the innermost first, and what the system said of a file, without its name."""
    frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(trace)]
    number = getattr(error, "errno", None)
    system = {"system": os.strerror(number)} if isinstance(number, int) else {}
    return {"error": kind.__name__, **system, "at": "<".join(reversed(frames[-_FRAMES:]))}


def _log_fault(text: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    logging.getLogger("edge").critical(text, extra={"fields": _fault(kind, error, trace)})
