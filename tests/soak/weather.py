"""What fails around the clinic: the link by the hour, the broker's files, the disk, the clock."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator

from tests.soak.clocks import Clock
from tests.soak.killer import Killer
from tests.soak.plan import Plan
from tests.soak.site import Site
from tests.soak.stage import Stage, Stuck, passed

_FIRST_HOUR = 17
_UP_HOUR = 23
_FULL_S = 4.0
_NOTICED_S = 90.0
_RESERVE = 100 * 2**20
"""Less than the device asks for before it takes anything in, and enough to write."""


class Weather:
    """Asked to `step` again and again while days go by."""

    def __init__(self, plan: Plan, site: Site, stage: Stage, killer: Killer, rng: random.Random) -> None:
        self._plan = plan
        self._site = site
        self._stage = stage
        self._killer = killer
        self._rng = rng
        self._wipes_left = plan.wipes
        self._began = self._changed = 0.0
        self._up = False
        self._full_since: float | None = None
        self._refused_before = 0
        self.up_s = self.down_s = 0.0
        self.windows = 0
        self.wipes = 0
        self.disk_fulls = 0
        self.left_in_folder = 0

    @property
    def disk_is_full(self) -> bool:
        """Whether the disk is full just now."""
        return self._full_since is not None

    def begin(self) -> None:
        """The first day begins in the evening, with the link down."""
        self._changed = time.monotonic()
        self._began = self._changed - _FIRST_HOUR * self._plan.hour_s

    def step(self) -> None:
        """Let happen what is due."""
        hour = (time.monotonic() - self._began) / self._plan.hour_s % 24
        if (hour >= _UP_HOUR) is not self._up:
            self._change_link(up=hour >= _UP_HOUR)
        if self._full_since is not None:
            self._step_full(time.monotonic() - self._full_since)

    def kill(self) -> None:
        """Kill something; where it is Mosquitto, its files may go as well."""
        kind = self._killer.draw()
        # One is kept for the end; the others are spread over what is left of Mosquitto's kills.
        if kind == "mosquitto" and self._rng.random() < (self._wipes_left - 1) / self._killer.left_of(kind):
            self.wipe_broker()
        else:
            self._killer.kill(kind)

    def fill_disk(self) -> None:
        """Some other program takes all the room; the second time, first all but a little of what the device keeps free."""
        self.disk_fulls += 1
        self._refused_before = self._site.refused()
        self._full_since = time.monotonic()
        if self.disk_fulls > 1:
            self._site.disk.fill(leave=_RESERVE)
            self._stage.after(_FULL_S / 2, self._site.disk.fill)
        else:
            self._site.disk.fill()

    def set_clock(self, clock: Clock) -> None:
        """The device's clock is another from now on."""
        self._site.processes.clock = clock
        self._killer.kill_device()

    def wipe_broker(self) -> None:
        """Kill Mosquitto, and take away what it has saved."""
        self._killer.kill("mosquitto", again=False)
        for path in self._site.broker_folder.glob("mosquitto.db*"):
            path.unlink()
        self._site.processes.start("mosquitto")
        self._wipes_left -= 1
        self.wipes += 1

    @contextlib.contextmanager
    def link_for_once(self) -> Iterator[None]:
        """Before the days begin: the link is up."""
        self._site.link.change("up")
        for share in (0.0, 0.4, 1.0):  # in the middle of delivering thousands
            self._stage.after(share * self._plan.hour_s, lambda: self._killer.kill("relay"))
        yield
        self._site.link.change("broken")

    def link_for_good(self) -> None:
        """The link is up from now on; what the broker then takes is lost with it, as nobody is there to take it over."""
        self._close_account()
        self._killer.kill("aggregator", again=False)
        before, enough = self._site.link.carried, passed(_FULL_S)
        self._site.link.change("up")
        taken = 50_000  # bytes, if so many wait
        self._stage.wait(lambda: self._site.link.carried - before > taken or enough(), "the broker takes results", 2 * _FULL_S)
        self._stage.wait(passed(1.0), "it has acknowledged them", 10)
        self._wipe_and_return()

    def _change_link(self, *, up: bool) -> None:
        self._close_account()
        self._up = up
        if not up:
            self._site.link.change(self._rng.choice(("broken", "silent")))
            return
        self.windows += 1
        self._site.link.change("up")
        hour = self._plan.hour_s
        # Most of what can go wrong with delivery goes wrong now; and a relay that has just been started tries at once.
        self._stage.after(self._rng.uniform(0.0, 0.2) * hour, lambda: self._killer.kill("relay"))
        if self._wipes_left > 1 and self.windows % 2:
            self._killer.kill("aggregator", again=False)
            self._stage.after(self._rng.uniform(0.3, 0.5) * hour, self._wipe_and_return)
        else:
            kind = self._rng.choice(("aggregator", "mosquitto", "relay"))
            self._stage.after(self._rng.uniform(0.3, 1.0) * hour, lambda: self._killer.kill(kind))

    def _wipe_and_return(self) -> None:
        self.wipe_broker()
        self._site.processes.start("aggregator")

    def _close_account(self) -> None:
        now = time.monotonic()
        if self._up:
            self.up_s += now - self._changed
        else:
            self.down_s += now - self._changed
        self._changed = now

    def _step_full(self, since_s: float) -> None:
        waiting = len(os.listdir(self._site.device.inbox))
        self.left_in_folder = max(self.left_in_folder, waiting)
        noticed = self._site.refused() > self._refused_before and waiting
        if noticed and since_s > _FULL_S:
            self._site.disk.free()
            self._full_since = None
        elif since_s > _NOTICED_S:
            raise Stuck("the disk is full, and nobody was told or left waiting")
