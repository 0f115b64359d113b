"""`cxr-edge enrol`: a board becomes the device of an enrolment file. Imports stand inside on purpose."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import CxrError

if TYPE_CHECKING:
    from edge.config import Device
    from edge.enrolment.file import Enrolment
    from edge.privacy.pseudonym import SiteKey

Arguments = argparse.Namespace


def enrol(arguments: Arguments) -> None:
    """Open the file, check all of it, then write. Nothing is changed before everything was found right."""
    from datetime import datetime, timezone

    from edge.enrolment.code import read_code
    from edge.enrolment.file import MOST_BYTES, Unopened, unlock
    from edge.enrolment.install import install, place_for, require_usable, write_config

    try:
        with arguments.file.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CxrError(f"The enrolment file {arguments.file} cannot be read ({error.strerror}). Nothing was changed.") from None
    code = read_code(_typed_code())
    try:
        enrolment = unlock(content, code)
    except Unopened as why:
        raise CxrError(f"{arguments.file} cannot be used: {why}. Nothing was changed.") from None
    require_usable(enrolment, datetime.now(timezone.utc))
    place = place_for(enrolment, arguments.config, arguments.profile)
    key = _typed_key(enrolment, place.device)
    taken = install(enrolment, place, key, content)
    _make_pin(place.device)
    write_config(place)
    if not taken:
        path = place.device.relay.certificate
        sys.stdout.write(
            f"The certificate in {path} has renewed since; kept. Should the centre not let it in, delete it and enrol again.\n"
        )
    for line in _said(enrolment, place.device, arguments.config):
        sys.stdout.write(line + "\n")


def _typed_code() -> str:
    if sys.stdin.isatty():
        sys.stdout.write("Code of the enrolment file: ")
        sys.stdout.flush()
    try:
        return sys.stdin.readline(1000)
    except UnicodeDecodeError:
        return ""  # no code either


def _typed_key(enrolment: Enrolment, device: Device) -> SiteKey | None:
    """Return the site key from paper, where the file has none and the device neither; None if nothing is typed."""
    from edge.enrolment.expected import has_key
    from edge.privacy.key_paper import read_paper

    if enrolment.site_key or not enrolment.key_id or has_key(device, enrolment.key_id):
        return None
    if sys.stdin.isatty():
        sys.stdout.write(
            f"Type the site key of {enrolment.facility} (key {enrolment.key_id}) from sheet 2 of its paper, every line without #;\n"
            "Ctrl-D ends. Ctrl-D at once leaves it for later.\n"
        )
        sys.stdout.flush()
    try:
        lines = [line for line in sys.stdin if line.strip()]
    except UnicodeDecodeError:
        raise CxrError("What was typed is no text. Nothing was changed; type the lines of the paper.") from None
    return read_paper(lines) if lines else None


def _make_pin(device: Device) -> None:
    from edge.durable import put_right
    from edge.enrolment.install import as_owner
    from edge.page.session import has_pin, make_pin

    if device.page is None:
        return
    pin, state = Path(device.page.pin), Path(device.state).stat()
    if has_pin(pin):
        if pin.parent.stat().st_uid == 0:
            put_right(pin, (state.st_uid, state.st_gid), 0o600)
        return
    pin.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if pin.parent.stat().st_uid == state.st_uid:
            stack.enter_context(as_owner(device))
        make_pin(pin, (state.st_uid, state.st_gid))


def _said(enrolment: Enrolment, device: Device, config: Path) -> list[str]:
    from edge.enrolment.expected import has_key, how_to_restore

    lines = [f"This board is {enrolment.device} of {enrolment.facility}. Its results go to {device.relay.url}."]
    if device.relay.url != enrolment.url:
        lines.append(f"The enrolment file names {enrolment.url}: change [relay] url in {config} if that is where the centre is.")
    if device.facility != enrolment.facility:
        lines.append(f"{config} calls the facility {device.facility!r}: correct it there.")
    if device.page is not None:
        lines.append(f"Its page: port {device.page.port}, PIN in {device.page.pin}.")
    if not has_key(device, enrolment.key_id):
        lines.append(how_to_restore(device, config))
    lines.append("Processes that run go on with what they began with: start them again. Delete the enrolment file.")
    return lines
