"""`cxr-edge init`: the files and folders of one device."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge.config import Device, require_host
from edge.errors import ConfigError
from edge.page.session import has_pin, make_pin
from edge.privacy.pseudonym import make_site_key

_TEMPLATE = """\
# One clinic device. docs/reference/device-toml.md lists every key; `cxr-edge check --config FILE` says what would stop it.
device = {device}
facility = {facility}
state = "state"            # spool, answered and refused pictures, outbox
site_key = "site.key"      # secret: makes the pseudonyms; keep it on paper (cxr-edge key paper)

[watch]
folder = "inbox"           # X-rays are put here

[commissioning]
readings = 100             # silent until so many X-rays were read here and compared, and someone released it; see the page

[page]
pin = "page.pin"           # the PIN of the clinic's own page; change it here
address = "127.0.0.1"      # of this machine in the clinic's network, so that others there can open the page
port = {port}

[relay]
url = {broker}
"""

_WRONG = {
    ".device": "The name of a device has letters (a to z), digits, - and _, begins with a letter or digit, and is at most 64 long.",
    ".facility": "The name of a clinic has letters (a to z), digits, spaces, dots, - and _, is at most 64 long.",
    ".page.port": "A port is a whole number from 1 to 65535.",
    ".relay.url": "A broker is mqtt://HOST:PORT or, encrypted, mqtts://HOST:PORT.",
}
"""Where a value is wrong -> what it should be."""


def set_up(folder: Path, device: str, facility: str, broker: str, page_port: int = 8080) -> str:
    """Write device.toml, site.key, inbox/ and state/ into `folder`; return what a person should read.

    Raises:
        ConfigError: if a name or the port is not allowed, or device.toml is already there.
    """
    try:
        msgspec.convert(
            {
                "device": device,
                "facility": facility,
                "state": "s",
                "site_key": "k",
                "watch": {"folder": "f"},
                "relay": {"url": broker},
                "page": {"pin": "p", "port": page_port},
            },
            Device,
        )
    except msgspec.ValidationError as error:
        raise ConfigError(_WRONG.get(str(error).rpartition("`$")[2].rstrip("`"), str(error))) from None
    require_host("--broker", broker)
    target = folder / "device.toml"
    if target.exists():
        raise ConfigError(f"{target} is already there. Edit it, or choose another folder.")
    for name in ("inbox", "state"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / "site.key").exists():
        make_site_key(folder / "site.key")
    if not has_pin(folder / "page.pin"):
        make_pin(folder / "page.pin")
    quoted = {
        key: msgspec.json.encode(value).decode() for key, value in (("device", device), ("facility", facility), ("broker", broker))
    }
    target.write_text(_TEMPLATE.format(**quoted, port=page_port), "utf-8")
    return (
        f"Wrote {target}. Put X-rays into {folder / 'inbox'}; start with: cxr-edge run --config {target}\n"
        f"Print the site's key and lock the paper away: cxr-edge key paper --config {target}\n"
        f"Its page: http://127.0.0.1:{page_port}, PIN in {folder / 'page.pin'}"
    )
