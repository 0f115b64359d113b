"""What a device tells of itself, for the retained status topic and its last will."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import edge
from edge.capacity import Capacity
from edge.clock import boot_id, synchronised, wall_clock
from edge.config import Device
from edge.contract.bundle import Manifest
from edge.contract.messages import Status
from edge.outbox import Outbox
from edge.outbox_file import damaged_outboxes

State = Literal["online", "offline"]


@dataclass(frozen=True)
class StatusWriter:
    """Makes the present status of one device."""

    device: Device
    manifest: Manifest | None
    outbox: Outbox

    def __call__(self, state: State) -> Status:
        """Return the status as it is now."""
        state_folder = Path(self.device.state)
        room = Capacity(state_folder, self.device.storage.results_mb * 2**20).room()
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
            boot_id=boot_id(),
            uptime_s=round(time.clock_gettime(time.CLOCK_BOOTTIME), 1),
            clock_synchronised=synchronised(),
            sent_at=wall_clock(),
        )
