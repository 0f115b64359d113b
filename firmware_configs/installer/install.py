"""The installation, step by step. Each step asks first whether it is needed, so that a second run changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import account, checks, units
from .boards import Board, choose_profile, read_board
from .device import Device
from .durable import write_durably
from .errors import Refused, WentBack
from .machine import Machine
from .package import Package
from .places import USER, Places
from .summary import summary
from .trial import Change, read_trial
from .versions import build_version, half_made, half_written, is_complete, remove_version

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    profile: str = ""
    enrol: Path | None = None
    code: Path | None = None
    image: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class _Step:
    text: str
    needed: Callable[[], bool]
    do: Callable[[], None]


class Installation:
    """One run of the installer for one package."""

    def __init__(
        self, request: Request, package: Package, machine: Machine, places: Places, manager: units.Manager, change: Change, say: Say
    ) -> None:
        self._request = request
        self._package = package
        self._machine = machine
        self._places = places
        self._manager = manager
        self._change = change
        self._say = say
        self._version = places.versions / package.name
        self._profile = Path()
        self._became = False
        self._undo: list[Callable[[], None]] = []

    def run(self) -> None:
        """Install, or upgrade.

        Raises:
            Refused: if something is missing or wrong; nothing was changed, or what was changed is undone.
            WentBack: if the new version did not work.
        """
        self._require_everything()
        self._say(f"checked  this board fits the package {self._package.name} ({self._package.architecture})")
        steps = self._steps()
        changed = [step.text for step in steps if step.needed()]
        if self._request.dry_run:
            for step in steps:
                self._say(f"{'would be' if step.text in changed else 'as it is'} {step.text}")
            self._say("Nothing was changed.")
            return
        if changed:
            checks.require_writable(self._written())
            self._take(steps)
        else:
            for step in steps:
                self._say(f"as it is {step.text}")
            self._say("Everything is in place already. Nothing was changed.")
        missing = Device(self._version, self._places).missing() if self._enrolled() else []
        for line in summary(self._places, self._manager, missing, enrolled=self._enrolled()):
            self._say(line)

    def _require_everything(self) -> None:
        checks.require_root(self._machine)
        checks.require_system(self._package, self._machine)
        checks.require_enrolment_file(self._request.enrol, self._request.code)
        if not (self._enrolled() or self._request.enrol or self._request.image):
            raise Refused(
                "This board is not enrolled yet: give the file that the centre has made for it with --enrol FILE, or say --image "
                "for a card whose board is enrolled at its first start."
            )
        checks.require_board(self._board(), self._machine)
        if not is_complete(self._version):
            first = not self._places.current_name()
            checks.require_room(self._package, self._board(), self._machine, self._places, first=first)

    def _board(self) -> Board:
        """What the profile asks of the board: that of device.toml once there is one."""
        if self._enrolled():
            return read_board(self._places.device_toml)
        if self._request.image and not self._request.profile:
            return Board()  # one card for many boards
        self._profile = choose_profile(self._package.folder / "profiles", self._request.profile, self._machine)
        return read_board(self._profile)

    def _written(self) -> list[Path]:
        places = self._places
        written = [places.software, places.config, places.state, places.inbox]
        touches_units = not is_complete(self._version) or self._unlike()
        return [*written, places.units, places.journald, places.command.parent] if touches_units else written

    def _steps(self) -> list[_Step]:
        places = self._places
        wrong_folders = [folder for folder in account.folders(places) if not folder.stands()]
        return [
            _Step("nothing is left of an earlier run that was cut off", self._is_left, self._clear),
            _Step(f"software in {self._version}", lambda: not is_complete(self._version), self._build),
            _Step(f"system user {USER}", lambda: not account.has_user(), self._add_user),
            _Step(
                "folders " + ", ".join(map(str, (places.config, places.state, places.inbox))),
                lambda: bool(wrong_folders),
                self._make_folders,
            ),
            _Step(
                "enrolment, device.toml and PIN" if self._request.enrol else "enrolment of this board",
                self._is_to_enrol,
                self._enrol,
            ),
            _Step(
                "this version in service" if not self._request.image else "this version in place", self._is_to_serve, self._serve
            ),
        ]

    def _take(self, steps: list[_Step]) -> None:
        self._undo_folders()
        try:
            for step in steps:
                if step.needed():
                    step.do()
                    self._say(f"done     {step.text}")
                else:
                    self._say(f"as it is {step.text}")
        except WentBack:
            raise
        except BaseException:
            for undo in reversed(self._undo):
                with contextlib.suppress(Refused, OSError):
                    undo()
            raise

    def _undo_folders(self) -> None:
        places = self._places
        for path in (places.software, places.versions, places.config, places.state, places.inbox.parent, places.inbox):
            if not path.exists():
                self._undo.append(lambda made=path: made.rmdir() if made.is_dir() and not any(made.iterdir()) else None)  # type: ignore[misc]

    def _is_left(self) -> bool:
        trial = read_trial(self._places)
        versions = [path for path in half_made(self._places) if path != self._version]
        return bool(versions or half_written(self._places)) or (trial is not None and self._places.current_name() != trial.after)

    def _clear(self) -> None:
        trial = read_trial(self._places)
        if trial is not None and self._places.current_name() != trial.after:
            self._say(f"         {self._change.abandon(trial)}")
        self._change.clear()

    def _build(self) -> None:
        self._say(f"         unpacking {self._package.unpacked_mb} MB; on a small board this takes some minutes")
        build_version(self._package, self._places)
        self._undo.append(lambda: remove_version(self._version))

    def _add_user(self) -> None:
        account.add_user(self._places)
        self._undo.insert(0, account.remove_user)

    def _make_folders(self) -> None:
        for folder in account.folders(self._places):
            if not folder.stands():
                folder.make()

    def _enrolled(self) -> bool:
        return self._places.device_toml.exists()

    def _digest(self) -> bytes:
        assert self._request.enrol is not None
        return hashlib.sha256(self._request.enrol.read_bytes()).hexdigest().encode() + b"\n"

    def _is_to_enrol(self) -> bool:
        if self._request.enrol is None:
            return False
        enrolled = self._places.enrolled
        return not (self._enrolled() and enrolled.exists() and enrolled.read_bytes() == self._digest())

    def _enrol(self) -> None:
        assert self._request.enrol is not None
        Device(self._version, self._places).enrol(self._request.enrol, self._profile, self._request.code)
        self._became = True
        write_durably(self._places.enrolled, self._digest())
        # From here on this board is somebody: what comes after may fail, and is done by the next run.
        self._undo.clear()

    def _unlike(self) -> bool:
        return bool(units.differing(self._version, self._places) or units.mislinked(self._version, self._places))

    def _is_to_serve(self) -> bool:
        if self._places.current_name() != self._package.name or read_trial(self._places) is not None or self._unlike():
            return True
        if self._became or self._is_to_enrol():
            return True  # what runs goes on as who the board was
        wanted = units.wanted_units(self._version, self._places)
        return self._enrolled() and bool(self._manager.idle(wanted))

    def _serve(self) -> None:
        name = self._package.name
        if self._places.current_name() == name and read_trial(self._places) is None:
            self._change.switch(name)  # a unit file or a link was not as it should be, or a unit was stopped
            self._start()
            return
        if self._enrolled() and (trouble := Device(self._version, self._places).trouble()):
            raise Refused(f"This version would not work here ({trouble}): put that right, and run this again.")
        if self._enrolled() and self._manager.running:
            self._say("         seeing which units serve, before and after; where one does not, this takes up to ten minutes")
        trial = self._change.begin(name)
        self._undo.clear()
        self._change.switch(name)
        self._start()
        if self._enrolled() and (trouble := self._change.trouble(trial)):
            raise WentBack(f"Version {name} does not work here: {trouble}. {self._change.back(trial)}")
        self._change.confirm(trial)

    def _start(self) -> None:
        if self._enrolled():
            self._change.start(self._package.name)


@contextlib.contextmanager
def only_one(places: Places) -> Iterator[None]:
    """Hold the lock of everything that changes the software; programs that are started keep holding it until they end.

    Raises:
        Refused: if another run has it.
    """
    import fcntl

    handle = os.open(places.lock, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(handle, True)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise Refused("Another installation is at work on this board: wait until it has ended.") from None
    try:
        yield
    finally:
        os.close(handle)
