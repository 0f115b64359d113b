"""Putting an enrolment onto a board: keys and certificates into the state folder, and a device.toml where there is none.

Each file is replaced whole; the identity comes last, so that what was cut off in between is done again by the same command.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from edge.config import Device, load_config
from edge.durable import put_right, write_durably
from edge.enrolment.expected import expected_file, require_named
from edge.enrolment.file import Enrolment
from edge.enrolment.identity import Unfit, require_whole
from edge.enrolment.settings import fill
from edge.enrolment.taken import keeps, note
from edge.errors import ConfigError, CxrError
from edge.privacy.pseudonym import SiteKey, adopt, read_site_key

SERVICE_USER = "cxr-edge"
"""Who runs the device's processes on a board."""

_FOLDER = "identity"


@dataclass(frozen=True)
class Place:
    """Where the device is. `text`: a device.toml that is to be written, None where there is one."""

    config: Path
    device: Device
    text: str | None


def place_for(enrolment: Enrolment, config: Path, profile: Path | None) -> Place:
    """Return where an enrolment goes: to the device of `config`, or, where there is none yet, to one made from `profile`.

    Raises:
        ConfigError: if there is neither, a file cannot be used, or the configuration is that of another device.
    """
    if config.exists():
        device = load_config(config)
        if device.device != enrolment.device:
            raise ConfigError(
                f"This board is {device.device}, and its results wait here; the enrolment file is that of {enrolment.device}. "
                "Use the file of this device, or a new card."
            )
        return Place(config, device, None)
    if profile is None:
        raise ConfigError(f"There is no {config} yet; say with --profile which kind of board this is.")
    try:
        text = profile.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The profile {profile} cannot be read ({getattr(error, 'strerror', None) or 'no text'}).") from None
    load_config(profile)  # says what is wrong with it
    text = fill(text, _values(enrolment, msgspec.toml.decode(text)))
    # Read back by the device's own loader, beside the place where it will be, so that paths mean the same.
    if not config.parent.is_dir():
        config.parent.mkdir(parents=True)
        config.parent.chmod(0o755)  # the device's processes have to find it; the files in it look after themselves
    with tempfile.NamedTemporaryFile("w", dir=config.parent, prefix=".enrol-", suffix=".toml", encoding="utf-8") as trial:
        trial.write(text)
        trial.flush()
        device = load_config(Path(trial.name))
    if (device.device, device.facility, device.relay.url) != (enrolment.device, enrolment.facility, enrolment.url):
        raise ConfigError(
            f"The profile {profile} has its device, facility or url in a way that cannot be filled in; write them plainly."
        )
    return Place(config, device, text)


def _values(enrolment: Enrolment, profile: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Return what is filled in; the places of the identity only where the profile, with its paths as written, names none."""
    identity = f"{profile['state']}/{_FOLDER}"
    relay = profile.get("relay", {})
    values = {
        ("", "device"): enrolment.device,
        ("", "facility"): enrolment.facility,
        ("relay", "url"): enrolment.url,
        ("relay", "https"): enrolment.https,
    }
    if not relay.get("ca"):
        values["relay", "ca"] = f"{identity}/ca.pem"
    if not relay.get("certificate") or relay["certificate"] != relay.get("private_key"):
        values["relay", "certificate"] = values["relay", "private_key"] = f"{identity}/device.pem"
    if not profile.get("usb", {}).get("centre"):
        values["usb", "centre"] = f"{identity}/centre.pem"
    return values


def require_usable(enrolment: Enrolment, now: datetime) -> None:
    """Check a file before anything is written.

    Raises:
        CxrError: if its time is over by `now`, or what is in it does not belong together.
    """
    if now.date() > enrolment.use_before:
        raise CxrError(
            f"The enrolment file could be used until {enrolment.use_before}, and this board's clock says {now:%Y-%m-%d %H:%M} UTC. "
            "If the clock is wrong set it (timedatectl set-time, or date -s); else ask the centre for a new file."
        )
    try:
        require_whole(enrolment.identity, enrolment.device, enrolment.ca)
    except Unfit as why:
        raise CxrError(f"The certificate in the enrolment file cannot be used: {why}. Ask the centre for a new file.") from None


def install(enrolment: Enrolment, place: Place, typed: SiteKey | None, content: bytes) -> bool:
    """Write everything but the configuration.

    Args: typed: the site key that came from paper. content: the enrolment file as it is.

    Returns:
        False if the device keeps an identity that came after that of the file: the centre has revoked that of the file.

    Raises:
        CxrError: if the key is of another site, or the configuration has no place for the identity.
        OSError: if a file cannot be written. Then the same command can be given again.
    """
    device, relay = place.device, place.device.relay
    if not relay.certificate or relay.certificate != relay.private_key:
        raise ConfigError(
            f"In {place.config} certificate and private_key of [relay] should name one file, as {device.state}/identity/device.pem."
        )
    if not (relay.ca and device.usb.centre):
        raise ConfigError(
            f"{place.config} should name [relay] ca and [usb] centre, as ca.pem and centre.pem in {device.state}/identity."
        )
    if typed is not None:
        require_named(enrolment.facility, enrolment.key_id, typed)
    with as_owner(device):
        for path, text in ((relay.ca, enrolment.ca), (device.usb.centre, enrolment.centre)):
            _write(Path(path), text.encode("ascii"))
        if (key := typed or _carried(enrolment)) is not None:
            Path(device.site_key).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            adopt(Path(device.site_key), key)
        elif enrolment.key_id:
            _write(expected_file(device), f"{enrolment.key_id}\n".encode("ascii"))
        identity = Path(relay.certificate)
        if keeps(identity, enrolment, content):
            return False
        note(identity, enrolment, content)
        _write(identity, enrolment.identity.encode("ascii"))
    return True


def _carried(enrolment: Enrolment) -> SiteKey | None:
    if not enrolment.site_key:
        return None
    return read_site_key(enrolment.site_key.splitlines(), "What the enrolment file holds")


def _write(path: Path, content: bytes) -> None:
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(path, content)


def write_config(place: Place) -> None:
    """Write device.toml where there is none: for root to write and the device's group to read, also where it is there already.

    A process that was taken over must not change it. It comes after all that it names. Raises OSError.
    """
    owner, mode = (0, Path(place.device.state).stat().st_gid), 0o640 if os.geteuid() == 0 else 0o600
    if place.text is not None:
        write_durably(place.config, place.text.encode("utf-8"), owner, mode)
    elif place.config.parent.stat().st_uid == 0:  # in a person's own folder it is theirs
        put_right(place.config, owner, mode)


@contextlib.contextmanager
def as_owner(device: Device) -> Iterator[None]:
    """Do something as the user of the state folder, which is made where there is none, where root does it."""
    state = Path(device.state)
    if not state.is_dir():
        state.mkdir(parents=True, mode=0o700)
        _give_to_service(state)
    with as_owner_of(state):
        yield


@contextlib.contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """Do something with the rights of a folder's owner, where root does it; nothing changes where there is no such folder.

    A process of the device that was taken over could lay a link where root would write next.
    """
    owner = folder.stat() if os.geteuid() == 0 and folder.exists() else None
    if owner is None or owner.st_uid == 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _give_to_service(state: Path) -> None:
    if os.geteuid() == 0:
        with contextlib.suppress(KeyError):  # no such user: whoever runs this runs the device
            user = pwd.getpwnam(SERVICE_USER)
            os.chown(state, user.pw_uid, user.pw_gid)
