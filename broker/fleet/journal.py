"""What the authority did, one event a line, JSON, forced to the disk before anyone is told.

The file only grows. A line that a crash has cut off was acknowledged to nobody: readers leave it out, and the next writer removes
it. Several processes write, one at a time: who writes first takes its turn, and reads what the others wrote.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from broker.errors import AuthorityError
from broker.fleet.standing import Event
from edge.contract.errors import UNREADABLE
from edge.durable import fsync_folder

_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Journal:
    """The journal as one process knows it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0

    def news(self) -> list[Event]:
        """Return the events since the last call, of whoever wrote them.

        Raises:
            AuthorityError: if a whole line makes no sense, or what was read before is gone.
            OSError: if it cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < self._end:
                    raise AuthorityError(f"{self._path} was replaced by an earlier one while this program ran; start it again.")
                if size == self._end:
                    return []
                file.seek(self._end)
                content = file.read()
        except FileNotFoundError:
            if self._end:
                raise AuthorityError(f"{self._path} is gone; put it back from the backup.") from None
            return []
        whole = _acknowledged(content)
        try:
            events = [_EVENT.decode(line) for line in content[:whole].splitlines()]
        except UNREADABLE as error:
            raise AuthorityError(f"{self._path} is damaged ({error}); put it back from the backup, nothing was changed.") from None
        self._end += whole
        return events

    def turn(self) -> AbstractContextManager[None]:
        """Wait until nobody else writes, and keep others from writing meanwhile.

        Raises:
            AuthorityError: if that takes longer than any turn; the aggregator has results to take in.
        """
        return locked(self._path.with_suffix(".lock"), patience_s=5.0)

    def append(self, event: Event) -> None:
        """Add an event, in one's turn and after `news` has told nothing new; on return it survives a power cut.

        Raises:
            AuthorityError: if the disk does not take it. Nothing has changed then.
        """
        line = msgspec.json.encode(event) + b"\n"
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(file, self._end)  # what a crash has cut off
                try:
                    # One call: a short write is an error here, and what it left is cut off.
                    if os.pwrite(file, line, self._end) != len(line):
                        raise OSError(28, "No space left on device")
                    os.fsync(file)
                    fsync_folder(self._path.parent)
                except OSError:
                    os.ftruncate(file, self._end)
                    raise
            finally:
                os.close(file)
        except OSError as error:
            raise AuthorityError(f"{self._path} cannot be written ({error.strerror}); nothing was changed.") from None
        self._end += len(line)


def _acknowledged(content: bytes) -> int:
    """Return where the last line ends that somebody may have been told of.

    A power cut can leave the end of a line and not its beginning, which then reads as zeros: disks write sectors in any order.
    """
    end = content.rfind(b"\n") + 1
    last = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
    return last if b"\0" in content[last:end] else end


@contextlib.contextmanager
def locked(path: Path, patience_s: float) -> Iterator[None]:
    """Hold a lock file.

    Raises:
        AuthorityError: if another program has it all the while.
        OSError: if it cannot be opened.
    """
    until = time.monotonic() + patience_s
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise AuthorityError(f"Another cxr-broker has {path} since {patience_s:.0f} s; does one hang?") from None
                time.sleep(0.02)
        yield
