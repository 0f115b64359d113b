"""`cxr-edge check`: what in this machine or configuration would stop the device from working, in plain words."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from edge.capacity import Capacity
from edge.clock import synchronised
from edge.commands.check_board import check_board
from edge.commands.finding import Finding
from edge.commissioning.journal import read_standing
from edge.commissioning.standing import shown_and_why
from edge.config import Device
from edge.dicom.readiness import describe
from edge.enrolment.expected import how_to_restore, lacks_key
from edge.enrolment.validity import expired, good_until, utc_now
from edge.errors import CxrError, OutboxError, OutboxNewer, OutboxOlder
from edge.intake.spool import free_bytes
from edge.network.bundle import load_bundle
from edge.network.classify import runtime
from edge.network.manifest import bundle_folder
from edge.outbox.file import damaged_outboxes
from edge.outbox.reader import OutboxReader
from edge.pacs.readiness import describe as reach_pacs
from edge.page.readiness import describe as page_of
from edge.privacy.pseudonym import load_site_key
from edge.unattended.hardening import open_to_others

_LOW_DISK = 512 * 1024 * 1024


def check_software(device: Device) -> Iterator[Finding]:
    """Yield what this version of the software answers for itself, whatever surrounds it: an upgrade is judged by that alone."""
    yield _tried("model", lambda: _model(device))
    yield _tried("outbox", lambda: _layout(device))


def check_device(device: Device, config: Path = Path("device.toml")) -> Iterator[Finding]:
    """Yield what was found, in the order of the straight line; first whether the machine is the one that the profile is for.

    Args: config: where the device's configuration is, for commands that a person is told to type.
    """
    if device.board is not None:
        yield from check_board(device.board)
    yield _tried("watched folder", lambda: _folder(Path(device.watch.folder)))
    dicom = device.dicom
    if dicom is not None:
        yield _tried("DICOM listener", lambda: describe(dicom, Path(device.state)))
    pacs = device.pacs
    if pacs is not None:
        # Not fatal: answers wait until the PACS is there, and the clinic and the centre have theirs.
        yield replace(_tried("PACS", lambda: reach_pacs(pacs, device.decode, Path(device.state))), fatal=False)
    state = _nearest(Path(device.state))
    yield _tried(
        "state folder", lambda: _folder(state) + ("" if state == Path(device.state) else f": {device.state} is made at start")
    )
    yield _disk(state)
    yield _room(device, state)
    yield _tried("site key", lambda: _site_key(device, config))
    yield from _open_to_others(device)
    yield _tried("model", lambda: _model(device))
    yield _tried("outbox", lambda: _outbox(device))
    yield from _damaged(Path(device.state))
    yield _commissioning(device)
    yield _tried("TLS files", lambda: _tls_files(device))
    yield _tried("page", lambda: _page(device))
    yield _answers("broker", device.relay.url, {"mqtt": 1883, "mqtts": 8883})
    if device.relay.https:
        yield _answers("centre by HTTPS", device.relay.https, {"http": 80, "https": 443})
    yield Finding(
        "clock",
        synchronised(),
        "synchronised"
        if synchronised()
        else "not synchronised: results are kept in order all the same, but their times are marked",
        fatal=False,
    )


def _tried(subject: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, attempt())
    except CxrError as error:
        return Finding(subject, False, str(error))
    except OSError as error:
        return Finding(subject, False, f"{error.filename or ''}: {error.strerror}")


def _nearest(path: Path) -> Path:
    """Return the folder itself, or the closest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _folder(path: Path) -> str:
    if not path.is_dir():
        raise CxrError(f"{path} is not there. Make the folder, or mount the disk or share that holds it.")
    try:
        # Without a name where the disk knows such: the folder's time of change stays, and who watches it sees nothing.
        with tempfile.TemporaryFile(dir=path, prefix=".cxr-check-"):
            pass
    except OSError as error:
        raise CxrError(f"{path} cannot be written to ({error.strerror}). Make it writable for user {os.getuid()}.") from None
    return str(path)


def _disk(path: Path) -> Finding:
    try:
        free = free_bytes(path)
    except OSError as error:
        return Finding("disk", False, f"{path}: {error.strerror}")
    text = f"{free // 2**20} MiB free"
    return Finding("disk", free >= _LOW_DISK, text if free >= _LOW_DISK else f"{text}: nearly full, make room", fatal=free == 0)


def _room(device: Device, state: Path) -> Finding:
    try:
        room = Capacity(state, device.storage.results_bytes).room()
    except OSError as error:
        return Finding("room", False, f"{state}: {error.strerror}")
    advice = {
        "ok": "",
        "alarm": ". It is nearly full: restore the link to the centre, or make room on the disk",
        "full": ". No more X-rays are taken in, and none is lost: restore the link to the centre, or make room on the disk",
    }[room.level]
    return Finding("room", room.level == "ok", room.sentence() + advice, fatal=room.level == "full")


