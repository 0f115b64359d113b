"""Which site key a device is still to get from paper: it is asked for, and the paper of another site is noticed."""

from __future__ import annotations

import os
from pathlib import Path

from edge.config import Device
from edge.errors import CxrError
from edge.privacy.pseudonym import SiteKey, load_site_key


def expected_file(device: Device) -> Path:
    """Return the file that holds the name of that key."""
    return Path(device.site_key).with_name("site.key.expected")


def require_expected(device: Device, typed: SiteKey) -> None:
    """Check the first key that is typed against the one that the enrolment has named, if any. Raises CxrError if it is another."""
    if Path(device.site_key).exists():  # a site may go over to another key later
        return
    require_named(device.facility, _expected(device), typed)


def _expected(device: Device) -> str:
    try:
        return expected_file(device).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def require_named(facility: str, key_id: str, typed: SiteKey) -> None:
    """Raise CxrError unless a key, or an earlier one on the same paper, has that name; an empty name fits all."""
    if key_id and key_id not in {key.key_id for key in typed.all}:
        raise CxrError(
            f"The lines that were typed are of key {typed.key_id}, and {facility} has key {key_id}. Nothing was changed; "
            "take the paper of that key."
        )


def lacks_key(device: Device) -> bool:
    """Return whether a device has no site key at all. One that cannot be read, or is none, is another matter."""
    try:
        os.stat(device.site_key)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def how_to_restore(device: Device, config: Path) -> str:
    """Return what is to be said where a device has no site key. `config`: where its device.toml is."""
    with_name = f" {key_id}" if (key_id := _expected(device)).isalnum() else ""
    return f"No X-ray is read before the site's key{with_name} is typed from its paper: cxr-edge key restore --config {config}"


def has_key(device: Device, key_id: str) -> bool:
    """Return whether a device has the site key of that name, or any where none is named."""
    path = Path(device.site_key)
    return path.exists() and (not key_id or key_id in {key.key_id for key in load_site_key(path).all})
