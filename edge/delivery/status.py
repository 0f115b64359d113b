"""What a device tells of itself, for the retained status topic and its last will."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import edge
from edge.capacity import Capacity
from edge.clock import boot_id, local_time, synchronised, wall_clock
from edge.commissioning.journal import read_standing
from edge.commissioning.standing import shown_and_why
from edge.config import Device
from edge.contract.bundle import Manifest
from edge.contract.codec import recorded_outcome
from edge.contract.messages import Status
from edge.outbox.file import damaged_outboxes
from edge.outbox.reader import OutboxReader
from edge.unattended.board import read_board
from edge.unattended.tally import read_restarts

State = Literal["online", "offline"]


@dataclass(frozen=True)
class StatusWriter:
    """Makes the present status of one device."""

    device: Device
    manifest: Manifest | None
    outbox: OutboxReader

    def __call__(self, state: State) -> Status:
        """Return the status as it is now."""
        state_folder = Path(self.device.state)
        room = Capacity(state_folder, self.device.storage.results_bytes).room()
        shown, because = shown_and_why(read_standing(state_folder), self.device.commissioning.readings)
        board = read_board()
        return Status(
            device=self.device.device,
            facility=self.device.facility,
            state=state,
            software=edge.__version__,
            model=self.manifest.model_sha256 if self.manifest else None,
            model_name=f"{self.manifest.name} {self.manifest.version}" if self.manifest else None,
            epoch=self.outbox.epoch,
            last_seq=self.outbox.last_seq(),
            waiting=self.outbox.waiting(),
            disk_free_bytes=room.disk_free,
            room=room.level,
            results_bytes=room.results,
            results_limit_bytes=room.results_limit,
            spool_files=room.spooled_files,
            spool_bytes=room.spooled,
            damaged_outboxes=len(damaged_outboxes(state_folder)),
            answers="shown" if shown else "silent",
            silent_because=because,
            oldest_waiting_s=oldest_waiting_s(self.outbox),
            restarts=sum(read_restarts(state_folder).values()),
            temperature_c=board.temperature_c,
            hot_c=self.device.hot_c,
            throttled=board.throttled,
            memory_available_bytes=board.memory_available,
            memory_total_bytes=board.memory_total,
            load_1m=board.load_1m,
            boot_id=boot_id(),
            uptime_s=round(time.clock_gettime(time.CLOCK_BOOTTIME), 1),
            clock_synchronised=synchronised(),
            sent_at=wall_clock(),
        )


def oldest_waiting_s(outbox: OutboxReader) -> float:
    """Return the age of the oldest outcome without a receipt in seconds, 0 if there is none.

    Of an earlier boot it is known by the wall clock, where both times were right; else it is at least as old as this boot.
    """
    for row in outbox.unreceipted(0, 1):
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        outcome = recorded_outcome(row.payload)
        if outcome is None:
            return round(now, 1)
        if outcome.boot_id == boot_id():
            return round(max(now - outcome.monotonic_ns / 1e9, 0.0), 1)
        if outcome.clock_synchronised and synchronised():
            then = local_time(outcome.recorded_at)
            since = 0.0 if then is None else (datetime.datetime.now(datetime.timezone.utc) - then).total_seconds()
            return round(max(since, now), 1)
        return round(now, 1)
    return 0.0