def _damaged(state: Path) -> Iterator[Finding]:
    for path in damaged_outboxes(state):
        text = f"{path} was damaged and put aside; what could be read was saved. Keep a copy elsewhere, then remove it."
        yield Finding("outbox", False, text, fatal=False)


def _commissioning(device: Device) -> Finding:
    standing, needed = read_standing(Path(device.state)), device.commissioning.readings
    shown, because = shown_and_why(standing, needed)
    if shown:
        return Finding("commissioning", True, "answers are shown" + ("" if needed else ": [commissioning] readings is 0"))
    text = f"silent, answers are not shown: {len(standing.compared)} of {needed} readings were compared"
    return Finding("commissioning", because in ("new", "by_hand"), f"{text} ({because})", fatal=False)


def _open_to_others(device: Device) -> Iterator[Finding]:
    """Secrets, and the folder that holds pictures and names."""
    names = [device.site_key, device.relay.private_key, device.state]
    if device.page is not None:
        names += [device.page.pin, device.page.private_key]
    if device.dicom is not None:
        names.append(device.dicom.private_key)
    if device.pacs is not None:
        names.append(device.pacs.private_key)
    for name in filter(None, names):
        if open_to_others(Path(name)):
            mode = "700" if Path(name).is_dir() else "600"
            text = f"{name} can be read by other users of this machine. Close it: chmod {mode} {name}"
            yield Finding("privacy", False, text, fatal=False)


def _model(device: Device) -> str:
    bundle = load_bundle(bundle_folder(device.model.bundle), threads=device.model.threads)
    manifest = bundle.manifest
    return f"{manifest.name} {manifest.version}, {len(manifest.golden)} golden inputs give the scores expected of {runtime()}"


def _site_key(device: Device, config: Path) -> str:
    if lacks_key(device):
        raise CxrError(how_to_restore(device, config))
    return f"key {load_site_key(Path(device.site_key)).key_id}"


def _layout(device: Device) -> str:
    """Return that this version reads the outbox's layout, or brings it up to date, or that it is no matter of the version."""
    path = Path(device.state) / "outbox.db"
    if not path.exists():
        return "none yet; it is made at the first start"
    try:
        OutboxReader(path, device.device).close()
    except OutboxNewer:
        raise
    except OutboxError as error:
        return str(error)
    return "its layout is that of this version"


def _outbox(device: Device) -> str:
    path = Path(device.state) / "outbox.db"
    if not path.exists():
        return "none yet; it is made at the first start"
    try:
        outbox = OutboxReader(path, device.device)
    except OutboxOlder:
        # No reason against an upgrade.
        return "written by an older version; it is brought up to date at the next start"
    found = outbox.check_integrity()
    if found != "ok":
        raise CxrError(f"The outbox {path} is damaged ({found}). `cxr-edge run` saves what it holds at its next start.")
    return f"{outbox.waiting()} of {outbox.last_seq()} outcomes wait for a receipt"


def _page(device: Device) -> str:
    if device.page is None:
        return "none: there is no [page] in the configuration"
    return page_of(device.page, Path(device.state))


def _tls_files(device: Device) -> str:
    relay = device.relay
    if not (relay.url.startswith("mqtts:") or relay.https.startswith("https:")):
        return "not used: the link is not encrypted, fit for one machine or a trusted network only"
    for key, name in (("ca", relay.ca), ("certificate", relay.certificate), ("private_key", relay.private_key)):
        if not name:
            raise CxrError(f"[relay] {key} is missing; mqtts:// and https:// need ca, certificate and private_key.")
        with Path(name).open("rb"):
            pass
    certificate = Path(relay.certificate)
    if (over := expired(certificate, utc_now())) is not None:
        if not synchronised():
            return f"readable; by this device's clock, which nobody sets, its certificate was good until {over:%Y-%m-%d}"
        raise CxrError(
            f"The certificate of this device was good until {over:%Y-%m-%d}. Ask the centre for a new enrolment file, then "
            "`cxr-edge enrol`. Results wait here meanwhile."
        )
    until = good_until(certificate)
    return "readable" if until is None else f"readable, good until {until:%Y-%m-%d}; the centre renews them"


def _answers(subject: str, address: str, ports: dict[str, int]) -> Finding:
    url = urlsplit(address)
    port = url.port or ports[url.scheme]
    try:
        socket.create_connection((url.hostname or "", port), timeout=5).close()
    except OSError as error:
        text = f"{url.hostname}:{port} does not answer ({error}). Results wait in the outbox until it does."
        return Finding(subject, False, text, fatal=False)
    return Finding(subject, True, f"{url.hostname}:{port} answers")
