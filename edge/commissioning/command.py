"""`cxr-edge commission`: silent commissioning for technicians. `infer` alone writes the journal and is asked to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge.commissioning.agreement import Share, table
from edge.commissioning.journal import read_standing
from edge.commissioning.standing import offered, shown_and_why
from edge.config import Device
from edge.contract.bundle import Manifest
from edge.errors import CxrError
from edge.network.manifest import bundle_folder, read_manifest
from edge.requests import AnyRequest, ReleaseRequest, Requests, SilenceRequest
from edge.unattended.lifecycle import is_running

_WAIT_S = 10.0
_LOOK_EVERY_S = 0.1

_WHY = {
    "new": "a new site",
    "model": "another model bundle",
    "drift": "the X-rays are no longer like those that were compared",
    "by_hand": "someone here wanted it so",
    "damaged": "the journal was damaged",
}


def ask(device: Device, *, release: bool, by: str, threshold: float | None) -> str:
    """Ask for a release, or for silence; return what came of it.

    Raises:
        CxrError: if it would make no sense.
        OSError: if the disk does not take it.
    """
    state = Path(device.state)
    standing, needed = read_standing(state), device.commissioning.readings
    if needed == 0:
        raise CxrError("[commissioning] readings is 0, so answers are always shown. Set it to how many are to be compared.")
    request: AnyRequest = SilenceRequest()
    if release:
        if not standing.silent:
            raise CxrError("The device is released already.")
        if not standing.may_be_released(needed):
            raise CxrError(f"{len(standing.compared)} of {needed} readings were compared. Read the others on the page first.")
        request = _release(device, by, threshold)
    Requests(state).ask(request)
    if not is_running(state, "infer"):
        return "Asked. The device does it when it starts."
    until = time.monotonic() + _WAIT_S
    while time.monotonic() < until:
        if read_standing(state).silent != release:
            return "Done."
        time.sleep(_LOOK_EVERY_S)
    return "Asked, but the device has not done it yet. Its log says why, if it refuses."


def lines(device: Device) -> Iterator[str]:
    """Yield how commissioning stands, for a person. No line names a patient or tells a single answer."""
    standing, needed = read_standing(Path(device.state)), device.commissioning.readings
    manifest = read_manifest(bundle_folder(device.model.bundle))
    shown, because = shown_and_why(standing, needed)
    if needed == 0:
        yield "Answers are shown: [commissioning] readings is 0, so nothing is compared and drift is not watched."
        return
    if shown and standing.release is not None:
        yield f"Answers are shown. Released by {standing.release.by}."
    else:
        yield f"Silent: answers are recorded and not shown ({_WHY[because or 'new']})."
    yield f"{len(standing.compared)} of {needed} readings were compared; {standing.undecided} more were not sure."
    yield f"Threshold: {_threshold(device, manifest, standing.threshold)}."
    if len(standing.compared) < needed:
        yield "The comparison is shown once there are enough, so that nobody reads with it in mind."
        return
    yield "threshold  would answer                    of those agree (95% intervals, for all rows together)"
    for row in table(standing.compared, manifest.threshold):
        yield f"{row.threshold:<9.3g}  {_share(row.answered):<30}  {_share(row.agreed)}"


def _release(device: Device, by: str, threshold: float | None) -> ReleaseRequest:
    own = read_manifest(bundle_folder(device.model.bundle)).threshold
    if device.model.threshold is not None and threshold is not None:
        raise CxrError("device.toml sets [model] threshold. Remove it there to choose one here.")
    if threshold is not None and threshold not in offered(own):
        raise CxrError(f"--threshold is one of {', '.join(f'{value:g}' for value in offered(own)[1:])}, or left out.")
    try:
        return msgspec.convert({"type": "release", "by": by.strip(), "threshold": threshold}, ReleaseRequest)
    except msgspec.ValidationError:
        raise CxrError("Say who releases the device: --by NAME, 1 to 60 characters. It stays on the device.") from None


def _threshold(device: Device, manifest: Manifest, chosen: float | None) -> str:
    if device.model.threshold is not None:
        return f"{device.model.threshold:.3g}, of device.toml"
    return f"{manifest.threshold:.3g}, of the bundle" if chosen is None else f"{chosen:.3g}, of the release"


def _share(share: Share) -> str:
    if not share.total:
        return "none"
    return f"{share.count} of {share.total}: {share.count / share.total:.3f} ({share.low:.3f} to {share.high:.3f})"
