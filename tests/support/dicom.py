"""X-ray machines for tests: DICOM objects, and DCMTK's programs that send them to a device."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from export.phantom import phantom
from tests.support.clinic import Device, make_device
from tests.support.processes import find_program, free_port, running, wait_for_port

MACHINE = "XRAY1"
PATIENT = "Lovelace^Ada"


def film(
    path: Path, uid: str, *, side: int = 64, seed: int = 1, drawn: bool = False, sop_class: UID = ComputedRadiographyImageStorage
) -> Path:
    """Write a DICOM file that names a patient: noise, or, where it has to pass the quality gate, a drawn X-ray."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = sop_class
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(uid)
    data.StudyInstanceUID = data.SeriesInstanceUID = UID("1.2.3.4")
    data.PatientName, data.PatientID, data.PatientBirthDate = PATIENT, "MRN-778", "18151210"
    data.Modality = "CR"
    data.Rows = data.Columns = side
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    rng = np.random.default_rng(seed)
    pixels = phantom(seed, width=side, height=side).tobytes() if drawn else rng.bytes(side * side)
    data["PixelData"] = pydicom.DataElement(0x7FE00010, "OB", pixels)
    data.save_as(path, enforce_file_format=True)
    return path


def dicom_device(home: Path, lines: Sequence[str] = (), allow: Sequence[str] = (f"{MACHINE}@127.0.0.1",)) -> tuple[Device, int]:
    """Write a device that listens on a free loopback port; return it and the port. `lines` end up in [dicom]."""
    device = make_device(home, f"mqtt://127.0.0.1:{free_port()}")
    port = free_port()
    table = ["", "[dicom]", f"port = {port}", f"allow = {list(allow)}".replace("'", '"'), *lines, ""]
    device.config.write_text(device.config.read_text("utf-8") + "\n".join(table), "utf-8")
    return device, port


@contextlib.contextmanager
def listening(device: Device, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `cxr-edge dicom` until the end."""
    command = [sys.executable, "-m", "edge.cli", "dicom", "--config", str(device.config)]
    with running(command, device.log) as process:
        wait_for_port(port, process, device.log)
        yield process


def dcmtk(program: str, port: int, *arguments: object, title: str = MACHINE) -> subprocess.CompletedProcess[str]:
    """Run one of DCMTK's senders against a loopback port."""
    command = [find_program(program, "dcmtk"), "-v", "-aet", title, "-aec", "CXR-EDGE", "127.0.0.1", str(port)]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
