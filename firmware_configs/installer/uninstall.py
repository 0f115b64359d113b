"""Removing the software, and with --purge everything that the device has and is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import account, units
from .checks import require_writable
from .device import Device
from .durable import remove_tree, unlink_durably
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
    installed = bool(name) or places.software.exists()
    if purge and not even_unsent:
        _require_all_sent(version, places, installed=bool(name))
    kept = [path for path in (places.config, places.state, places.inbox) if path.exists()]
    gone = [places.software, *(kept if purge else [])]
    gone = [path for path in gone if path.exists()]
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
    # The link first: what is left after a power cut is in service nowhere, and a second run removes it.
    unlink_durably(places.current)
    remove_tree(places.software)
    say(f"done     {places.software} is removed")
    if purge:
        for path in kept:
            remove_tree(path)
            say(f"done     {path} is removed")
        _remove_empty(places.inbox.parent)
        account.remove_user()
        say("done     the user is removed. Nothing of this device is left; its site key is on the paper alone.")
    else:
        say(f"Kept: {', '.join(map(str, kept))}. The same package again takes them into service as they are.")


def _require_all_sent(version: Path, places: Places, *, installed: bool) -> None:
    if not installed:
        if places.state.exists():
            raise Refused("No software is here that could tell what waits: install it again first, or say --even-unsent.")
        return
    if waiting := Device(version, places).unsent():
        raise Refused(
            f"{waiting} results or X-rays have not reached the centre and would be lost: let it deliver, or carry them on a stick "
            "(cxr-edge export), or say --even-unsent."
        )


def _remove_empty(path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
