"""Files that enter the spool and leave it, to be recorded: each is said to be received when its sender would be told.

python -m tests.support.spool_life FOLDER SEED
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from edge.intake.spool import Intake, Spool
from tests.support.outbox_life import say

FILES = 150


def content(number: int) -> bytes:
    """Return the bytes of a file: from one sector to several blocks."""
    return random.Random(number).randbytes(random.Random(-number).choice((300, 4096, 20_000)))


def main(home: Path, seed: int) -> None:
    """Admit by rename and across file systems; some files have their outcome and leave."""
    rng = random.Random(seed)
    spool = Spool(home / "state")
    inbox = home / "inbox"
    inbox.mkdir()
    rename, waiting = os.rename, list[Intake]()

    def elsewhere(source: str | Path, target: str | Path) -> None:
        if str(source).startswith(str(inbox)):
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    for number in range(FILES):
        path = inbox / f"{number}.dcm"
        path.write_bytes(content(number))
        os.rename = elsewhere if rng.random() < 0.5 else rename  # type: ignore[assignment]
        intake = spool.admit(path)
        if os.rename is rename:
            spool.make_durable(intake)
        say(f"received {number}")
        waiting.append(intake)
        if rng.random() < 0.4:
            intake = waiting.pop(0)
            spool.settle(intake, spool.place(intake.id, intake.original_name, answered=rng.random() < 0.9))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
