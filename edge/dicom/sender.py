"""One object to this device's own listener by C-STORE, as a machine would send it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from edge.config import Device
from edge.dicom.arrival import SUCCESS, spool_name
from edge.dicom.guard import GuardedApplication
from edge.dicom.listener import be_silent, limits_of
from edge.dicom.peers import own_peer
from edge.dicom.tls import client_tls
from edge.errors import CxrError
from edge.unattended.lifecycle import is_running


def by_c_store(device: Device) -> Callable[[Path, str], str]:
    """Return what sends a film to the listener of `device`, which knows itself by its own AE title and address."""
    settings = device.dicom
    assert settings is not None

    def send(film: Path, uid: str) -> str:
        if not is_running(Path(device.state), "dicom"):
            raise CxrError("`cxr-edge dicom` does not run. Start the device (`systemctl start cxr-dicom`, or `cxr-edge run`).")
        be_silent()
        peer = own_peer(settings)
        data = dcmread(film)
        application = GuardedApplication(settings.ae_title, limits_of(settings, (peer,)))
        application.add_requested_context(data.SOPClassUID, [ExplicitVRLittleEndian])
        assoc = application.call(peer.address, settings.port, settings.ae_title, client_tls(settings))
        if not assoc.is_established:
            raise CxrError(f"The DICOM listener at {peer.address}:{settings.port} takes no association. Its log says why.")
        try:
            status = assoc.send_c_store(data).get("Status")
        finally:
            assoc.release()
        if status != SUCCESS:
            answer = "nothing" if status is None else f"0x{status:04X}"
            raise CxrError(f"The DICOM listener answered {answer} to the test film. Its log says why.")
        return spool_name(uid)

    return send
