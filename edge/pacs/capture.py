"""The Secondary Capture: the picture with its words, as an object of the study."""

from __future__ import annotations

from pathlib import Path

import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    SecondaryCaptureImageStorage,
)

from edge.contract.messages import Result
from edge.pacs.orders import PICTURE
from edge.pacs.study import put_common
from edge.pacs.wording import PRELIMINARY, headline, moment, origin
from edge.pixels.study_header import MANUFACTURER

_METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
}


def make_capture(header: Dataset, film: Path, result: Result, picture: Image.Image, heated: bool) -> Dataset:
    """Return the object.

    Args:
        header: of the film; see `edge.pacs.study`.
        film: the file that the picture was made of.
        result: the answer.
        picture: mode RGB; what is shown.
        heated: whether heat lies over it.
    """
    data = Dataset()
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.Modality = "OT"
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.ConversionType = "WSD"
    data.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    data.SecondaryCaptureDeviceManufacturerModelName = "cxr-edge"
    data.SecondaryCaptureDeviceSoftwareVersions = result.software
    data.DateOfSecondaryCapture = moment(result).strftime("%Y%m%d")
    data.TimeOfSecondaryCapture = moment(result).strftime("%H%M%S")
    data.BurnedInAnnotation = "YES"
    data.BodyPartExamined = "CHEST"
    data["PatientOrientation"] = header["PatientOrientation"] if "PatientOrientation" in header else _empty("PatientOrientation")
    data.ImageComments = f"{PRELIMINARY}. {headline(result)}. {origin(result)}"
    drawn = "the map of what speaks for the answer drawn over it in colour, " if heated else ""
    data.DerivationDescription = f"Windowed, made smaller, {drawn}words added; model SHA-256 {result.model}"
    data.SourceImageSequence = [_source(header)]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.Rows, data.Columns = picture.height, picture.width
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    _put_loss(data, film)
    put_common(data, header, result, PICTURE)
    content = picture.tobytes()
    data["PixelData"] = pydicom.DataElement(0x7FE00010, "OB", content + bytes(len(content) % 2))
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    return data


def _source(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    purpose = Dataset()
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code.value, code.scheme_designator, code.meaning
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _put_loss(data: Dataset, film: Path) -> None:
    """A picture that was once compressed with loss stays one, and says how."""
    source = pydicom.dcmread(film, stop_before_pixels=True)
    syntax = source.file_meta.TransferSyntaxUID
    lossy = syntax in _METHODS or source.get("LossyImageCompression") == "01"
    data.LossyImageCompression = "01" if lossy else "00"
    if not lossy:
        return
    for name in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if source.get(name):
            data[name] = source[name]
    if syntax in _METHODS:
        size = source.Rows * source.Columns * source.get("SamplesPerPixel", 1) * source.BitsAllocated / 8
        # A film is its pixels, to a thousandth.
        data.setdefault("LossyImageCompressionMethod", _METHODS[syntax])
        data.setdefault("LossyImageCompressionRatio", f"{size / film.stat().st_size:.2f}")


def _empty(name: str) -> pydicom.DataElement:
    return pydicom.DataElement(name, "CS", None)
