"""Which site key a device is still to get from paper, so that the paper of another site is noticed."""

from __future__ import annotations

import contextlib
from pathlib import Path

from edge.config import Device
from edge.errors import CxrError
from edge.privacy.pseudonym import SiteKey, load_site_key


def expected_file(device: Device) -> Path:
    """Return the file that holds the name of that key."""
    return Path(device.site_key).with_name("site.key.expected")


def require_expected(device: Device, typed: SiteKey) -> None:
    """Check a key that was typed against the one that the enrolment has named, if any. Raises CxrError if it is another."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        require_named(device.facility, expected_file(device).read_text("ascii").strip(), typed)


def require_named(facility: str, key_id: str, typed: SiteKey) -> None:
    """Raise CxrError unless a key, or an earlier one on the same paper, has that name; an empty name fits all."""
    if key_id and key_id not in {key.key_id for key in typed.all}:
        raise CxrError(
            f"The lines that were typed are of key {typed.key_id}, and {facility} has key {key_id}. Nothing was changed; "
            "take the paper of that key."
        )


def has_key(device: Device, key_id: str) -> bool:
    """Return whether a device has the site key of that name, or any where none is named."""
    path = Path(device.site_key)
    return path.exists() and (not key_id or key_id in {key.key_id for key in load_site_key(path).all})
