"""How the device is, in plain words for people who run a clinic and not a computer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.capacity import ALARM_SHARE, Capacity
from edge.clock import synchronised
from edge.config import HOT_C
from edge.contract.bundle import Manifest
from edge.enrolment.validity import expired, utc_now
from edge.errors import OutboxError
from edge.outbox.file import damaged_outboxes
from edge.outbox.reading import Reading
from edge.page.words import Words
from edge.unattended.board import Board, read_board
from edge.unattended.lifecycle import is_running
from edge.unattended.tally import began_again

_PARTS = {
    "watch": "health.no_watch",
    "dicom": "health.no_dicom",
    "infer": "health.no_infer",
    "relay": "health.no_relay",
    "pacs": "health.no_pacs",
}
_LOOP_S = 5.0
"""Longer than the pause of the service files and a start of a slow board: one in a restart loop never seems to work."""


@dataclass(frozen=True)
class Condition:
    """troubles: what a person should do something about. facts: all else."""

    troubles: list[str]
    facts: list[str]


@dataclass(frozen=True)
class Health:
    """Of one device. parts: the processes that it is to run."""

    state: Path
    parts: Sequence[str]
    reading: Reading
    capacity: Capacity
    manifest: Manifest | None
    """None: it cannot be read."""
    hot_c: float = HOT_C
    certificate: Path | None = None
    """Of the link to the centre, where it is encrypted."""

    def read(self, words: Words) -> Condition:
        """Return how it is now."""
        troubles = [words(key) for name, key in _PARTS.items() if name in self.parts and not self._works(name)]
        facts: list[str] = []
        room = self.capacity.room()
        free = f"{room.disk_free / 1e9:.1f}"
        if room.level == "full":
            troubles.append(words("send.no_room"))
        elif room.results >= ALARM_SHARE * room.results_limit:
            troubles.append(words("health.results_many"))
        if room.disk_free < 2 * room.least_free:
            troubles.append(words("health.disk_low", free=free))
        else:
            facts.append(words("health.disk", free=free))
        try:
            with self.reading.open() as outbox:
                waiting = outbox.waiting()
            facts.append(words.count("health.waiting", waiting) if waiting else words("health.waiting_none"))
        except OutboxError:
            troubles.append(words("health.no_outbox"))
        if damaged_outboxes(self.state):
            troubles.append(words("health.damaged"))
        if room.spooled_files:
            facts.append(words.count("health.spool", room.spooled_files))
        if (aside := _count(self.state / "aside")) > 0:
            facts.append(words.count("health.aside", aside))
        _say_board(read_board(), self.hot_c, words, troubles, facts)
        # By a clock that nobody sets it may only seem so; the log says it all the same.
        if self.certificate is not None and synchronised() and (over := expired(self.certificate, utc_now())) is not None:
            troubles.append(words("health.certificate", day=f"{over:%Y-%m-%d}"))
        facts.append(words("health.clock" if synchronised() else "health.clock_not"))
        if self.manifest is None:
            troubles.append(words("health.no_model"))
        else:
            facts.append(words("health.model", name=f"{self.manifest.name} {self.manifest.version}"))
        return Condition(troubles, facts)

    def _works(self, name: str) -> bool:
        # One that falls over at each start holds its lock until it does.
        return is_running(self.state, name) and not began_again(self.state, name, _LOOP_S)


def _say_board(board: Board, hot_c: float, words: Words, troubles: list[str], facts: list[str]) -> None:
    hot = board.hot(hot_c)
    if hot:
        troubles.append(words("health.hot"))
    if "under_voltage" in board.throttled:
        troubles.append(words("health.power"))
    elif board.throttled and not hot:
        facts.append(words("health.slow"))
    if board.low_memory:
        troubles.append(words("health.memory"))


def _count(folder: Path) -> int:
    return sum(not path.name.startswith(".") for path in folder.iterdir()) if folder.is_dir() else 0
