"""An uploaded file on its way into the spool: received whole, forced to the disk, and only then is the browser told."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from edge.durable import fsync_folder
from edge.intake.spool import Intake, Spool

_NAME_BYTES = 160
"""With the intake's id before it a name must not be longer than file systems allow, 255 bytes."""
_ENDING_BYTES = 60


class TooLarge(Exception):
    """More bytes than the device accepts."""


class Empty(Exception):
    """No bytes at all."""


class Uploads:
    """Receives files for one spool; `max_bytes` of each."""

    def __init__(self, state: Path, spool: Spool, max_bytes: int) -> None:
        self._folder = state / "uploads"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._spool = spool
        self._max_bytes = max_bytes
        # Of a process that ended; its browser was told of no success.
        for left_over in self._folder.iterdir():
            shutil.rmtree(left_over)

    async def receive(self, name: str, chunks: AsyncIterator[bytes]) -> Intake:
        """Return the intake of a file that is in the spool and will survive a power cut.

        Args:
            name: as the browser gives it; only its last part counts.
            chunks: of the content.

        Raises:
            TooLarge: as soon as there are too many bytes.
            Empty: if there are none.
            OSError: if the disk does not take it.
        """
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        path = folder / _last_part(name)
        try:
            await self._write(path, chunks)
            intake = self._spool.admit(path)  # from here on it may be answered and gone at any moment
            fsync_folder(intake.path.parent)
            return intake
        finally:
            shutil.rmtree(folder)

    async def _write(self, path: Path, chunks: AsyncIterator[bytes]) -> None:
        count = 0
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            async for chunk in chunks:
                count += len(chunk)
                if count > self._max_bytes:
                    raise TooLarge
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if not count:
            raise Empty


def _last_part(name: str) -> str:
    last = name.replace("\\", "/").rpartition("/")[2].replace("\0", "").strip()
    return _short(last) if last.strip(".") else "upload"


def _short(name: str) -> str:
    """Return a name whose bytes a file system takes, with its ending: a letter has up to four of them."""
    whole = name.encode("utf-8", "ignore")
    if len(whole) <= _NAME_BYTES:
        return whole.decode()
    return whole[: _NAME_BYTES - _ENDING_BYTES].decode("utf-8", "ignore") + whole[-_ENDING_BYTES:].decode("utf-8", "ignore")
