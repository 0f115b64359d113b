"""Invented patients whose names, numbers and birth dates nothing may show, in whatever way they are written."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

import numpy as np
import pydicom
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.support.dicom_files import dicom

_SCRIPTS = [
    "abcdefghiklmnoprstuvwyz",
    "áéíóúñçãõüøåæœšžł",
    "абвгдежзиклмнопрстуфхя",
    "αβγδεζηθικλμνξοπρστυφ",
    "بتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "कखगघचछजझटठडढतथदधनपफबभमयरलव",
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗",
    "አበገደሀወዘለመነሰቀተ",
    "ṣẹọńùàìéɓɗƙ",
]


@dataclass(frozen=True)
class Person:
    """Nobody. uid: what their objects' UIDs begin with."""

    family: str
    given: str
    number: str
    born: str
    uid: str

    @property
    def dicom_name(self) -> str:
        """As a person name of DICOM."""
        return f"{self.family}^{self.given}"

    def secrets(self) -> Iterator[str]:
        """Yield every text that would tell who it is."""
        year, month, day = self.born[:4], self.born[4:6], self.born[6:]
        yield from (self.family, self.given, self.number, self.number.removeprefix("MRN-"), self.uid)
        yield from (self.born, f"{year}-{month}-{day}", f"{day}.{month}.{year}", f"{month}/{day}/{year}")


