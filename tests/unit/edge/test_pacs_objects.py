"""What goes to the PACS is valid DICOM, belongs to the study of its film, and says that it is preliminary."""

import io
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
)

from edge.contract.messages import Void
from edge.contract.reasons import NOT_SURE
from edge.errors import Refused, Unreadable
from edge.infer.local import Heat
from edge.pacs.capture import make_capture
from edge.pacs.drawing import draw_answer
from edge.pacs.report import make_report
from edge.pacs.study import find_header
from edge.pacs.uids import derived_uid
from edge.pacs.wording import PRELIMINARY, percent
from edge.pixels.decode import decode_file
from edge.pixels.headers import read_headers
from edge.pixels.study_header import PATIENT_AND_STUDY, pack_header, unpack_header
from export.phantom import phantom
from tests.golden.examples import EXAMPLES
from tests.support.dicom_files import dicom
from tests.support.processes import find_program

RESULT, REFUSAL, FAILURE, VOID = (EXAMPLES[name] for name in ("result", "refusal", "failure", "void"))
UNSURE = msgspec.structs.replace(RESULT, abstained=True, quality=["unfamiliar"], heat={}, typicality=None)
OTHER = msgspec.structs.replace(
    RESULT,
    probabilities={"a_disease_with_a_rather_long_name": 1.0, "normal": 0.0},
    label="a_disease_with_a_rather_long_name",
    clock_synchronised=True,
)
HEAT = Heat(3, 3, bytes((0, 0, 0, 0, 255, 0, 0, 0, 0)))
UIDS = {"StudyInstanceUID": "1.2.3.9", "SeriesInstanceUID": "1.2.3.9.1", "SOPInstanceUID": "1.2.3.9.1.1"}
WHOLE = UIDS | {
    "PatientName": "Lovelace^Ada",
    "PatientID": "MRN-778",
    "PatientBirthDate": "18151210",
    "PatientSex": "F",
    "StudyDate": "20260131",
    "StudyTime": "101530.25",
    "AccessionNumber": "A-17",
    "StudyID": "9",
    "StudyDescription": "Chest PA",
    "ReferringPhysicianName": "Somerville^Mary",
}
SIDE = 120


def chest(bits=8):
    pixels = phantom(3, width=SIDE, height=SIDE + 20)
    return pixels if bits == 8 else pixels.astype("uint16") << (bits - 8)


