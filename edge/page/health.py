"""How the device is, in plain words for people who run a clinic and not a computer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.capacity import Capacity
from edge.clock import synchronised
from edge.contract.bundle import Manifest
from edge.page.reading import Reading
from edge.page.words import Words


@dataclass(frozen=True)
class Condition:
    """troubles: what a person should do something about. facts: all else."""

    troubles: list[str]
    facts: list[str]


@dataclass(frozen=True)
class Health:
    """Of one device."""

    state: Path
    reading: Reading
    capacity: Capacity
    manifest: Manifest | None

    def read(self, words: Words) -> Condition:
        """Return how it is now."""
        troubles: list[str] = []
        facts: list[str] = []
        room = self.capacity.room()
        free = f"{room.disk_free / 1e9:.1f}"
        if room.level == "full":
            troubles.append(words("send.no_room"))
        if room.disk_free < 2 * room.least_free:
            troubles.append(words("health.disk_low", free=free))
        else:
            facts.append(words("health.disk", free=free))
        with self.reading.open() as outbox:
            waiting = outbox.waiting()
        facts.append(words("health.waiting", count=waiting) if waiting else words("health.waiting_none"))
        if room.spooled_files:
            facts.append(words("health.spool", count=room.spooled_files))
        if (aside := _count(self.state / "aside")) > 0:
            facts.append(words("health.aside", count=aside))
        facts.append(words("health.clock" if synchronised() else "health.clock_not"))
        if self.manifest is not None:
            facts.append(words("health.model", name=f"{self.manifest.name} {self.manifest.version}"))
        return Condition(troubles, facts)


def _count(folder: Path) -> int:
    return sum(not path.name.startswith(".") for path in folder.iterdir()) if folder.is_dir() else 0
