"""`infer` with an outbox on a disk whose fsync fails once, to be recorded; what cannot be written ends the process at once.

python -m tests.support.fsync_life DATABASE
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import apsw

from edge.errors import CxrError
from edge.outbox.rebuild import outbox_of_infer
from edge.outbox.size import RESULTS_BYTES
from edge.outbox.writer import Entry
from tests.support.outbox_life import payload, say

OUTCOMES = 6


class _Never:
    def is_set(self) -> bool:
        return False


def main(path: Path) -> None:
    """Record what is not recorded yet."""
    with outbox_of_infer(path, "clinic-1", RESULTS_BYTES, _Never()) as box:
        for number in range(1, OUTCOMES + 1):
            seq, _ = box.record(Entry(f"{number:064x}", "result", payload, place=str(number)))
            say(f"recorded {seq}")
        os._exit(0)  # as if killed: closing it would tidy up


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (apsw.Error, CxrError) as error:
        sys.stderr.write(str(error))
        sys.stderr.flush()
        os._exit(3)