def people(count: int, seed: int) -> list[Person]:
    """Return invented patients, each alphabet in turn; the same for the same seed."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        letters = _SCRIPTS[number % len(_SCRIPTS)]
        family, given = ("".join(rng.choices(letters, k=length)).capitalize() for length in (8, 7))
        born = f"{rng.randint(1897, 1909)}{rng.randint(1, 12):02d}{rng.randint(10, 28)}"
        made.append(
            Person(family, given, f"MRN-{rng.randrange(10**10, 10**11)}", born, f"1.2.826.0.1.{rng.randrange(10**11, 10**12)}")
        )
    return made


class Needles:
    """What is looked for: every secret in every way of writing it."""

    def __init__(self, secrets: Iterator[str]) -> None:
        self._exact: dict[bytes, str] = {}
        self._folded: dict[bytes, str] = {}
        for secret in secrets:
            for text in {secret, secret.lower(), secret.upper(), secret[::-1]}:
                self._add(secret, text)

    def _add(self, secret: str, text: str) -> None:
        for codec in ("utf-8", "utf-16-le", "utf-16-be", "latin-1", "iso8859-5", "gb18030"):
            try:
                content = text.encode(codec)
            except UnicodeEncodeError:
                continue
            self._folded[content.lower()] = self._folded[content.hex().encode()] = secret
            for shift, first in enumerate((0, 2, 3)):
                # The first and the last letter of base64 depend on what surrounds the text.
                encoded = base64.b64encode(bytes(shift) + content)
                self._exact[encoded[first : (shift + len(content)) * 8 // 6]] = secret
        for written in (quote(text), quote_plus(text), json.dumps(text)[1:-1], ascii(text)[1:-1], repr(text.encode())[2:-1]):
            self._folded[written.encode().lower()] = secret

    def found(self, hay: bytes) -> set[str]:
        """Return which secrets are in there."""
        folded = hay.lower()
        exact = {secret for needle, secret in self._exact.items() if len(needle) >= 6 and needle in hay}
        return exact | {secret for needle, secret in self._folded.items() if needle in folded}


def picture_with(person: Person, image: Image.Image, kind: str) -> bytes:
    """Return a PNG, JPEG or TIFF with a person in every text that such a file has room for."""
    said = f"{person.dicom_name} {person.number} {person.born} {person.given} {person.family}"
    exif = Image.Exif()
    for tag in (0x010E, 0x013B, 0x8298, 0x9C9B, 0x9C9D):  # description, artist, copyright, and what Windows calls title and author
        exif[tag] = said.encode("utf-16-le") if tag >> 8 == 0x9C else said.encode("ascii", "xmlcharrefreplace").decode()
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>{said}</dc:creator></x:xmpmeta>'.encode()
    out = io.BytesIO()
    if kind == "PNG":
        info = PngInfo()
        for key in ("Author", "Title", person.family.encode("ascii", "replace").decode()[:70]):
            info.add_itxt(key, said)
        info.add_text("Comment", said.encode("ascii", "replace").decode(), zip=True)
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(out, "PNG", pnginfo=info, exif=exif)
    elif kind == "JPEG":
        image.save(out, "JPEG", exif=exif, comment=said.encode(), xmp=xmp)
    else:
        tags = ImageFileDirectory_v2()
        for tag in (270, 315, 33432):
            tags[tag] = said
        image.save(out, "TIFF", tiffinfo=tags)
    return out.getvalue()


def dicom_with(person: Person, path: Path, pixels: np.ndarray, number: int = 0, **values: object) -> Path:
    """Write a DICOM file with a person in every attribute of text that a console knows, in private ones and in sequences."""
    dicom(path, pixels, StudyInstanceUID=f"{person.uid}.1", SeriesInstanceUID=f"{person.uid}.2", StudyDate="20260130", **_COMMON)
    data = pydicom.dcmread(path)
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{person.uid}.3.{number}"
    _name(data, person)
    for sequence in (
        "RequestAttributesSequence",
        "OriginalAttributesSequence",
        "OtherPatientIDsSequence",
        "PatientBreedCodeSequence",
    ):
        item = Dataset()
        _name(item, person)
        setattr(data, sequence, Sequence([item]))
    data.file_meta.SourceApplicationEntityTitle = person.number
    data.file_meta.PrivateInformationCreatorUID = person.uid
    data.file_meta.PrivateInformation = person.family.encode()
    data.preamble = person.family.encode()[:128].ljust(128, b"\0")
    for name, value in values.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


_COMMON = {"ViewPosition": "PA", "PatientSex": "F"}
_NAMES = [
    "PatientName",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "ReferringPhysicianName",
    "OperatorsName",
    "PerformingPhysicianName",
    "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord",
    "RequestingPhysician",
    "ResponsiblePerson",
    "PersonName",
    "ScheduledPerformingPhysicianName",
    "VerifyingObserverName",
    "ContentCreatorName",
    "HumanPerformerName",
]
_NUMBERS = [
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "StudyID",
    "AdmissionID",
    "RequestedProcedureID",
    "StationName",
    "FillerOrderNumberImagingServiceRequest",
    "PlacerOrderNumberImagingServiceRequest",
    "PerformedProcedureStepID",
    "DeviceSerialNumber",
    "PatientTelephoneNumbers",
    "MedicalRecordLocator",
    "RetrieveAETitle",
    "StationAETitle",
    "ScheduledStationAETitle",
]
_TEXTS = [
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "ImageComments",
    "PatientComments",
    "AdditionalPatientHistory",
    "Allergies",
    "IssuerOfPatientID",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "PatientAddress",
    "CountryOfResidence",
    "RegionOfResidence",
    "EthnicGroup",
    "Occupation",
    "MilitaryRank",
    "BranchOfService",
    "PatientReligiousPreference",
    "SpecialNeeds",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "ReasonForTheRequestedProcedure",
    "VisitComments",
    "DerivationDescription",
    "ContrastBolusAgent",
    "AcquisitionComments",
    "CurrentPatientLocation",
    "PatientInstitutionResidence",
    "StudyComments",
    "ResultsComments",
    "InterpretationText",
    "TextValue",
    "AcquisitionDeviceProcessingDescription",
]


def _name(data: Dataset, person: Person) -> None:
    for keyword in _NAMES:
        setattr(data, keyword, person.dicom_name)
    for keyword in _NUMBERS:
        setattr(data, keyword, person.number)
    for keyword in _TEXTS:
        setattr(data, keyword, f"{person.given} {person.family}")
    data.PatientBirthDate = data.PatientBirthDateInAlternativeCalendar = person.born
    data.LastMenstrualDate = data.AdmittingDate = person.born
    block = data.private_block(0x0009, "CXR CANARY", create=True)
    private = (("LO", person.number), ("PN", person.dicom_name), ("DA", person.born), ("UN", person.family.encode()))
    for place, (vr, value) in enumerate(private):
        block.add_new(place, vr, value)


def damaged_with(person: Person, good: bytes, png: bytes) -> dict[str, bytes]:
    """Return files that cannot be read, each broken where a decoder would speak of a person; by a suffix for the name.

    Those that are DICOM are objects of their own: under one UID they would be one outcome.
    """
    name = person.family.encode()
    cut = good.find(b"\x28\x00\x10\x00")
    files = {
        "name.dcm": name * 40,
        "cut.dcm": good[: cut + 3],
        "tag.dcm": good.replace(b"\x28\x00\x10\x00US", name[:4].ljust(4, b"x") + b"ZZ"),
        "syntax.dcm": good.replace(b"1.2.840.10008.1.2.1\0", (name * 20)[:20]),
        "rows.dcm": good.replace(b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00LO\x02\x00"),
        "modality.dcm": good.replace(b"CR", b"MR"),
        "deflated.dcm": good.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"[:20]),
        "chunk.png": png[:33] + name[:4].ljust(4, b"x") + png[37:],
        "text.png": png[:60] + name * 20,
        "head.png": b"\x89PNG\r\n\x1a\n" + name * 30,
        "frames.dcm": good[:cut] + b"\x28\x00\x08\x00IS" + len(name + name).to_bytes(2, "little") + name + name + good[cut:],
        "head.jpg": b"\xff\xd8\xff\xe1" + name * 30,
        "head.tif": b"II*\0" + name * 30,
        "empty.png": b"",
    }
    objects = (suffix for suffix, content in files.items() if content[128:132] == b"DICM")
    for branch, suffix in zip("0124567", objects, strict=True):
        files[suffix] = files[suffix].replace(f"{person.uid}.3.".encode(), f"{person.uid}.{branch}.".encode())
    return files
