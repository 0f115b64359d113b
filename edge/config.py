"""device.toml: read once, at the composition root, into frozen structs. An unknown key is an error, since it is mostly a typo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from edge.contract.errors import UNREADABLE
from edge.contract.types import DeviceId, FacilityId
from edge.errors import ConfigError

Megabytes = Annotated[int, Meta(ge=1, le=1_048_576)]
Seconds = Annotated[float, Meta(gt=0.0, le=86_400.0)]


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The folder that the X-ray machine or a person puts files into."""

    folder: str
    rescan_s: Seconds = 10.0
    settle_s: Seconds = 5.0


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which network; an empty bundle is the one that came with the software. `threshold` overrides the bundle's and the site's."""

    bundle: str = ""
    threads: Annotated[int, Meta(ge=1, le=16)] = 1
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class Commissioning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Silent commissioning: no answer is shown until `readings` local readings were compared and someone released the device.

    0 readings: answers are shown at once and drift is not watched, for demonstrations. `drift_once_in`: without a change of the
    pictures, drift puts the device back to silent after so many pictures on average at the earliest.
    """

    readings: Annotated[int, Meta(ge=0, le=10_000)] = 100
    drift_once_in: Annotated[int, Meta(ge=1000, le=1_000_000_000)] = 50_000


class Decode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the decoding process, for each picture.

    `memory_mb`: what the process may hold, with some 30 of its libraries; a film that needs more is answered with `decoder_memory`.
    The page draws a film within the same limit, and not while another is being read.
    """

    memory_mb: Annotated[int, Meta(ge=96, le=1_048_576)] = 1024
    timeout_s: Seconds = 30.0
    max_file_mb: Megabytes = 128
    max_megapixels: Megabytes = 64

    @property
    def max_bytes(self) -> int:
        """What one file may have."""
        return self.max_file_mb * 2**20

    @property
    def max_pixels(self) -> int:
        """What one picture may have."""
        return self.max_megapixels * 10**6


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much may be kept. `results_mb` bounds the outbox with its log; 256 hold 200 results a day for 90 days without a link.

    When room runs short, old pictures go first, then the oldest results that have their receipt; others never. `keep_local`: how
    many studies the clinic's own page can name the patient of.
    """

    results_mb: Annotated[int, Meta(ge=32, le=1_048_576)] = 256
    keep_images_mb: Annotated[int, Meta(ge=0, le=1_073_741_824)] = 4096
    keep_receipted: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 20_000
    keep_local: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 5_000

    @property
    def results_bytes(self) -> int:
        """What the outbox may take, log included."""
        return self.results_mb * 2**20


class Relay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ways to the centre. `mqtts://` and `https://` need the three files; `mqtt://` is for one machine or a trusted network.

    Where `certificate` and `private_key` name one file, as `cxr-edge enrol` writes it, the certificate renews itself.

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