SOURCES = {
    "cr": (WHOLE, {"SOPClassUID": ComputedRadiographyImageStorage}),
    "dx, 12 bits, oriented": (
        WHOLE,
        {
            "SOPClassUID": DigitalXRayImageStorageForPresentation,
            "pixels": chest(12),
            "bits": 12,
            "Modality": "DX",
            "PatientOrientation": ["L", "F"],
            "PresentationIntentType": "FOR PRESENTATION",
        },
    ),
    "sc, inverted": (WHOLE, {"SOPClassUID": SecondaryCaptureImageStorage, "photometric": "MONOCHROME1", "Modality": "OT"}),
    "nothing but a study": (UIDS, {}),
    "empty values": (WHOLE | {"PatientID": "", "PatientName": None, "StudyDate": "", "AccessionNumber": None}, {}),
    "latin": (WHOLE | {"PatientName": "Müller^Jürgen", "PatientID": "Ä-7"}, {"SpecificCharacterSet": "ISO_IR 100"}),
    "cyrillic": (WHOLE | {"PatientName": "Иванов^Иван"}, {"SpecificCharacterSet": "ISO_IR 144"}),
    "chinese": (WHOLE | {"PatientName": "Wang^XiaoDong=王^小东"}, {"SpecificCharacterSet": "GB18030"}),
    "japanese": (
        WHOLE | {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
    ),
    "utf-8": (WHOLE | {"PatientName": "Nguyễn^Thị", "StudyDescription": "Phổi"}, {"SpecificCharacterSet": "ISO_IR 192"}),
    "implicit": (WHOLE, {"syntax": ImplicitVRLittleEndian}),
    "big endian": (WHOLE | {"PatientName": "Müller^J"}, {"SpecificCharacterSet": "ISO_IR 100", "syntax": ExplicitVRBigEndian}),
    "lossy": (WHOLE, {"syntax": JPEGBaseline8Bit}),
    "lossy once": (
        WHOLE,
        {"LossyImageCompression": "01", "LossyImageCompressionRatio": "7.5", "LossyImageCompressionMethod": "ISO_10918_1"},
    ),
    "lossless": (WHOLE, {"syntax": JPEGLSLossless}),
}
OUTCOMES = {"result": RESULT, "not sure": UNSURE, "unknown class": OTHER, "refusal": REFUSAL, "failure": FAILURE, "void": VOID}


def source(path, name):
    values, how = SOURCES[name]
    how = {"pixels": chest()} | how
    return dicom(path / "film.dcm", how.pop("pixels"), **(values | how))


def capture_of(film, result=RESULT, heat=HEAT):
    picture = draw_answer(decode_file(film).image, result, heat)
    return make_capture(find_header(b"", film), film, result, picture, not result.abstained)


def valid(data: Dataset, path: Path) -> Dataset:
    """Write an object, let dciodvfy judge it, and return it as it is read again."""
    data.save_as(path, enforce_file_format=True)
    judged = subprocess.run([find_program("dciodvfy", "dicom3tools"), path], capture_output=True, check=False)
    said = judged.stderr.decode("utf-8", "replace")
    assert "ComprehensiveSR" in said or "SCImage" in said, "it knows what it judges"
    assert "Error" not in said, said
    return pydicom.dcmread(path)


@pytest.mark.parametrize("name", SOURCES)
def test_both_objects_are_valid_and_of_the_patient_whatever_the_film_is_like(tmp_path, name):
    film = source(tmp_path, name)
    original = pydicom.dcmread(film)
    raw = {tag: original.get_item(tag).value or b"" for tag in PATIENT_AND_STUDY if tag in original}
    for made in (capture_of(film), make_report(find_header(b"", film), RESULT, None)):
        data = valid(made, tmp_path / "made.dcm")
        assert {tag: data.get_item(tag).value or b"" for tag in raw} == raw, "byte by byte"
        for keyword, value in SOURCES[name][0].items():
            if keyword not in ("SOPInstanceUID", "SeriesInstanceUID"):
                assert str(data.get(keyword) or "") == str(value or "")
        assert data.SeriesInstanceUID != original.SeriesInstanceUID
        assert data.SOPInstanceUID.startswith("2.25.")


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_report_of_every_outcome_is_valid_preliminary_and_readable_by_others(tmp_path, name):
    film = source(tmp_path, "cr")
    outcome = OUTCOMES[name]
    withdrawn = RESULT if isinstance(outcome, Void) else None
    report = valid(make_report(find_header(b"", film), outcome, withdrawn), tmp_path / "report.dcm")
    assert (report.PreliminaryFlag, report.CompletionFlag, report.VerificationFlag) == ("PRELIMINARY", "PARTIAL", "UNVERIFIED")
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    dumped = subprocess.run(
        [find_program("dsrdump", "dcmtk"), "+Pl", tmp_path / "report.dcm"], capture_output=True, text=True, check=False
    )
    assert dumped.returncode == 0, dumped.stderr
    assert PRELIMINARY in dumped.stdout
    assert f"no. {outcome.seq}" in dumped.stdout
    assert "1.2.3.9.1.1" in str(report.ContentSequence), "it names the film"


def items(data):
    """Every content item, as (concept, value)."""
    for item in data.get("ContentSequence", []):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        if item.ValueType == "CODE":
            code = item.ConceptCodeSequence[0]
            yield name, (code.get("CodeValue") or code.get("LongCodeValue"), code.CodingSchemeDesignator)
        elif item.ValueType == "NUM":
            yield name, float(item.MeasuredValueSequence[0].NumericValue)
        elif item.ValueType == "TEXT":
            yield name, item.TextValue
        yield from items(item)


def test_the_report_says_what_the_answer_rests_on(tmp_path):
    report = make_report(find_header(b"", source(tmp_path, "cr")), RESULT, None)
    said = list(items(report))
    values = dict(said)
    assert values["Finding"] == values["Answer of the device"] == ("233604007", "SCT")
    assert values["Probability of Pneumonia"] == 62.5
    assert values["Probability of COVID-19"] == 25.0
    assert values["Threshold below which it is not sure"] == 60.0
    assert values["Share of the heat: image left half, upper"] == 50.0
    assert RESULT.model in values["Device Observer Model Name"]
    assert ("Algorithm Parameters", f"model SHA-256 {RESULT.model}") in said
    assert ("Algorithm Version", RESULT.software) in said
    assert not any("patient" in str(value).lower() and "left" in str(value).lower() for _, value in said), "sides of the image"


def test_not_sure_is_no_finding(tmp_path):
    header = find_header(b"", source(tmp_path, "cr"))
    said = list(items(make_report(header, UNSURE, None)))
    assert ("Finding", ("373068000", "SCT")) in said
    assert ("Answer of the device", ("not_sure", "99CXREDGE")) in said
    assert ("Comment", f"{NOT_SURE.capitalize()}.") in said
    assert not any(value == ("233604007", "SCT") for _, value in said)
    for outcome, code in ((REFUSAL, "no_answer"), (FAILURE, "no_answer"), (VOID, "withdrawn")):
        said = list(items(make_report(header, outcome, RESULT if outcome is VOID else None)))
        assert ("Answer of the device", (code, "99CXREDGE")) in said
        assert not [name for name, _ in said if name == "Finding" or name.startswith("Probability")]


def test_a_withdrawal_names_the_report_that_it_withdraws(tmp_path):
    header = find_header(b"", source(tmp_path, "cr"))
    voided = msgspec.structs.replace(RESULT, seq=VOID.voids)
    earlier, later = make_report(header, voided, None), make_report(header, VOID, voided)
    (study,) = later.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (named,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == earlier.StudyInstanceUID
    assert series.SeriesInstanceUID == earlier.SeriesInstanceUID == later.SeriesInstanceUID
    assert named.ReferencedSOPInstanceUID == earlier.SOPInstanceUID != later.SOPInstanceUID


def test_an_answer_made_again_is_the_same_object(tmp_path):
    film = source(tmp_path, "cr")

    def written(data):
        out = io.BytesIO()
        data.save_as(out, enforce_file_format=True)
        return out.getvalue()

    assert written(capture_of(film)) == written(capture_of(film))
    header = find_header(b"", film)
    assert written(make_report(header, RESULT, None)) == written(make_report(header, RESULT, None))
    uids = {
        (data.SOPInstanceUID, data.SeriesInstanceUID)
        for result in (RESULT, msgspec.structs.replace(RESULT, seq=43), msgspec.structs.replace(RESULT, epoch="9" * 32))
        for data in (capture_of(film, result), make_report(header, result, None))
    }
    assert len({sop for sop, _ in uids}) == 6
    assert len({series for _, series in uids}) == 2, "one series for each study and kind"


def test_the_capture_says_what_it_is_and_where_it_comes_from(tmp_path):
    film = source(tmp_path, "dx, 12 bits, oriented")
    data = valid(capture_of(film), tmp_path / "capture.dcm")
    assert data.ImageType[0] == "DERIVED"
    assert data.BurnedInAnnotation == "YES"
    assert data.LossyImageCompression == "00"
    assert list(data.PatientOrientation) == ["L", "F"]
    assert RESULT.model in data.DerivationDescription
    assert PRELIMINARY in data.ImageComments
    assert PRELIMINARY in data.SeriesDescription
    assert data.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.9.1.1"
    assert data.pixel_array.shape == (data.Rows, data.Columns, 3)


@pytest.mark.parametrize("name", ["lossy", "lossy once"])
def test_what_was_lossy_stays_lossy(tmp_path, name):
    data = capture_of(source(tmp_path, name))
    assert data.LossyImageCompression == "01"
    assert data.LossyImageCompressionMethod == "ISO_10918_1"
    assert float(data.LossyImageCompressionRatio) > 1


def colourful(picture):
    red, _, blue = (np.asarray(band).astype(int) for band in picture.split())
    return np.abs(red - blue) > 40


def test_the_heat_is_drawn_for_an_answer_and_not_for_none():
    film = Image.fromarray(phantom(3, width=800, height=800))
    shown, unsure = draw_answer(film, RESULT, HEAT), draw_answer(film, UNSURE, HEAT)
    without = draw_answer(film, RESULT, None)
    head = 45
    there = slice(head, head + 700)
    assert colourful(shown)[there].any()
    assert not colourful(without)[there].any()
    assert not colourful(unsure)[there].any(), "what is not sure points nowhere"
    assert colourful(unsure)[:head].any(), "the warning"
    middle = colourful(shown)[there]
    assert middle[300:400, 350:450].mean() > 0.9, "where the heat is"
    assert not middle[:100].any()


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (4000, 300), (64, 64)])
def test_a_film_of_any_shape_gets_a_picture_with_all_its_words(size):
    picture = draw_answer(Image.new("L", size, 90), RESULT, HEAT)
    assert picture.mode == "RGB"
    assert picture.width >= 720
    words = picture.crop((0, picture.height - 200, picture.width, picture.height))
    right = words.crop((words.width - 8, 60, words.width, words.height))
    assert ImageChops.difference(right, Image.new("RGB", right.size)).getbbox() is None, "no word is cut off"


