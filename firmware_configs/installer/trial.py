"""From one version to another, so that a power cut at any moment leaves a working one.

`trial` names the version that was in service before and the one that is to be. It is on the disk before anything is changed, and is
removed when the new one has shown that it works, or when the old one is in service again. So whoever finds it knows what to do:

    current is `before`   the change was cut off, or is being taken back: put the files of `before` in place again
    current is `after`    the new one has to show that it works; if it does not, back

The units of all versions start `current/bin/cxr-edge`, and `current` changes by one rename.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .device import Device
from .durable import link_durably, unlink_durably, write_durably
from .places import Places
from .units import Manager, put_files, put_links, wait_until_serving, wanted_units
from .versions import half_made, half_written, is_complete, remove_version


@dataclass(frozen=True)
class Trial:
    """Names of folders under versions; `before` is empty where the device was never installed.

    `idle`: units that did not serve with `before` either, as when a share is not mounted; they are not asked of `after`.
    """

    before: str
    after: str
    idle: tuple[str, ...] = ()


def read_trial(places: Places) -> Trial | None:
    """Return the trial that has not ended yet, if any."""
    try:
        read = json.loads(places.trial.read_bytes())
    except FileNotFoundError:
        return None
    return Trial(read["before"], read["after"], tuple(read.get("idle", ())))


class Change:
    """Takes a version into service and, if it does not work, takes the one before back."""

    def __init__(
        self, places: Places, manager: Manager, patience_s: float = 300.0, device: Callable[[Path, Places], Device] = Device
    ) -> None:
        self._places = places
        self._manager = manager
        self._patience_s = patience_s
        self._device = device

    def begin(self, after: str) -> Trial:
        """Write down what is going to happen. Who was in service before a trial that has not ended stays the one to go back to."""
        unended = read_trial(self._places)
        now = self._places.current_name()
        if unended and unended.after == now:
            trial = Trial(unended.before, after, unended.idle)
        else:
            trial = Trial(now, after, self._idle(now))
        # Without what is empty: the version before, which may have to read this, may be one that knows the names alone.
        write_durably(self._places.trial, json.dumps({key: value for key, value in asdict(trial).items() if value != ()}).encode())
        return trial

    def switch(self, name: str) -> None:
        """Put a version into service: its files, then the link."""
        version = self._places.versions / name
        put_files(version, self._places)
        put_links(version, self._places)
        if self._places.current_name() != name:
            link_durably(self._places.current, f"versions/{name}")

    def start(self, name: str) -> None:
        """Let systemd run the units of the version in service."""
        if self._manager.running:
            self._manager.reload()
            self._manager.restart(wanted_units(self._places.versions / name, self._places))

    def trouble(self, trial: Trial) -> str:
        """Return why the version on trial, which is in service, does not work, or an empty text."""
        if idle := self._not_serving(trial.after, trial.idle):
            return f"{', '.join(idle)} did not serve within {self._patience_s:.0f} s"
        version = self._places.versions / trial.after
        return self._device(version, self._places).trouble() if self._places.device_toml.exists() else ""

    def _not_serving(self, name: str, but: Sequence[str] = ()) -> list[str]:
        """Return the units of the version in service that do not serve, as long as there is patience."""
        if not (self._manager.running and self._places.device_toml.exists()):
            return []
        units = [unit for unit in wanted_units(self._places.versions / name, self._places) if unit not in but]
        return wait_until_serving(self._manager, units, self._patience_s) if units else []

    def _idle(self, name: str) -> tuple[str, ...]:
        # None of those that come and go: of them nobody can say that the new version makes no difference.
        return tuple(self._manager.idle(self._not_serving(name))) if name else ()

    def confirm(self, trial: Trial) -> None:
        """End a trial well. The version before stays; older ones go."""
        unlink_durably(self._places.trial)
        for path in self._places.versions.iterdir():
            if path.name not in {trial.before, trial.after}:
                remove_version(path)

    def back(self, trial: Trial) -> str:
        """Take the version before into service again; return a sentence about what is in service now."""
        before = self._places.versions / trial.before
        if not trial.before or not is_complete(before):
            unlink_durably(self._places.trial)
            return "There is no earlier version to go back to: it stays in place. `journalctl -u 'cxr-*'` says more."
        self._manager.stop(wanted_units(self._places.versions / trial.after, self._places))
        if self._places.device_toml.exists() and not self._device(before, self._places).reads_outbox():
            self.start(trial.after)
            unlink_durably(self._places.trial)
            return (
                f"The earlier version {trial.before} cannot read what the new one has written: the new one stays in service, and "
                "no result is lost. `journalctl -u 'cxr-*'` says more."
            )
        self._return_to(trial.before)
        unlink_durably(self._places.trial)
        remove_version(self._places.versions / trial.after)
        return f"The earlier version {trial.before} is in service again, with every result."

    def _return_to(self, name: str) -> None:
        try:
            self.switch(name)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            # At the start of a card whose root is read-only: its units stay as they are, which the next run puts right.
            link_durably(self._places.current, f"versions/{name}")
        self.start(name)

    def settle(self) -> str:
        """End a trial that was interrupted, one way or the other; return a sentence about what was done, if anything."""
        trial = read_trial(self._places)
        if trial is None:
            return ""
        if self._places.current_name() == trial.after:
            if trouble := self.trouble(trial):
                return f"The new version {trial.after} does not work ({trouble}). {self.back(trial)}"
            self.confirm(trial)
            return f"The new version {trial.after} works and stays in service."
        return self.abandon(trial)

    def abandon(self, trial: Trial) -> str:
        """Take back a change that was cut off before its switch."""
        if trial.before and is_complete(self._places.versions / trial.before):
            self._return_to(trial.before)
        unlink_durably(self._places.trial)
        return f"A change to {trial.after} was cut off before it was made; {trial.before or 'nothing'} is in service."

    def clear(self) -> None:
        """Remove what was left half made."""
        for path in half_made(self._places):
            remove_version(path)
        for path in half_written(self._places):
            unlink_durably(path)
