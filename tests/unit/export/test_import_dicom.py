from __future__ import annotations

import csv
from functools import cache

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from edge.pixels.decode import decode_file
from export.cli import main
from export.dataset import load_pixels, read_manifest
from export.errors import DataError
from export.import_dicom import import_dicom
from export.label_table import clean_label
from export.phantom import phantom

NAME = "Mustermann^Erika"
PERSONAL = ("Mustermann", "Erika", "PAT-", "ACC-", "20200317", "19500101", "1.2.826", "Sankt")


@cache
def film(number, height=200):
    return phantom(number, width=224, height=height)


def write(path, number, height=200, **values):
    """A chest film of 12 bits; number: of the patient, the study and the object, which values may change."""
    frame = film(number, height).astype(np.uint16) << 4
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1")
    data.SOPInstanceUID = f"1.2.826.{number}"
    data.StudyInstanceUID = f"1.2.826.9.{number}"
    data.Modality, data.PatientName, data.PatientID = "CR", NAME, f"PAT-{number}"
    data.InstitutionName = "Sankt Nirgends"
    data.AccessionNumber, data.StudyDate, data.PatientBirthDate = f"ACC-{number}", "20200317", "19500101"
    data.PatientSex, data.ViewPosition, data.BurnedInAnnotation = "F", "PA", "NO"
    data.Rows, data.Columns = frame.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data["PixelData"] = pydicom.DataElement(0x7FE00010, "OW", frame.tobytes())
    for name, value in values.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def clinic(tmp_path):
    """Six films: two of patient 1, four good ones in all; a table by accession number."""
    export = tmp_path / "export"
    write(export / "a/IM1", 1)
    write(export / "a/IM2", 2, PatientID="PAT-1", PatientAge="099Y", PatientBirthDate=None)
    write(export / "b/IM1", 3, PatientSex=None, ViewPosition="AP", BurnedInAnnotation=None)
    write(export / f"b/{NAME}.dcm", 4, PatientID=None, PatientBirthDate=None)
    write(export / "b/side", 5, ViewPosition="LL")
    write(export / "b/words", 6, BurnedInAnnotation="YES")
    table(tmp_path, "accession_number,label", *(f"ACC-{n},{'COVID-19' if n % 2 else 'Normal'}" for n in range(1, 8)))
    return tmp_path


def table(folder, *lines):
    (folder / "labels.csv").write_text("\n".join(lines))


def bring(clinic, **options):
    return import_dicom(clinic / "export", clinic / "labels.csv", clinic / "out", **options)


def test_a_manifest_comes_out_and_no_name_does(clinic):
    imported = bring(clinic)
    samples = read_manifest(clinic / "out/manifest.csv")
    assert samples == imported.samples
    assert [sample.label for sample in samples] == ["covid19", "normal", "covid19", "normal"]
    assert samples[0].patient == samples[1].patient
    assert len({sample.patient for sample in samples}) == 3
    assert [sample.age for sample in samples] == [70.0, 90.0, 70.0, None]
    assert [sample.sex for sample in samples] == ["F", "F", "", "F"]
    assert [sample.view for sample in samples] == ["PA", "PA", "AP", "PA"]
    assert [sample.patient_known for sample in samples] == [True, True, True, False]
    assert sorted(imported.left_out) == [("b/side", "lateral"), ("b/words", "burned_in")]
    assert imported.unused == [8]
    assert imported.unsaid == {"age": 1, "sex": 1, "view": 0, "patient number": 1, "whether text is burned in": 1}
    everything = b"".join(path.name.encode() + path.read_bytes() for path in sorted((clinic / "out").rglob("*")) if path.is_file())
    assert not [word for word in PERSONAL if word.encode() in everything]


def test_the_picture_is_what_the_device_would_see(clinic):
    samples = bring(clinic).samples
    assert np.array_equal(Image.open(samples[0].file), decode_file(clinic / "export/a/IM1").image)
    assert np.array_equal(Image.open(samples[0].file), film(1))
    assert load_pixels(samples).shape[0] == 4


def test_the_same_key_gives_the_same_codes_and_another_gives_others(clinic):
    first = bring(clinic)
    again = import_dicom(clinic / "export", clinic / "labels.csv", clinic / "again", key=clinic / "out.key")
    other = import_dicom(clinic / "export", clinic / "labels.csv", clinic / "other")
    assert [sample.patient for sample in first.samples] == [sample.patient for sample in again.samples]
    assert not {sample.patient for sample in first.samples} & {sample.patient for sample in other.samples}
    assert (clinic / "out.key").stat().st_mode & 0o077 == 0