def test_without_a_study_there_is_nothing_to_belong_to(tmp_path):
    png = tmp_path / "a.png"
    Image.new("L", (9, 9)).save(png)
    bare = dicom(tmp_path / "bare.dcm", chest())
    own = dicom(tmp_path / "own.dcm", chest(), **WHOLE, Manufacturer="cxr-edge")
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(bare.read_bytes()[:200])
    for film in (png, bare, own, cut, tmp_path / "gone.dcm", None):
        with pytest.raises(Unreadable, match="no_study"):
            find_header(b"", film)
    with pytest.raises(Unreadable, match="no_study"):
        find_header(b"\x08\0", None)


def test_an_answer_is_no_x_ray(tmp_path):
    """A PACS that sends everything around would otherwise have answers read, and answers to answers."""
    capture_of(source(tmp_path, "cr")).save_as(tmp_path / "capture.dcm", enforce_file_format=True)
    with pytest.raises(Refused, match="not_a_radiograph: it is an answer"):
        decode_file(tmp_path / "capture.dcm")


def test_what_is_kept_is_enough_once_the_film_is_gone(tmp_path):
    film = source(tmp_path, "japanese")
    kept = read_headers(pydicom.dcmread(film)).study
    original = make_report(find_header(b"", film), RESULT, None)
    film.unlink()
    assert make_report(find_header(kept, film), RESULT, None) == original


