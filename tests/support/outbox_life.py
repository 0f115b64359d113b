"""Months of one outbox in seconds, to be recorded: two connections as `infer` and `relay` have them, and each says what is certain.

python -m tests.support.outbox_life DATABASE SEED FULL|NORMAL
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from edge.outbox.writer import Entry, Outbox

WARM = 20
ACTIONS = 500


def payload(seq: int) -> bytes:
    """Return the payload of a seq: sizes from a few bytes to several pages."""
    return random.Random(seq).randbytes(random.Random(-seq).choice((40, 700, 1400, 1500, 6000)))


def main(path: Path, seed: int, synchronous: str) -> None:
    """Record, receipt and forget at random."""
    rng = random.Random(seed)
    infer, relay = Outbox(path, "clinic-1"), Outbox(path, "clinic-1")
    if synchronous == "NORMAL":
        for box in (infer, relay):
            box._db.execute("PRAGMA synchronous = NORMAL")
    for action in range(WARM + ACTIONS):
        if action == WARM:
            say("warm")
        if action < WARM or rng.random() < 0.6:
            number = infer.last_seq() + 1
            seq, _ = infer.record(Entry(f"{number:064x}", "result", payload, original_name=f"{number}.png", place=f"{number}"))
            say(f"recorded {seq}")
        elif rng.random() < 0.7:
            through = rng.randint(relay.lowest_unreceipted() - 1, relay.last_seq())
            say(f"receipting {through}")
            relay.mark_receipted(through, [])
            say(f"receipted {through}")
        elif rng.random() < 0.5:
            relay.forget(rng.randint(0, 60))
        else:
            relay.evict(rng.randint(1, 10))
    infer.close()
    relay.close()


def say(line: str) -> None:
    """Tell the recorder, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
