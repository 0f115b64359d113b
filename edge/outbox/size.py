"""How large the outbox may become, and how large it is, told from the head of its file without opening the database.

Processes that only take files in ask this for every file and need no SQLite for it.
"""

from __future__ import annotations

from pathlib import Path

RESULTS_BYTES = 256 * 2**20
"""What the database and its log may take together, unless device.toml says otherwise."""

LOG_BYTES = 16 * 2**20
"""The part of it that is kept for the log."""

SPARE_BYTES = 2**20
"""The part that is kept free of outcomes, so that a receipt always finds room."""

_MAGIC = b"SQLite format 3\0"


def room_for_outcomes(results_bytes: int) -> int:
    """Return the bytes of the database that outcomes may fill."""
    return results_bytes - LOG_BYTES - SPARE_BYTES


def outbox_bytes(path: Path) -> int:
    """Return the bytes that outcomes fill, as of the last checkpoint; 0 if there is no outbox. Free pages do not count."""
    try:
        with path.open("rb") as file:
            head = file.read(40)
    except FileNotFoundError:
        return 0
    if len(head) < 40 or not head.startswith(_MAGIC):
        return 0
    page = int.from_bytes(head[16:18], "big")
    pages, free = int.from_bytes(head[28:32], "big"), int.from_bytes(head[36:40], "big")
    return max(pages - free, 0) * (65536 if page == 1 else page)