def test_a_file_that_cannot_be_read_is_listed_and_the_rest_goes_on(clinic):
    export = clinic / "export"
    (export / "note.txt").write_text("no film")
    (export / "a/IM2").write_bytes((export / "a/IM2").read_bytes()[:9000])
    write(export / "twice", 1)
    write(export / "unlabelled", 9)
    write(export / "small", 7, height=100)
    data = write(export / "packed", 2)
    header = pydicom.dcmread(data)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(data, enforce_file_format=True)
    imported = bring(clinic, burned_in=True)
    assert dict(imported.left_out) == {
        "note.txt": "no_dicom",
        "a/IM2": "truncated",
        "twice": "same_object_twice",
        "unlabelled": "no_label",
        "small": "too_small",
        "packed": "unsupported_encoding",
        "b/side": "lateral",
    }
    assert len(imported.samples) == 4
    with (clinic / "out.left-out.csv").open() as file:
        assert [tuple(row) for row in csv.reader(file)] == [("file", "reason"), *imported.left_out]


def test_rows_may_name_objects_or_files(clinic):
    table(clinic, "file;SOPInstanceUID;Label;remark", "a/IM1;;covid;x", ";1.2.826.2;normal;", f"{NAME};;Lung Opacity;")
    imported = bring(clinic)
    assert [sample.label for sample in imported.samples] == ["covid19", "normal", "lung_opacity"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["accession,label", "ACC-1,normal", "ACC-1,covid"], "line 2 says normal and line 3 says covid19 of the same accession"),
        (["accession,file,label", "ACC-1,,normal", ",a/IM1,covid"], "about a/IM1: line 2 says normal and line 3 says covid19"),
        (["file,label", "IM1,normal"], "Line 2 of the table names IM1, and 2 files are called so"),
        (["accession,label", "ACC-1,"], "line 2 has no label of letters"),
        (["accession,label", ",normal"], "line 2 has no sop_instance_uid, file or accession_number"),
        (["accession,diagnosis", "ACC-1,normal"], "has to name the column label and one of"),
        (["accession,label", "ACC-77,normal"], "None of 6 files in .* can be used with .*: 1 burned_in, 1 lateral, 4 no_label"),
        ([], "has to name the column label"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence_before_anything_is_written(clinic, lines, sentence):
    table(clinic, *lines)
    with pytest.raises(DataError, match=sentence):
        bring(clinic)
    assert sorted(path.name for path in clinic.iterdir()) == ["export", "labels.csv"]


def test_one_object_in_two_files_has_one_label(clinic):
    write(clinic / "export/copy", 1)
    table(clinic, "file,label", "a/IM1,normal", "copy,covid")
    with pytest.raises(DataError, match="a/IM1 and copy are one DICOM object, and the table calls it normal and covid19"):
        bring(clinic)
    assert not (clinic / "out").exists()


def test_folders_and_keys_that_cannot_be_used(clinic):
    with pytest.raises(DataError, match="There is no folder"):
        import_dicom(clinic / "nowhere", clinic / "labels.csv", clinic / "out")
    with pytest.raises(DataError, match="would lie among the pictures"):
        bring(clinic, key=clinic / "out/my.key")
    (clinic / "bad.key").write_text("short")
    with pytest.raises(DataError, match="is no key of 64 hexadecimal digits"):
        bring(clinic, key=clinic / "bad.key")
    bring(clinic)
    with pytest.raises(DataError, match="is not an empty folder"):
        bring(clinic)


@pytest.mark.parametrize(
    ("text", "label"),
    [("COVID-19", "covid19"), ("No finding", "normal"), ("Heart failure", "heart_failure"), ("Müller", ""), ("", ""), ("3", "")],
)
def test_labels(text, label):
    assert clean_label(text) == label


def test_the_command_says_what_it_did(clinic):
    said = CliRunner().invoke(main, ["import-dicom", str(clinic / "export"), str(clinic / "labels.csv"), str(clinic / "out")])
    assert said.exit_code == 0
    assert "4 pictures of 3 patient codes; 2 covid19, 2 normal" in said.output
    assert "left out: 1 burned_in, 1 lateral." in said.output
    assert "the headers do not say: age 1, sex 1, patient number 1, whether text is burned in 1" in said.output
    assert NAME not in said.output
    refused = CliRunner().invoke(main, ["import-dicom", str(clinic / "export"), str(clinic / "labels.csv"), str(clinic / "out")])
    assert refused.exit_code == 2
    assert "is not an empty folder" in refused.output
