"""device.toml: read once, at the composition root, into frozen structs. An unknown key is an error, since it is mostly a typo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edge.contract.types import DeviceId, FacilityId
from edge.errors import ConfigError

Megabytes = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0.0)]


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The folder that the X-ray machine or a person puts files into."""

    folder: str
    rescan_s: Seconds = 10.0
    settle_s: Seconds = 5.0


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which network; an empty bundle is the one that came with the software. `threshold` overrides the manifest's."""

    bundle: str = ""
    threads: Annotated[int, Meta(ge=1, le=16)] = 1
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class Decode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the decoding process, for each picture."""

    memory_mb: Annotated[int, Meta(ge=256)] = 1024
    timeout_s: Seconds = 30.0
    max_file_mb: Megabytes = 128
    max_megapixels: Megabytes = 64


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is kept once it is no longer needed for delivery."""

    keep_images_mb: Annotated[int, Meta(ge=0)] = 4096
    keep_receipted: Annotated[int, Meta(ge=0)] = 20_000


class Relay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ways to the centre. `mqtts://` and `https://` need the three files; `mqtt://` is for one machine or a trusted network.

    `https` is used when MQTT has brought no receipt for `https_after_s`; empty: there is no such way. `http://` is for one machine.
    """

    url: Annotated[str, Meta(pattern=r"^mqtts?://[^\s/]+$")] = "mqtt://127.0.0.1:1883"
    ca: str = ""
    certificate: str = ""
    private_key: str = ""
    window: Annotated[int, Meta(ge=20, le=100)] = 50
    receipt_timeout_s: Seconds = 30.0
    status_every_s: Seconds = 30.0
    https: Annotated[str, Meta(pattern=r"^(https://[^\s/@?#]+|http://(127\.0\.0\.1|localhost)(:\d+)?)?$")] = ""
    https_after_s: Seconds = 30.0


class Usb(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files carried to the centre by hand, signed with [relay] private_key; `centre` is the certificate of who can read them."""

    centre: str = ""


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of device.toml. Relative paths are relative to the file."""

    device: DeviceId
    facility: FacilityId
    state: str
    site_key: str
    watch: Watch
    model: Model = Model()
    decode: Decode = Decode()
    storage: Storage = Storage()
    relay: Relay = Relay()
    usb: Usb = Usb()


def load_config(path: Path) -> Device:
    """Read device.toml.

    Raises:
        ConfigError: if it cannot be read, is not TOML, has an unknown key or a value out of range.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read ({error.strerror}). `cxr-edge init` writes one.") from None
    try:
        device = msgspec.toml.decode(text, type=Device)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}. Correct that line; docs/reference/device-toml.md lists every key.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return _with_absolute_paths(device, path.resolve().parent)


def _with_absolute_paths(device: Device, base: Path) -> Device:
    def absolute(name: str) -> str:
        return str(base / Path(name).expanduser()) if name else ""

    replace = msgspec.structs.replace
    return replace(
        device,
        state=absolute(device.state),
        site_key=absolute(device.site_key),
        watch=replace(device.watch, folder=absolute(device.watch.folder)),
        model=replace(device.model, bundle=absolute(device.model.bundle)),
        relay=replace(
            device.relay,
            ca=absolute(device.relay.ca),
            certificate=absolute(device.relay.certificate),
            private_key=absolute(device.relay.private_key),
        ),
        usb=replace(device.usb, centre=absolute(device.usb.centre)),
    )
