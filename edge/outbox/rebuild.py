"""A damaged outbox is put aside, what can be read of it goes into a new one, and a new epoch begins (docs/adr/0013).

Saved outcomes keep their epoch, seq and bytes, and are delivered as they are until they have their receipt. No seq is given
twice, so what could not be saved is a gap that the centre sees. Beside `outbox.db`:

    outbox.lock            held shared by who writes to the outbox, alone by who rebuilds it
    outbox.damaged         a note: someone found it damaged; those who have it open end, `infer` rebuilds it
    outbox.rebuilt         the new one, complete; it only has to be put in its place
    outbox-damaged-*.db    the old ones, never removed by the device
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import apsw

from edge.durable import fsync_folder
from edge.errors import OutboxDamaged, OutboxError
from edge.outbox.file import STEP, OutboxFile, damage_note
from edge.outbox.salvage import LastSeq, Saved, salvage
from edge.outbox.witness import read_witness
from edge.outbox.writer import Outbox
from edge.unattended.notify import nothing

log = logging.getLogger(__name__)


class Stops(Protocol):
    """What says that the process should end; the real one is `edge.unattended.lifecycle.Stop`."""

    def is_set(self) -> bool:
        """Return whether it should."""
        ...


@contextlib.contextmanager
def outbox_of_infer(
    path: Path, device: str, results_bytes: int, stop: Stops, progress: Callable[[], object] = nothing
) -> Iterator[Outbox]:
    """Open the outbox for the one process that records, rebuilding it first if it is damaged.

    `progress` is called while that goes on; a large one takes minutes on an SD card.

    Raises:
        OutboxDamaged: if it is found damaged later; the next start rebuilds it.
        OutboxError: if it cannot be used for another reason.
    """
    with _lock(path) as lock:
        _acquire(lock, fcntl.LOCK_SH, stop, progress)
        if _rebuilt(path).exists() or (why := _damage(path)) is not None:
            damage_note(path).touch()
            _acquire(lock, fcntl.LOCK_EX, stop, progress)  # the relay sees the note, ends, and lets go
            if not _rebuilt(path).exists():
                log.error("The outbox is damaged (%s). What can be read is put into a new one.", why)
                _build(path, device, results_bytes, progress)
            _swap(path)
            _acquire(lock, fcntl.LOCK_SH, stop, progress)
        _settle_log(path)
        with _in_use(path, device, results_bytes) as outbox:
            yield outbox


@contextlib.contextmanager
def outbox_of_relay(
    path: Path, device: str, results_bytes: int, stop: Stops, progress: Callable[[], object] = nothing
) -> Iterator[Outbox]:
    """Open the outbox to send from it, waiting while it is to be rebuilt. Raises as `outbox_of_infer`."""
    with _lock(path) as lock:
        while True:
            _acquire(lock, fcntl.LOCK_SH, stop, progress)
            if not (damage_note(path).exists() or _rebuilt(path).exists()):
                break
            fcntl.flock(lock, fcntl.LOCK_UN)
            progress()
            _pause(stop)
        with _in_use(path, device, results_bytes) as outbox:
            yield outbox


@contextlib.contextmanager
def _in_use(path: Path, device: str, results_bytes: int) -> Iterator[Outbox]:
    outbox = None
    try:
        outbox = Outbox(path, device, results_bytes=results_bytes)
        yield outbox
    except OutboxDamaged:
        damage_note(path).touch()
        raise
    except apsw.Error as error:
        if not is_damage(error):
            raise
        damage_note(path).touch()
        raise OutboxDamaged(f"The outbox is damaged ({error}). The next start of `cxr-edge infer` saves what it holds.") from None
    finally:
        if outbox is not None:
            with contextlib.suppress(apsw.Error):
                outbox.close()


def is_damage(error: apsw.Error) -> bool:
    """Return whether an error of SQLite says that the file itself is bad, not that it is full, busy or not there."""
    bad_read = getattr(error, "extendedresult", 0) in {apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ}
    return bad_read or isinstance(error, (apsw.CorruptError, apsw.NotADBError, apsw.TooBigError))


def _damage(path: Path) -> str | None:
    """Return what is wrong, or None. Leaves the files as they are."""
    if damage_note(path).exists():
        return "it was found while it was in use"
    last_seq: dict[str, int] = {}
    if path.exists():
        try:
            # Only one that cannot write leaves a log that it does not understand to the salvage.
            with contextlib.closing(_connect(path, apsw.SQLITE_OPEN_READONLY)) as db:
                found = str(db.execute("PRAGMA quick_check(1)").fetchall()[0][0])
                if found != "ok":
                    return found
                if db.execute("PRAGMA user_version").fetchall() != [(0,)]:
                    last_seq = {str(epoch): int(str(seq)) for epoch, seq in db.execute("SELECT epoch, last_seq FROM stream")}
        except apsw.Error as error:
            if is_damage(error):
                return str(error)
            raise _unusable(path, error) from None
    seen = read_witness(path)
    if seen is not None and seen.seq > last_seq.get(seen.epoch, 0):
        return f"it ends with seq {last_seq.get(seen.epoch, 0)} and seq {seen.seq} was given"
    return None


def _settle_log(path: Path) -> None:
    """Copy the log into the database and force that to the disk.

    After a failed fsync the log may show a commit that the disk never got. Once its pages are written anew and forced, it holds.
    """
    if path.exists():
        try:
            with contextlib.closing(_connect(path, apsw.SQLITE_OPEN_READWRITE)) as db:
                db.execute("PRAGMA synchronous = FULL").fetchall()
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except apsw.Error as error:
            raise _unusable(path, error) from None


def _connect(path: Path, flags: int) -> apsw.Connection:
    db = apsw.Connection(str(path), flags=flags)
    db.set_busy_timeout(10_000)
    return db


def _unusable(path: Path, error: apsw.Error) -> OutboxError:
    return OutboxError(f"The outbox {path} cannot be used ({error}). Check that the disk is there, writable and not full.")


@dataclass
class _Epoch:
    base: int
    last_seq: int


def _build(path: Path, device: str, results_bytes: int, progress: Callable[[], object]) -> None:
    """Write `outbox.rebuilt`."""
    epochs, total = _epochs(path, device, progress)
    part = path.with_name("outbox.rebuilt.part")
    for end in ("", "-wal", "-shm", "-journal"):
        part.with_name(part.name + end).unlink(missing_ok=True)
    # Twice the room: what has its receipt and is too much is removed by the outbox itself.
    new = OutboxFile(part, device, read_only=False, results_bytes=2 * results_bytes)
    with new.transaction():
        new.db.execute("UPDATE stream SET base = ?", (total,))
        for name, epoch in epochs.items():
            new.db.execute("INSERT INTO stream VALUES (?, ?, ?, ?)", (epoch.base, device, name, epoch.last_seq))
    batch: list[Saved] = []
    for found in salvage(path, device):
        if isinstance(found, Saved):
            batch.append(found)
        if len(batch) >= STEP:
            _insert(new, epochs, batch)
            batch.clear()
            progress()
    _insert(new, epochs, batch)
    saved, waiting = new.one("SELECT count(*), count(*) FILTER (WHERE receipted = 0) FROM outcome")
    # Closing would do this too and say nothing of a disk that is full; the log would then stay behind, and most rows with it.
    if new.one("PRAGMA wal_checkpoint(TRUNCATE)")[0]:
        raise OutboxError("The outbox cannot be rebuilt while another program reads it. End that program.")
    new.db.close()
    given = sum(epoch.last_seq for epoch in epochs.values())
    log.error("%d outcomes were saved, of %d that were ever recorded; %d of them wait for a receipt.", saved, given, waiting)
    os.rename(part, _rebuilt(path))
    fsync_folder(path.parent)


def _epochs(path: Path, device: str, progress: Callable[[], object]) -> tuple[dict[str, _Epoch], int]:
    """Return the epochs of the damaged outbox in their order, with the last seq that anything tells of, and the next base."""
    last: dict[str, int] = {}
    for found in salvage(path, device):
        seq = found.last_seq if isinstance(found, LastSeq) else found.seq
        last[found.epoch] = max(last.get(found.epoch, 0), seq)
        progress()
    if (seen := read_witness(path)) is not None:
        # Last in the order, since it is the one that was being written.
        last[seen.epoch] = max(last.pop(seen.epoch, 0), seen.seq)
    epochs, base = dict[str, _Epoch](), 0
    for name, seq in last.items():
        epochs[name] = _Epoch(base, seq)
        base += max(seq, 1)  # an epoch without outcomes needs a base of its own too
    return epochs, base


def _insert(new: OutboxFile, epochs: dict[str, _Epoch], batch: list[Saved]) -> None:
    with new.transaction():
        for saved in batch:
            new.db.execute(
                "INSERT OR IGNORE INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (epochs[saved.epoch].base + saved.seq, *saved[2:]),
            )


def _swap(path: Path) -> None:
    """Put the damaged files aside and `outbox.rebuilt` in their place. Doing it again after a crash is fine."""
    aside = path.with_name(f"outbox-damaged-{secrets.token_hex(4)}.db")
    for end in ("-wal", ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path.with_name(path.name + end), aside.with_name(aside.name + end))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    damage_note(path).unlink(missing_ok=True)
    os.rename(_rebuilt(path), path)
    fsync_folder(path.parent)
    log.error("The damaged outbox is kept as %s.", aside)


def _rebuilt(path: Path) -> Path:
    return path.with_name("outbox.rebuilt")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int]:
    handle = os.open(path.with_name("outbox.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _acquire(lock: int, kind: int, stop: Stops, progress: Callable[[], object]) -> None:
    while True:
        try:
            return fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            progress()  # what holds it is watched itself
            _pause(stop)


def _pause(stop: Stops) -> None:
    if stop.is_set():
        raise SystemExit(0)
    time.sleep(0.1)