@given(st.dictionaries(st.sampled_from(sorted(PATIENT_AND_STUDY)), st.binary(min_size=1, max_size=60), max_size=14))
def test_any_bytes_of_a_header_come_back_as_they_were(values):
    data = Dataset()
    for tag, value in values.items():
        data[tag] = raw_element(tag, value)
    back = unpack_header(pack_header(data))
    assert {int(tag): back.get_item(tag).value for tag in list(back.keys())} == values


def test_a_name_that_no_character_set_explains_comes_back_as_it_came(tmp_path):
    """What a machine with wrong settings writes is what the PACS knows the patient by."""
    data = pydicom.dcmread(source(tmp_path, "cr"))
    odd = {0x00080005: b"GB18030 ", 0x00100010: b"Wang^\xff\xff\x80", 0x00080020: b"31.01.26"}
    for tag, value in odd.items():
        data[tag] = raw_element(tag, value)
    report = make_report(find_header(pack_header(data), None), RESULT, None)
    report.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    written = (tmp_path / "report.dcm").read_bytes()
    for value in odd.values():
        assert value in written


def raw_element(tag, value, vr=None):
    return pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(tag), vr or PATIENT_AND_STUDY[tag], len(value), value, 0, is_implicit_VR=False, is_little_endian=True
    )


def test_a_header_that_cannot_be_packed_costs_the_header_alone(tmp_path):
    data = pydicom.dcmread(source(tmp_path, "cr"))
    for tag in (0x00100020, 0x00104000):
        data[tag] = raw_element(tag, b"y" * 2000, "LT")
    assert "PatientID" not in unpack_header(pack_header(data)), "too long for what it is"
    assert unpack_header(pack_header(data)).PatientName == "Lovelace^Ada"
    assert pack_header(None) == b""


@given(st.text(), st.integers(1, 2**53), st.sampled_from(["picture", "report"]))
def test_a_derived_uid_is_one(epoch, seq, kind):
    uid = pydicom.uid.UID(derived_uid(epoch, seq, kind))
    assert uid.is_valid
    assert len(uid) <= 64
    assert uid != derived_uid(epoch, seq, kind + "s")


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0.0%"), (0.0001, "<0.1%"), (0.5, "50.0%"), (0.9999, ">99.9%"), (1.0, "100.0%")]
)
def test_no_certainty_by_rounding(value, words):
    assert percent(value) == words
