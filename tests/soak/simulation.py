"""A simulated clinic from the first study to the last receipt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.soak.killer import Killer
from tests.soak.plan import Plan, make_studies, portions
from tests.soak.processes import DEVICE
from tests.soak.site import Site
from tests.soak.stage import Stage, Stuck, passed
from tests.soak.weather import Weather

_HELD_BACK = 12
"""Studies that are sent at the very end, to see that all still works."""
_FEW = 10
_TRICKLE_S = 0.1


class Simulation:
    """One run. `run` may be called once."""

    def __init__(self, plan: Plan, home: Path) -> None:
        """Args: home: an empty folder, for everything but the device's state."""
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self.site = Site(plan, home)
        self._stage = Stage(self.site, plan.limit_s)
        self._killer = Killer(plan, self.site.processes, self._rng)
        self.weather = Weather(plan, self.site, self._stage, self._killer, self._rng)
        self._studies = make_studies(plan, self._rng)
        self._released = 0
        self._next = 0.0

    def run(self) -> None:
        """Let it all happen, and see that everything arrives.

        Raises:
            Stuck: if something does not happen in time.
        """
        self.site.processes.clock = self._plan.clocks[0]
        for name in ("mosquitto", "aggregator", *DEVICE):
            self.site.processes.start(name)
        for sender in self.site.all_senders():
            sender.start()
        self._fill_outbox()
        self._live()
        self._arrive()

    def end(self) -> None:
        """End every process and thread."""
        for sender in self.site.all_senders():
            if sender.is_alive():
                sender.end()
        self.site.processes.end()
        self.site.link.close()

    def _fill_outbox(self) -> None:
        """No link for months: the outbox becomes full and nothing more is taken in, until the link is back for once."""

        def refused() -> int:
            self._trickle()
            return self.site.refused()

        def taken() -> bool:
            self._trickle()
            return self.site.ledger.received() > before

        self._wait(refused, "an X-ray machine is told that there is no room in the outbox")
        with self.weather.link_for_once():
            self._wait(lambda: self.site.device.waiting() == 0, "all that waited for months is delivered")
        before = self.site.ledger.received()
        self._wait(taken, "there is room again")

    def _live(self) -> None:
        """Days of 24 hours, until all kills and all studies but the last have been."""
        plan = self._plan
        shares = iter(portions(len(self._studies) - _HELD_BACK, plan.kills))
        fulls = [plan.kills * (2 * number + 1) // (2 * plan.fulls) for number in range(plan.fulls)]
        clocks = [(plan.kills * number // len(plan.clocks), clock) for number, clock in enumerate(plan.clocks)][1:]
        self.weather.begin()
        next_kill, done = 0.0, 0
        while self._killer.left or self.weather.disk_is_full:
            self._stage.tick()
            self.weather.step()
            if not self._killer.left or time.monotonic() < next_kill or self._too_many():
                continue
            next_kill = time.monotonic() + self._rng.uniform(0, 2 * plan.pace_s)
            self.weather.kill()
            while done < plan.kills - self._killer.left:
                done += 1
                self._release(next(shares))
            if fulls and done >= fulls[0] and not self.weather.disk_is_full:
                del fulls[0]
                self.weather.fill_disk()
            if clocks and done >= clocks[0][0]:
                self.weather.set_clock(clocks.pop(0)[1])

    def _arrive(self) -> None:
        """The link is back for good: all that was received arrives, under clocks that were never right."""
        self._release(len(self._studies) - _HELD_BACK)
        self.weather.set_clock("1970")
        self.weather.link_for_good()
        self._wait_for_all()
        self.weather.set_clock("2050")
        self._release(_HELD_BACK)
        self._wait_for_all()
        self._stage.wait(passed(2.0), "whatever would make one too many has had its chance", 10)

    def _release(self, count: int) -> None:
        for study in self._studies[:count]:
            self._rng.choice(self.site.senders[study.way]).given.put(study)
        del self._studies[:count]
        self._released += count

    def _trickle(self) -> None:
        """Now and then send a study from an X-ray machine, which is told at once what becomes of it."""
        if time.monotonic() > self._next and self._outstanding() < _FEW:
            self._next = time.monotonic() + _TRICKLE_S
            study = next((study for study in self._studies if study.way == "machine"), None)
            if study is None:
                raise Stuck("the outbox does not become full, however much is sent")
            self._studies.remove(study)
            self._studies.insert(0, study)
            self._release(1)

    def _outstanding(self) -> int:
        return self._released - self.site.ledger.received()

    def _too_many(self) -> bool:
        """More studies wait for the device than it should lag behind: on a slow machine it gets more time between two kills."""
        return not self.weather.disk_is_full and self._outstanding() > self._plan.most_outstanding

    def _wait_for_all(self) -> None:
        site = self.site
        self._wait(lambda: site.ledger.received() == self._released, "every sender was told that all is received")
        self._wait(lambda: not any(sender.busy for sender in site.all_senders()), "the browser is done")
        self._wait(lambda: not site.spool.names_waiting(), "everything in the spool has its outcome")
        self._wait(lambda: not list((site.device.state / "requests").glob("*.json")), "what was to be taken back is")
        self._wait(lambda: site.device.waiting() == 0, "every outcome has its receipt")

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        self._stage.wait(condition, what, self._plan.patience_s)
