"""The process that tells the PACS: one outcome after the other, by number, each until the PACS has it or refuses it for good.

One over which the PACS breaks off is put off, since it may be to blame, and tried again when nothing else is to be told. Only what
fails although the PACS has taken something else since is counted: one that breaks off over everything loses nothing.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Set
from pathlib import Path

import apsw
import msgspec

from edge.errors import OutboxError
from edge.outbox.reader import OutboxReader
from edge.outbox.reading import Reading
from edge.pacs.courier import Carries, Lost
from edge.pacs.cursor import Place, PutOff, begin, keep_place, read_place
from edge.pacs.orders import PICTURE, Sent
from edge.pacs.waiting import Next, Waiting
from edge.unattended.lifecycle import Stop
from edge.unattended.notify import nothing

log = logging.getLogger(__name__)

MOST_TRIALS = 3
"""Of an object that the PACS refuses, and of an outcome that ends the child, the picture left out from the second on."""
MOST_BREAKS = 8
"""Trials of an outcome that is put off. The pause before them begins with the longest one and doubles: half a day together."""
_LOOK_EVERY_S = 2.0
_PAUSES_S = (2.0, 300.0)


class Messenger:
    """Of one device. Opens the outbox anew for each look, since a damaged one is replaced while this runs."""

    def __init__(
        self,
        state: Path,
        reading: Reading,
        waiting: Waiting,
        courier: Carries,
        pauses: tuple[float, float] = _PAUSES_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: pauses: after the first failure in a row and at most, in seconds."""
        self._state = state
        self._reading = reading
        self._waiting = waiting
        self._courier = courier
        self._pauses = pauses
        self._clock = clock
        self._due: dict[tuple[str, int], float] = {}
        self._doubted: set[tuple[str, int]] = set()
        self._late_after = 0.0
        self._failures = 0
        self._said = ""

    def run(self, stop: Stop, progress: Callable[[], object] = nothing) -> None:
        """Tell the PACS what there is, then what comes, until told to stop. `progress` is called after each step.

        Raises:
            OSError: if the disk does not take how far it got.
        """
        while not stop.is_set():
            pause = self.step()
            progress()
            until = time.monotonic() + pause
            while time.monotonic() < until and not stop.is_set():
                progress()  # in the thread of the work, and nothing is due: that is not a hang
                time.sleep(0.1)

    def step(self) -> float:
        """Do what is next; return for how many seconds there is nothing to do."""
        try:
            with self._reading.open() as outbox:
                begin(self._state, outbox)
                place = read_place(self._state) or Place()
                found = self._waiting.next(outbox, place) or self._late(outbox, place)
        except (OutboxError, apsw.Error) as error:  # it is only just being made, or being rebuilt
            self._say_once(str(error))
            return _LOOK_EVERY_S
        if found is None:
            self._courier.rest()
            return _LOOK_EVERY_S
        if found.gone:
            log.error("%d outcomes were removed for room before the PACS could be told of them", found.gone)
        self._doubted.discard((found.epoch, found.seq))
        if found.order is None:
            self._done(place, found)
            return 0.0
        try:
            sent = self._courier.deliver(found.order)
        except Lost as lost:
            return self._lost(place, found, str(lost))
        return self._told(place, found, sent)

    def _late(self, outbox: OutboxReader, place: Place) -> Next | None:
        """Return what was put off and tried longest ago, if it is due."""
        now = self._clock()
        due = (late for late in place.put_off if now >= max(self._late_after, self._due.get(_key(late), 0.0)))
        late = next(due, None)
        return None if late is None else self._waiting.again(outbox, late)

    def _told(self, place: Place, found: Next, sent: Sent) -> float:
        if sent.away:
            self._say_once(f"The PACS is not told at present, and what it is to be told waits: {sent.away}")
            return self._pause()
        if sent.taken:
            place = self._count(place, self._doubted)
            self._failures, self._late_after = 0, 0.0
        if sent.broken:
            objects = len(sent.broken) + len(sent.refused)
            return self._put_off(place, found, objects, _why(sent.broken), to_blame=bool(sent.taken))
        self._said, self._failures = "", 0
        if sent.nothing:
            log.info("seq %d: no study to put an answer into (%s)", found.seq, sent.nothing)
        if not sent.refused:
            if sent.taken:
                log.info("seq %d: the PACS has the %s", found.seq, " and the ".join(sent.taken))
            self._done(place, found)
            return 0.0
        return self._refused(place, found, sent)

    def _put_off(self, place: Place, found: Next, objects: int, why: str, *, to_blame: bool) -> float:
        """Let the others go on. to_blame: it has failed though the PACS is well."""
        trials = 0 if found.put_off is None else found.put_off.trials
        late = PutOff(epoch=found.epoch, seq=found.seq, objects=objects, trials=trials)
        if to_blame or found.put_off is None:
            log.warning("seq %d: it is put off, and the others go on (%s)", found.seq, why)
        place = _past(place, found)
        place = msgspec.structs.replace(place, put_off=(*place.put_off, late))
        if to_blame:
            place = self._count(place, {_key(late)})
        else:
            self._doubted.add(_key(late))
            self._late_after = self._clock() + self._pauses[1]
        keep_place(self._state, place)
        return self._pause() if found.put_off is None else _LOOK_EVERY_S  # what comes anew does not wait for what is put off

    def _count(self, place: Place, to_blame: Set[tuple[str, int]]) -> Place:
        """Count a trial of what was put off, and give up what has had too many."""
        kept, refused = [], place.refused
        for late in place.put_off:
            trials = late.trials + (_key(late) in to_blame)
            if trials > late.trials:
                self._due[_key(late)] = self._clock() + self._pauses[1] * 2**late.trials
            if trials < MOST_BREAKS:
                kept.append(late if trials == late.trials else msgspec.structs.replace(late, trials=trials))
                continue
            log.error("seq %d: the PACS has not taken it in %d trials; it is not sent any more", late.seq, trials)
            refused += late.objects
        self._doubted -= to_blame
        return msgspec.structs.replace(place, put_off=tuple(kept), refused=refused)

    def _refused(self, place: Place, found: Next, sent: Sent) -> float:
        why = _why(sent.refused)
        if found.put_off is not None:
            return self._put_off(place, found, len(sent.refused), why, to_blame=True)
        if place.trials + 1 < MOST_TRIALS:
            log.warning("seq %d: the PACS refuses it (%s); it is tried again", found.seq, why)
            keep_place(self._state, msgspec.structs.replace(place, trials=place.trials + 1))
            return self._pause()
        log.error("seq %d: the PACS refuses it (%s); it is not sent any more", found.seq, why)
        self._failures = 0
        self._done(place, found, refused=len(sent.refused))
        return 0.0

    def _lost(self, place: Place, found: Next, why: str) -> float:
        if found.put_off is not None:
            return self._put_off(place, found, found.put_off.objects, why, to_blame=True)
        if place.trials + 1 < MOST_TRIALS:
            log.error("seq %d: an answer to the PACS could not be made (%s); it is tried again without its picture", found.seq, why)
            keep_place(self._state, msgspec.structs.replace(place, trials=place.trials + 1, dropped=(PICTURE,)))
            return self._pause()
        log.error("seq %d: an answer to the PACS could not be made (%s); it is not tried any more", found.seq, why)
        self._done(place, found, refused=1)
        return 0.0

    def _done(self, place: Place, found: Next, refused: int = 0) -> None:
        place = _past(place, found)
        keep_place(self._state, msgspec.structs.replace(place, refused=place.refused + refused))

    def _pause(self) -> float:
        self._failures += 1
        longest: float = min(self._pauses[0] * 2 ** min(self._failures - 1, 16), self._pauses[1])
        self._courier.rest()
        return longest * random.uniform(0.5, 1.0)

    def _say_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            log.warning("%s", text)


def _key(late: PutOff) -> tuple[str, int]:
    return late.epoch, late.seq


def _past(place: Place, found: Next) -> Place:
    """Return the place behind an outcome, which is put off no longer."""
    gone = place.gone + found.gone
    if found.put_off is not None:
        put_off = tuple(late for late in place.put_off if _key(late) != _key(found.put_off))
        return msgspec.structs.replace(place, put_off=put_off, gone=gone)
    through = place.through | {found.epoch: found.seq}
    return msgspec.structs.replace(place, through=through, trials=0, dropped=(), gone=gone)


def _why(failed: dict[str, str]) -> str:
    return ", ".join(f"{kind}: {reason}" for kind, reason in failed.items())
