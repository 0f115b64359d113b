"""Removing the software, and with --purge everything that the device has and is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from . import account, units
from .checks import require_writable
from .device import Device
from .durable import holds_files, remove_tree, unlink_durably
from .errors import Refused
from .places import Places


def uninstall(
    places: Places, manager: units.Manager, say: Callable[[str], None], *, purge: bool, even_unsent: bool, dry_run: bool
) -> None:
    """Stop and remove the software; results, pictures, keys and configuration stay unless `purge`.

    Raises:
        Refused: if results without a receipt, or X-rays that nobody has read, would be lost.
    """
    name = places.current_name()
    version = places.versions / name
    installed = holds_files(places.software)
    if purge and not even_unsent:
        _require_all_sent(version, places, installed=bool(name))
    kept = [path for path in (places.config, places.state, places.inbox) if path.exists()]
    if not account.has_user():  # a purge leaves the folders on which something is mounted
        kept = [path for path in kept if holds_files(path)]
    gone = [*(kept if purge else []), *([places.software] if installed else [])]
    if not gone and not (purge and account.has_user()):
        say("Nothing is installed here. Nothing was changed.")
        return
    if dry_run:
        say(f"would be removed: the units, {', '.join(map(str, gone))}{', the user' if purge else ''}")
        say("Nothing was changed.")
        return
    require_writable([*gone, *([places.units] if installed else [])])
    if name:
        manager.stop([*units.wanted_units(version, places), units.CONFIRM])
        units.remove_files(version, places)
        manager.reload()
        say("done     the units are stopped and removed")
    if purge:
        # Patients' pictures and the keys before the software: whatever comes in between, that is what may be left.
        for path in reversed(kept):
            _remove(path, say)
        _remove_empty(places.inbox.parent)
    # The link first: what is left after a power cut is in service nowhere, and a second run removes it.
    unlink_durably(places.current)
    _remove(places.software, say)
    if purge:
        account.remove_user()
        say("done     the user is removed. Nothing of this device is left; its site key is on the paper alone.")
    else:
        say(f"Kept: {', '.join(map(str, kept))}. The same package again takes them into service as they are.")


def _remove(path: Path, say: Callable[[str], None]) -> None:
    if not path.exists():
        return
    if remove_tree(path):
        say(f"done     {path} is removed")
    elif holds_files(path):
        raise Refused(f"Something was put into {path} while it was emptied: say the same again.")
    else:
        say(f"done     {path} is emptied; it stays, as something is mounted there")


def _require_all_sent(version: Path, places: Places, *, installed: bool) -> None:
    if not installed:
        if holds_files(places.state):
            raise Refused("No software is here that could tell what waits: install it again first, or say --even-unsent.")
        return
    if waiting := Device(version, places).unsent():
        raise Refused(
            f"{waiting} results or X-rays have not reached the centre and would be lost: let it deliver, or carry them on a stick "
            "(cxr-edge export), or say --even-unsent."
        )


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):  # it is not empty, or something is mounted there
        path.rmdir()
