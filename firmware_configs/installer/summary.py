"""What a technician must see at the end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence

from .places import Places
from .toml import read_toml
from .units import Manager

_ANY = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not listened on


def summary(places: Places, manager: Manager, missing: Sequence[str], *, enrolled: bool) -> Iterator[str]:
    """Yield the lines. `missing`: what would still stop the device."""
    if not enrolled:
        yield f"Not enrolled yet. At its first start, or by hand: cxr-edge enrol FILE --config {places.device_toml} --profile ..."
        return
    said = read_toml(places.device_toml)
    program = f"{places.current}/bin/cxr-edge"
    yield ""
    yield f"This board is {said.get('device')} of {said.get('facility')}."
    if page := said.get("page"):
        scheme = "https" if page.get("certificate") else "http"
        at = [
            f"{scheme}://{_bracketed(host)}:{page.get('port', 8080)}" for host in _addresses(str(page.get("address", "127.0.0.1")))
        ]
        yield f"Its page:  {'  '.join(at)}    the PIN is in {page.get('pin')}"
    if manager.running:
        yield "It is running, and starts with the board."
    else:
        yield "No systemd runs here, so nothing was started; it starts with the board. By hand, as the user cxr-edge:"
        yield f"           {program} run --config {places.device_toml}"
    if missing:
        yield "Still to be done, as root:"
    for one in missing:
        yield f"           {one}"
    yield "Next:  a test film the whole way to the centre and back, as root:"
    yield f"           {program} check --config {places.device_toml} --to-the-centre"
    yield "       lock the paper with the site's key away; delete the enrolment file here and on every stick."


def _addresses(address: str) -> list[str]:
    if address not in _ANY:
        return [address]
    program = shutil.which("hostname")
    done = subprocess.run([program, "-I"], capture_output=True, text=True, check=False) if program else None
    return (done.stdout.split() if done else []) or ["ADDRESS-OF-THIS-BOARD"]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
