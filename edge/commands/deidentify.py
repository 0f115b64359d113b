"""An X-ray for people outside of the clinic: a new DICOM object that names nobody.

It follows the Basic Application Level Confidentiality Profile of DICOM PS3.15 with its Clean Pixel Data Option.
Nothing is taken out of the old object: a new one is built, from the cleaned picture and the few values named here. Its UIDs and
patient number come from the same pseudonyms as those of the outcomes, so that the centre can tell which outcome it belongs to.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from edge.infer.identity import answers_to, file_source, nth_source, reused_source
from edge.infer.outcomes import differs
from edge.outbox.reader import Known, OutboxReader
from edge.pixels.decode import Limits, decode_file
from edge.pixels.headers import Headers
from edge.pixels.quality import check_quality
from edge.privacy.clean_pixels import clean
from edge.privacy.identifiers import patient_of
from edge.privacy.pseudonym import SiteKey

_METHOD = ("cxr-edge: Basic Profile, Clean Pixel Data", "built anew from named attributes")
_OPTIONS = (("113100", "Basic Application Confidentiality Profile"), ("113101", "Clean Pixel Data Option"))
_MODALITIES = frozenset({"CR", "DX", "RG"})
_VIEWS = {"AP": "AP", "PA": "PA"}
_SPACING_MM = (0.01, 10.0)

Find = Callable[[str], Known | None]


@dataclass(frozen=True)
class Released:
    """data: the new object, with its file meta. replaced: share of the picture that looked like writing, 0..1."""

    data: Dataset
    replaced: float


def recorded(outbox: OutboxReader, key: SiteKey) -> Find:
    """Return what finds the outcome of an unkeyed source key, under whichever key of the site it was recorded."""

    def find(source: str) -> Known | None:
        return next(filter(None, (outbox.find(one.keyed("source", source)) for one in key.all)), None)

    return find


def deidentify(
    path: Path, key: SiteKey, require_chest: Callable[[Image.Image, Headers], None], limits: Limits, find: Find
) -> Released:
    """Return a picture of the clinic as an object that may leave it, named after the outcome that it has, or would have.

    `find` returns the outcome of an unkeyed source key, see `recorded`.
    `require_chest` raises Refused for a picture that is no frontal chest radiograph as the network knows them: cleaning was
    measured on those alone, and what is left of writing over the lungs shows there.

    Raises:
        Unreadable: as `edge.pixels.decode.decode_file`.
        Refused: if it is none of those pictures, or cannot be cleaned.
    """
    picture = decode_file(path, limits)
    check_quality(picture)
    require_chest(picture.image, picture.headers)
    cleaned = clean(picture.image)
    require_chest(cleaned.image, picture.headers)
    data = _identity(picture.headers, key, _source(path, picture.headers, key, find))
    _describe(data, path, picture.headers)
    _set_pixels(data, cleaned.image)
    return Released(data, cleaned.replaced)


def _source(path: Path, headers: Headers, key: SiteKey, find: Find) -> str:
    """Return the unkeyed source key of the newest outcome that says of the patient what the file does."""
    digest, uid = hashlib.sha256(path.read_bytes()).hexdigest(), headers.sop_instance_uid
    if uid is None:
        kept = file_source(digest, path.stem)  # the device keeps a file under the id of its intake
        return kept if find(kept) else f"file:{digest}"
    if find(reused := reused_source(uid, digest)):
        return reused
    answers = list(answers_to(uid, find))
    pictures = [(source, known) for source, known in answers if known.pixel_hash]  # the others had no answer to this picture
    alike = [(known.number, source) for source, known in pictures if not differs(key, known.payload, headers)]
    return max(alike)[1] if alike else nth_source(uid, len(answers))


def _identity(headers: Headers, key: SiteKey, instance: str) -> Dataset:
    data = Dataset()
    study = headers.study_instance_uid
    patient, _ = patient_of(headers)
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = new_uid(key.keyed("source", instance))
    data.StudyInstanceUID = new_uid(key.keyed("study", study) if study else key.keyed("lone study", instance))
    data.SeriesInstanceUID = new_uid(key.keyed("series", instance))
    data.PatientID = data.PatientName = key.keyed("patient", patient) if patient else ""
    data.PatientIdentityRemoved = "YES"
    data.DeidentificationMethod = list(_METHOD)
    data.DeidentificationMethodCodeSequence = [_code(*option) for option in _OPTIONS]
    data.LongitudinalTemporalInformationModified = "REMOVED"
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def new_uid(keyed: str) -> UID:
    """Return the UID that stands for a pseudonym of 64 hex digits: that of the UUID which its first half gives."""
    return UID(f"2.25.{uuid.UUID(hex=keyed[:32], version=4).int}")


def _describe(data: Dataset, path: Path, headers: Headers) -> None:
    """Set what a reader needs, and leave empty what the standard asks for and nobody outside may know."""
    for keyword in (
        "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
        "SeriesNumber", "Manufacturer", "PatientOrientation",
    ):  # fmt: skip
        setattr(data, keyword, "")
    data.InstanceNumber = "1"
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.ConversionType = "WSD"
    data.BodyPartExamined = "CHEST"
    data.BurnedInAnnotation = "NO"
    data.Modality = "OT"
    if headers.view in _VIEWS:
        data.ViewPosition = _VIEWS[headers.view]
    try:
        said = pydicom.dcmread(path, specific_tags=["Modality", "PixelSpacing"], stop_before_pixels=True)
        if (modality := str(said.get("Modality", ""))) in _MODALITIES:
            data.Modality = modality
        spacing = [float(value) for value in said.get("PixelSpacing", ())]
        if len(spacing) == 2 and all(math.isfinite(value) and _SPACING_MM[0] <= value <= _SPACING_MM[1] for value in spacing):
            data.PixelSpacing = [f"{min(spacing):.4f}"] * 2  # see `edge.pixels.square`
    except InvalidDicomError:
        pass  # a PNG or another picture says nothing of the kind
    except Exception:  # pydicom raises nearly anything on damaged values; the picture itself was read
        data.pop("PixelSpacing", None)


def _set_pixels(data: Dataset, image: Image.Image) -> None:
    data.Columns, data.Rows = image.size
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.WindowCenter, data.WindowWidth = "128", "256"
    content = image.tobytes()
    data.add_new("PixelData", "OB", content + bytes(len(content) % 2))


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
