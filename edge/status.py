"""What a device tells of itself, for the retained status topic and its last will."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import edge
from edge.clock import boot_id, synchronised, wall_clock
from edge.config import Device
from edge.contract.bundle import Manifest
from edge.contract.messages import Status
from edge.outbox import Outbox
from edge.spool import free_bytes

State = Literal["online", "offline"]


@dataclass(frozen=True)
class StatusWriter:
    """Makes the present status of one device."""

    device: Device
    manifest: Manifest | None
    outbox: Outbox

    def __call__(self, state: State) -> Status:
        """Return the status as it is now."""
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
            disk_free_bytes=free_bytes(Path(self.device.state)),
            boot_id=boot_id(),
            uptime_s=round(time.clock_gettime(time.CLOCK_BOOTTIME), 1),
            clock_synchronised=synchronised(),
            sent_at=wall_clock(),
        )
