"""The loop of `cxr-edge infer`: what is in the spool, then what comes, and between them what was asked through the page."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from functools import partial

from inotify_simple import INotify, flags

from edge.errors import OutboxFull
from edge.infer.inference import MAX_TRIALS, Inference
from edge.infer.trials import Trials
from edge.intake.spool import Intake, Spool
from edge.requests import Requests, VoidRequest
from edge.unattended.lifecycle import Stop
from edge.unattended.notify import nothing

log = logging.getLogger(__name__)

_RESCAN_S = 5.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class SpoolWatch:
    """Waits for files in the spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._notify = INotify()
        self._notify.add_watch(spool.incoming, flags.MOVED_TO | flags.ONLYDIR)

    def close(self) -> None:
        """Stop listening."""
        self._notify.close()

    def wait(self, timeout_s: float) -> list[Intake]:
        """Return the files that came in, or nothing after `timeout_s` seconds."""
        return [self._spool.intake(event.name) for event in self._notify.read(timeout=int(timeout_s * 1e3)) if "~" in event.name]


def infer_forever(
    inference: Inference,
    spool: Spool,
    trials: Trials,
    stop: Stop,
    requests: Requests,
    tidy: Callable[[], object],
    progress: Callable[[], object] = nothing,
) -> None:
    """Process what is in the spool, then what comes, until told to stop; between them, what was asked through the page.

    `tidy` is called every few seconds and removes what is kept no longer. Names of files never go to the log. While outbox or disk
    are full, everything stays where it is and is tried again. `progress` is called when an intake is settled, and when the spool
    was looked at.
    """
    watch = SpoolWatch(spool)
    try:
        _process_all(watch, inference, spool, trials, stop, requests, tidy, progress)
    finally:
        watch.close()


def _process_all(
    watch: SpoolWatch,
    inference: Inference,
    spool: Spool,
    trials: Trials,
    stop: Stop,
    requests: Requests,
    tidy: Callable[[], object],
    progress: Callable[[], object],
) -> None:
    next_scan = 0.0
    full = False
    while not stop.is_set():
        due = time.monotonic() >= next_scan
        intakes = spool.pending() if due else watch.wait(min(_RESCAN_S, 0.5))
        if due:
            next_scan = time.monotonic() + _RESCAN_S
            inference.raise_if_damaged()
            progress()
        work = [partial(_settle, inference, spool, trials, intake) for intake in intakes]
        for step in [*work, partial(do_requests, inference, requests)]:
            if stop.is_set():
                return
            try:
                done = step()
            except (OutboxFull, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _FULL:
                    raise
                trials.excuse()
                if not full:
                    log.error("Nothing can be recorded at present, and the X-rays wait in the spool (%s)", error)
                full = True
                break  # the next scan finds the others
            progress()
            if full and done:
                log.info("there is room again")
                full = False
        if due:
            tidy()


def _settle(inference: Inference, spool: Spool, trials: Trials, intake: Intake) -> bool:
    try:
        if (place := trials.left_over(intake)) is not None:
            spool.settle(intake, place)
        elif trials.begin(intake) > MAX_TRIALS:
            inference.give_up(intake)
        else:
            inference.process(intake)
    except FileNotFoundError:
        if intake.path.exists():
            raise
        # Else it was an event for what the scan has already settled.
    return True


def do_requests(inference: Inference, requests: Requests) -> bool:
    """Do what people have asked for; return whether anything was."""
    asked = requests.pending()
    for path, request in asked:
        done = None if request is None else inference.do(request)
        if done:
            log.info("%s", done)
        elif isinstance(request, VoidRequest):
            requests.set_aside(path, request)
        else:
            log.warning("a request makes no sense here")
        path.unlink(missing_ok=True)
    return bool(asked)
