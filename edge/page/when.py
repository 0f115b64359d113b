"""When an outcome was recorded, in the clinic's own time."""

from __future__ import annotations

import datetime

from edge.clock import Reading, local_time
from edge.contract.messages import AnyOutcome


def moment(outcome: AnyOutcome, now: Reading) -> datetime.datetime | None:
    """Return the moment; None where it cannot be known.

    What was recorded before the clock was set is reckoned back from now, as long as the machine has not been started again.
    """
    if outcome.clock_synchronised:
        return local_time(outcome.recorded_at)
    present = local_time(now.wall)
    if present is None or not now.synchronised or outcome.boot_id != now.boot_id:
        return None
    return present - datetime.timedelta(microseconds=(now.monotonic_ns - outcome.monotonic_ns) // 1000)
