"""The outbox as the page reads it: opened for each answer, since a damaged one is replaced while the page runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

from edge.errors import OutboxError
from edge.outbox.reader import OutboxReader


@dataclass(frozen=True)
class Reading:
    """Of one device."""

    path: Path
    device: str

    @contextlib.contextmanager
    def open(self) -> Iterator[OutboxReader]:
        """Open it for reading.

        Raises:
            OutboxError: if it is only just being made, or cannot be read.
        """
        outbox = OutboxReader(self.path, self.device)
        try:
            yield outbox
        except apsw.Error as error:
            raise OutboxError(f"The outbox cannot be read ({error}).") from None
        finally:
            outbox.close()
