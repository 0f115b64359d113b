"""systemd's part: the unit files of a version, which of them start with the board, and how they are."""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from .durable import fsync_folder, link_durably, make_folder, unlink_durably, write_durably
from .places import Places
from .toml import read_toml

_ALWAYS = ("cxr-watch.service", "cxr-infer.service", "cxr-relay.service")
_WITH_TABLE = {"page": "cxr-page.service", "dicom": "cxr-dicom.service", "pacs": "cxr-pacs.service"}
CONFIRM = "cxr-confirm.service"
"""Ends a trial that a power cut has interrupted."""


class Manager(Protocol):
    """systemd, or where there is none, nothing."""

    running: bool

    def reload(self) -> None:
        """Read all unit files anew."""

    def restart(self, names: Sequence[str]) -> None:
        """Start units, or start them again; does not wait until they serve."""

    def stop(self, names: Sequence[str]) -> None:
        """Stop units and wait until they have ended."""

    def idle(self, names: Sequence[str]) -> list[str]:
        """Return those that do not serve."""


class Systemd:
    """The real one, where it is this machine's first process."""

    def __init__(self) -> None:
        self.running = os.path.isdir("/run/systemd/system") and shutil.which("systemctl") is not None

    def reload(self) -> None:
        self._tell("daemon-reload")

    def restart(self, names: Sequence[str]) -> None:
        self._tell("restart", "--no-block", *names)

    def stop(self, names: Sequence[str]) -> None:
        self._tell("stop", *names)

    def idle(self, names: Sequence[str]) -> list[str]:
        if not self.running:
            return []
        asked = subprocess.run(["systemctl", "is-active", *names], capture_output=True, text=True, check=False)
        states = asked.stdout.splitlines()
        return [name for name, state in zip(names, states, strict=False) if state != "active"] + list(names[len(states) :])

    def _tell(self, *words: str) -> None:
        if self.running and len(words) > (words[0] != "daemon-reload"):
            # What does not start is seen by who asks afterwards.
            subprocess.run(["systemctl", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def unit_files(version: Path) -> dict[str, bytes]:
    """Return the unit files of a version by name."""
    there = [*sorted((version / "systemd").glob("*")), version / "installer" / CONFIRM]
    return {path.name: path.read_bytes() for path in there if path.suffix in _KINDS and path.is_file()}


_KINDS = {".service", ".path", ".timer", ".mount", ".automount", ".target", ".slice", ".socket"}


def wanted_units(version: Path, places: Places) -> list[str]:
    """Return the units that this device starts: those that every device has, and those that device.toml has a table for.

    A unit without its table starts nothing, so where there is no device.toml yet it is all of them.
    """
    tables = read_toml(places.device_toml) if places.device_toml.exists() else _WITH_TABLE
    there = unit_files(version)
    return [name for name in (*_ALWAYS, *(unit for table, unit in _WITH_TABLE.items() if table in tables)) if name in there]


def differing(version: Path, places: Places) -> list[Path]:
    """Return the files of units and journal that are not yet as the version has them, or that it has no more."""
    return [path for path, content in _wanted_files(version, places).items() if _read(path) != content] + _left_over(
        version, places
    )


def put_files(version: Path, places: Places) -> None:
    """Put the files of units and journal in place."""
    for path, content in _wanted_files(version, places).items():
        if _read(path) != content:
            make_folder(path.parent)
            write_durably(path, content)
    for path in _left_over(version, places):
        unlink_durably(path)


def mislinked(version: Path, places: Places) -> list[Path]:
    """Return the links that make units start with the board, or keep them from it, and the command's, that are not right yet."""
    return [link for link, target in _links(version, places).items() if _target(link) != target]


def put_links(version: Path, places: Places) -> None:
    """Make the links by which units start with the board, as `systemctl enable` does, without systemd; and the command's."""
    for link, target in _links(version, places).items():
        if _target(link) == target:
            continue
        if target:
            make_folder(link.parent)
            link_durably(link, target)
        else:
            unlink_durably(link)


def remove_files(version: Path, places: Places) -> None:
    """Remove every unit of the device, its command, and its bound of the journal."""
    for link in _links(version, places):
        unlink_durably(link)
    for path in _wanted_files(version, places):
        unlink_durably(path)
    for folder in (places.journald,):
        with contextlib.suppress(OSError):
            folder.rmdir()
            fsync_folder(folder.parent)


def wait_until_serving(manager: Manager, names: Sequence[str], patience_s: float, steady_s: float = 5.0) -> list[str]:
    """Wait until all units have served for a while without a break; return those that do not when patience ends."""
    until = time.monotonic() + patience_s
    since = 0.0
    while True:
        idle, now = manager.idle(names), time.monotonic()
        since = 0.0 if idle else since or now
        if since and now - since >= steady_s:
            return []
        if now > until:
            return idle or list(names)
        time.sleep(min(0.5, steady_s / 2))


def _wanted_files(version: Path, places: Places) -> dict[Path, bytes]:
    files = {places.units / name: content for name, content in unit_files(version).items()}
    for path in sorted((version / "journald").glob("*.conf")):
        files[places.journald / path.name] = path.read_bytes()
    return files


def _left_over(version: Path, places: Places) -> list[Path]:
    # Those of a golden card come with its image.
    ours = {*_wanted_files(version, places), *(places.units / path.name for path in (version / "first-boot").glob("cxr-*"))}
    return sorted(path for path in places.units.glob("cxr-*.*") if path.suffix in _KINDS and path.is_file() and path not in ours)


def _links(version: Path, places: Places) -> dict[Path, str]:
    """Return each link with where it has to lead; an empty text: it must not be there."""
    started = {*wanted_units(version, places), CONFIRM}
    links = {places.command: "/opt/cxr-edge/current/bin/cxr-edge"}
    for name, content in unit_files(version).items():
        if name not in {*_ALWAYS, *_WITH_TABLE.values(), CONFIRM}:
            continue
        for target in _wanted_by(content):
            links[places.units / f"{target}.wants" / name] = f"/etc/systemd/system/{name}" if name in started else ""
    return links


def _wanted_by(unit: bytes) -> Iterable[str]:
    reader = configparser.RawConfigParser(strict=False)
    reader.read_string(unit.decode())
    return reader.get("Install", "WantedBy", fallback="").split()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