AeTitle = Annotated[str, Meta(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]


class Dicom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What X-ray machines send to; without this table there is no listener.

    `allow` names the machines that may send as `AETITLE@ADDRESS`; with `:PORT` behind it, the port where that machine takes
    reports of storage commitment. TLS needs `certificate`, `private_key` and `ca`, and a machine has to show a certificate of that
    authority. A machine that is silent, or slower with one PDU, for `silent_s`, and one that takes longer than `object_s` for an
    object is cut off. One object has at most `max_file_mb` of [decode].
    """

    ae_title: AeTitle = "CXR-EDGE"
    address: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 11112
    allow: tuple[str, ...] = ()
    certificate: str = ""
    private_key: str = ""
    ca: str = ""
    max_associations: Annotated[int, Meta(ge=1, le=50)] = 5
    max_pdu: Annotated[int, Meta(ge=4096, le=1_048_576)] = 65_536
    silent_s: Seconds = 30.0
    object_s: Seconds = 600.0


class Pacs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The clinic's PACS, where answers to what came as DICOM go (C-STORE); without this table none do.

    `picture`: the film with its heat and the answer in words, as Secondary Capture. `report`: the answer as structured report,
    also that there is none and why (`refusals`), and that one was taken back. TLS needs `certificate`, `private_key` and
    `ca`; the PACS has to show a certificate of that authority. `silent_s`: how long it may take to answer.
    """

    address: str
    called_ae_title: AeTitle
    port: Annotated[int, Meta(ge=1, le=65535)] = 104
    calling_ae_title: AeTitle = "CXR-EDGE"
    picture: bool = True
    report: bool = True
    refusals: bool = True
    certificate: str = ""
    private_key: str = ""
    ca: str = ""
    silent_s: Seconds = 30.0


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The clinic's own page, behind a PIN. With certificate and private key it is served by TLS. `address` is that of the LAN."""

    pin: str
    address: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8080
    certificate: str = ""
    private_key: str = ""


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `cxr-edge relay` tells Prometheus at http://127.0.0.1:PORT/metrics; without this table, nothing."""

    port: Annotated[int, Meta(ge=1, le=65535)] = 9464


HOT_C = 80.0
"""From here on a Raspberry Pi slows down, and others soon after."""


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a profile was written for: `cxr-edge check` compares it with the machine, the installer before it changes anything.

    `model`: what people call it. `models`: the boards that take it by themselves, each in words that their own name has
    (/proc/device-tree/model); without any, `model` is the only one. `architecture` is that of the programs: `uname -m`, but
    `armv7l` for a 32-bit system on a 64-bit kernel. `python`: the versions that its system brings. `runtime`: what runs the
    network, pinned. `memory_mb`: MemTotal is at least that. `disk_mb`: free before installing. `hot_c`: from there on the page, the
    status and the centre say that it is too hot. `watchdog_s`: what its hardware watchdog is set to; 0: it has none.
    """

    model: Annotated[str, Meta(min_length=1, max_length=64)]
    architecture: Literal["aarch64", "armv7l", "x86_64"]
    python: Annotated[tuple[Annotated[str, Meta(pattern=r"^3\.[0-9]{1,2}$")], ...], Meta(min_length=1)]
    runtime: Annotated[str, Meta(pattern=r"^(ai-edge-litert|tflite-runtime)==[0-9]+(\.[0-9]+)+$")]
    memory_mb: Megabytes
    disk_mb: Megabytes
    hot_c: Annotated[float, Meta(ge=40.0, le=110.0)] = HOT_C
    watchdog_s: Annotated[int, Meta(ge=0, le=600)] = 0
    models: tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...] = ()


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of device.toml. Relative paths are relative to the file."""

    device: DeviceId
    facility: FacilityId
    state: str
    site_key: str
    watch: Watch
    model: Model = Model()
    commissioning: Commissioning = Commissioning()
    decode: Decode = Decode()
    storage: Storage = Storage()
    relay: Relay = Relay()
    dicom: Dicom | None = None
    pacs: Pacs | None = None
    page: Page | None = None
    usb: Usb = Usb()
    metrics: Metrics | None = None
    board: Board | None = None

    @property
    def hot_c(self) -> float:
        """From which temperature on the machine is too hot, degrees Celsius."""
        return HOT_C if self.board is None else self.board.hot_c


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
    except UNREADABLE as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    device = _with_absolute_paths(device, path.resolve().parent)
    try:
        _require_sense(device)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return device


def require_host(key: str, url: str) -> None:
    """Raise ConfigError unless a URL names a host, and a port that can be one if any."""
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(f"{key} = {url!r} names no host, or a port that is none. Write SCHEME://HOST:PORT.")


def _require_sense(device: Device) -> None:
    require_host("[relay] url", device.relay.url)
    if device.relay.https:
        require_host("[relay] https", device.relay.https)
    if device.dicom is not None:
        from ipaddress import ip_address  # costs every command some milliseconds

        try:
            ip_address(device.dicom.address)
        except ValueError:
            raise ConfigError(
                f"[dicom] address = {device.dicom.address!r} is no address. Write the one that this machine has in the clinic's "
                "network, such as 192.168.1.20."
            ) from None
    folder, state = Path(device.watch.folder).resolve(), Path(device.state).resolve()
    if folder == state or folder in state.parents or state in folder.parents:
        raise ConfigError(f"[watch] folder is {folder}, and the device keeps its own in {state}. Neither may be in the other.")


def _with_absolute_paths(device: Device, base: Path) -> Device:
    def absolute(name: str) -> str:
        return str(base / Path(name).expanduser()) if name else ""

    replace = msgspec.structs.replace
    page, pacs = device.page, device.pacs
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
        dicom=device.dicom
        and replace(
            device.dicom,
            ca=absolute(device.dicom.ca),
            certificate=absolute(device.dicom.certificate),
            private_key=absolute(device.dicom.private_key),
        ),
        pacs=pacs
        and replace(pacs, ca=absolute(pacs.ca), certificate=absolute(pacs.certificate), private_key=absolute(pacs.private_key)),
        page=page
        and replace(page, pin=absolute(page.pin), certificate=absolute(page.certificate), private_key=absolute(page.private_key)),
        usb=replace(device.usb, centre=absolute(device.usb.centre)),
    )
