"""`infer`'s part in silent commissioning, in a process of its own.

`python -m tests.support.commission_life STATE` does requests as they come, until its test kills it.
`python -m tests.support.commission_life STATE COUNT` notes so many readings, and says each once it is acknowledged.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, cast

from edge.commissioning.journal import Journal, journal_path
from edge.commissioning.silence import Site, open_silence
from edge.commissioning.standing import Reading
from edge.config import Commissioning
from edge.infer.loop import do_requests
from edge.outbox.writer import Outbox
from edge.requests import Requests

DEVICE = "clinic-7"
SITE = Site(Commissioning(readings=20), "b" * 64, 0.4)


def main(state: Path) -> None:
    """Do what is asked, without pause, so that a kill finds it at work."""
    silence = open_silence(state, SITE, Outbox(state / "outbox.db", DEVICE))
    requests = Requests(state)
    while True:
        if not do_requests(cast("Any", silence), requests):
            time.sleep(0.001)


def reading(number: int) -> Reading:
    """Return the reading of a number: of different lengths, so that lines lie over the ends of sectors."""
    picture, label = f"{number:064x}", "ab" * (number % 13) or "normal"
    return Reading(epoch="0" * 32, seq=number, picture=picture, label=label, answer="normal", chance=0.5, barred=False)


def note(state: Path, count: int) -> None:
    """Note readings in a new journal, which is opened anew in between."""
    journal = Journal(journal_path(state))
    for number in range(1, count + 1):
        if number % 20 == 0:
            journal.close()
            journal = Journal(journal_path(state))
        journal.append(reading(number))
        sys.stdout.write(f"recorded {number}\n")
        sys.stdout.flush()
    journal.close()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        note(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
